// What the page says of a moment, in words and numbers.
import { short } from "./strips.js";

const $ = (id) => document.getElementById(id);
const percent = (x) => (x === null ? "–" : `${(100 * x).toFixed(0)}%`);

// Writes only what has changed: that is cheaper, and a screen reader is not told the same again.
export function write(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

export function element(kind, text, more = {}) {
  return Object.assign(document.createElement(kind), { textContent: text, ...more });
}

// Of a moment: whether the dream has ended, and whether reality has.
export const dreamEnded = (header) => header.cont < 0.5;
export const realEnded = (header) => Boolean(header.real && (header.real.ended || header.real.over));

export function writeMoment(hello, header, reached) {
  $("wheel").setAttribute("aria-checked", header.wheel === "agent");
  $("eyes").setAttribute("aria-checked", header.eyes);
  write($("record-shown"), header.recording ? "■ Stop and save" : "● Record");
  $("record").classList.toggle("on", header.recording);
  write($("run-shown"), header.running ? "Pause" : "Run");
  writeSpeed(header, reached);
  write($("moment-shown"), `step ${header.step}`);
  write($("dream-note"), eyesInWords(header));
  banner($("dream-over"), dreamEnded(header), "The dream ends here.", `${hello.ends} “Start again” begins anew, “Back” goes back.`);
  $("real-pane").classList.toggle("absent", !header.real);
  write($("real-note"), !header.real ? "not to be had here" : header.real.over ? "has ended" : hello.pictures ? "as the agent sees it" : "the same actions");
  banner($("real-over"), realEnded(header), header.real?.failed ? "Here it really ended." : "Its time is up.",
    dreamEnded(header) ? "" : "“Start again” begins both anew.");
  writeNumbers(hello, header);
  writeVectors(hello, header);
}

function writeSpeed(header, reached) {
  if (document.activeElement !== $("speed")) $("speed").value = header.speed;
  const asked = header.speed.toFixed(0), slower = reached !== null && reached < 0.85 * header.speed;
  write($("speed-shown"), slower ? `${reached.toFixed(reached < 9.95 ? 1 : 0)} of ${asked}/s` : `${asked}/s`);
  const spoken = `${asked} steps a second${slower ? `, of which this machine reaches ${reached.toFixed(0)}` : ""}`;
  if ($("speed").getAttribute("aria-valuetext") !== spoken) $("speed").setAttribute("aria-valuetext", spoken);
}

function eyesInWords(header) {
  if (header.eyes && realEnded(header)) return "eyes open, but nothing real is left to see";
  if (header.blind) return `eyes shut for ${header.blind} ${header.blind === 1 ? "step" : "steps"}`;
  if (!header.real) return "dreamed from nothing";
  return header.step ? "eyes open: it sees what is real" : "a first look";
}

function banner(place, shown, text, more) {
  place.hidden = !shown;
  if (shown && place.dataset.text !== text + more) {
    place.dataset.text = text + more;
    place.replaceChildren(text, element("small", more));
  }
}

// The line above the pictures: what happens, and what one might try next.
export function advice(hello, header, moves) {
  const agent = header.wheel === "agent";
  const takeOver = `Hold ${moves.slice(0, 2).map((move) => move.label).join(" or ")} to take over.`;
  if (dreamEnded(header)) return "The dream has ended: start again, or go back and act otherwise.";
  if (header.eyes && realEnded(header)) return "Reality has ended: start again, or shut the agent's eyes and let it dream on.";
  const said = agent && header.eyes && header.real ? "The agent acts and sees what is real. Shut its eyes, and see how long its dream stays true."
    : agent && header.real ? `The agent acts by its dream alone; reality gets the same actions. ${takeOver}`
    : agent ? `The agent acts in its dream. ${takeOver}`
    : hello.actions.every((spec) => spec.kind === "discrete") ? "You act. Time moves while you hold a move; “Agent drives” gives the wheel back."
    : "You act. “Agent drives” gives the wheel back.";
  return header.running ? said : `Paused. ${said}`;
}

const hasAxes = (specs) => specs.some((spec) => spec.kind === "continuous");

// What the glossary says of uncertainty depends on the kind of action.
export function writeKinds(hello) {
  for (const line of document.querySelectorAll(".choices")) line.hidden = hasAxes(hello.actions);
  for (const line of document.querySelectorAll(".axes")) line.hidden = !hasAxes(hello.actions);
}

function uncertainty(hello, header) {
  if (!hasAxes(hello.actions)) return `${short(header.entropy)} nats`;
  let at = 0;
  const own = hello.actions.flatMap((spec) => {
    const part = header.policy_std.slice(at, (at += spec.size));
    return spec.kind === "continuous" ? part : [];
  });
  return `± ${short(own.reduce((sum, x) => sum + x, 0) / own.length)}`;
}

function writeNumbers(hello, header) {
  writeCells($("numbers"), [
    ["predicted reward", short(header.reward)],
    ["probability to go on", percent(header.cont)],
    ["value", short(header.value)],
    ["surprise", header.surprise === null ? "–" : `${short(header.surprise)} nats`],
    ["agent's uncertainty", uncertainty(hello, header)],
  ], ([term, value]) => {
    const group = document.createElement("div");
    group.append(element("dt", term), element("dd", value));
    return group;
  }, "dd");
}

const MOST = 12;  // numbers of each vector

function writeVectors(hello, header) {
  const rows = [];
  for (const [name, values] of Object.entries(header.vectors)) {
    values.slice(0, MOST).forEach((value, i) => {
      const there = header.real?.vectors[name]?.[i];
      rows.push([hello.numbers[i] ?? `${name}[${i}]`, value.toFixed(3), there === undefined ? "–" : there.toFixed(3)]);
    });
  }
  $("vectors-card").hidden = !rows.length;
  writeCells($("vectors"), rows, ([name, ...cells]) => {
    const row = document.createElement("tr");
    row.append(element("th", name, { scope: "row" }), ...cells.map((cell) => element("td", cell)));
    return row;
  }, "td");
}

// Makes the rows once, and afterwards only writes what has changed into their cells.
function writeCells(place, rows, made, cell) {
  if (place.childElementCount !== rows.length) return place.replaceChildren(...rows.map(made));
  const cells = place.querySelectorAll(cell), values = rows.flatMap((row) => row.slice(1));
  values.forEach((value, i) => write(cells[i], value));
}
