// The moves in an environment, with names and keys, and the action that the held moves make together.

const ARROWS = { 2: ["ArrowLeft", "ArrowRight"], 3: ["ArrowLeft", "ArrowDown", "ArrowRight"], 4: ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"] };
const LETTERS = { ArrowLeft: "a", ArrowRight: "d", ArrowUp: "w", ArrowDown: "s" };
const SHOWN = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" };
const MAX_MOVES = 12;

// names: of each number of an action.
export function movesOf(specs, names) {
  const moves = [];
  let offset = 0, arrows = 0;
  for (const spec of specs) {
    if (spec.kind === "discrete") {
      for (let i = 0; i < spec.size; i++) {
        const arrow = moves.length === i ? (ARROWS[spec.size] ?? [])[i] : undefined;
        moves.push({ at: offset + i, value: 1, part: offset, arrow, name: names[offset + i] });
      }
    } else {
      for (let i = 0; i < spec.size; i++) {
        const pair = [["ArrowLeft", "ArrowRight"], ["ArrowDown", "ArrowUp"]][arrows++] ?? [];
        moves.push({ at: offset + i, value: -1, arrow: pair[0], name: `${names[offset + i]} −` });
        moves.push({ at: offset + i, value: 1, arrow: pair[1], name: `${names[offset + i]} +` });
      }
    }
    offset += spec.size;
  }
  return moves.slice(0, MAX_MOVES).map((move, i) => ({
    ...move,
    keys: [move.arrow, LETTERS[move.arrow], i < 9 ? String(i + 1) : undefined].filter(Boolean),
    label: `${SHOWN[move.arrow] ? SHOWN[move.arrow] + " " : ""}${move.name}`,
  }));
}

// The action [A] of the held moves, as for the agent; null: none is held.
export function actionOf(specs, held) {
  if (!held.length) return null;
  const action = [];
  for (const spec of specs) {
    const own = new Array(spec.size).fill(0), start = action.length;
    for (const move of held) {
      if (move.at < start || move.at >= start + spec.size) continue;
      if (spec.kind === "discrete") own.fill(0);
      own[move.at - start] = move.value;
    }
    if (spec.kind === "discrete" && !own.includes(1)) own[0] = 1;
    action.push(...own);
  }
  return action;
}
