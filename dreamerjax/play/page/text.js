// The texts and numbers that the page shows of a moment.
import { short } from "./strips.js";

const $ = (id) => document.getElementById(id);
const percent = (x) => (x === null ? "–" : `${(100 * x).toFixed(0)}%`);

// Writes only changed text: that is faster, and screen readers do not repeat it.
export function write(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

export function element(kind, text, more = {}) {
  return Object.assign(document.createElement(kind), { textContent: text, ...more });
}

// Whether the dream has ended, and whether the real episode has.
export const dreamEnded = (header) => header.cont < 0.5;
export const realEnded = (header) => Boolean(header.real && (header.real.ended || header.real.over));

export function writeMoment(hello, header, reached) {
  $("driver").setAttribute("aria-checked", header.driver === "agent");
  $("observe").setAttribute("aria-checked", header.observing);
  write($("record-shown"), header.recording ? "■ Stop and save" : "● Record");
  $("record").classList.toggle("on", header.recording);
  write($("run-shown"), header.running ? "Pause" : "Run");
  writeSpeed(header, reached);
  write($("moment-shown"), `step ${header.step}`);
  write($("dream-note"), observingNote(header));
  banner($("dream-over"), dreamEnded(header), "The dream ends here.", `${hello.ends} “Restart” starts a new dream, “Back” goes back.`);
  $("real-pane").classList.toggle("absent", !header.real);
  write($("real-note"), !header.real ? "not available" : header.real.over ? "ended" : hello.pictures ? "the agent's observation" : "the same actions");
  banner($("real-over"), realEnded(header), header.real?.failed ? "The real episode ended here." : "The time limit is reached.",
    dreamEnded(header) ? "" : "“Restart” restarts both.");
  writeNumbers(hello, header);
  writeVectors(hello, header);
}

function writeSpeed(header, reached) {
  if (document.activeElement !== $("speed")) $("speed").value = header.speed;
  const asked = header.speed.toFixed(0), slower = reached !== null && reached < 0.85 * header.speed;
  write($("speed-shown"), slower ? `${reached.toFixed(reached < 9.95 ? 1 : 0)} of ${asked}/s` : `${asked}/s`);
  const spoken = `${asked} steps per second${slower ? `; this machine reaches ${reached.toFixed(0)}` : ""}`;
  if ($("speed").getAttribute("aria-valuetext") !== spoken) $("speed").setAttribute("aria-valuetext", spoken);
}

function observingNote(header) {
  if (header.observing && realEnded(header)) return "no more real observations";
  if (header.blind) return `${header.blind} ${header.blind === 1 ? "step" : "steps"} without observation`;
  if (!header.real) return "without any observation";
  return header.step ? "observes the real environment" : "first observation";
}

function banner(place, shown, text, more) {
  place.hidden = !shown;
  if (shown && place.dataset.text !== text + more) {
    place.dataset.text = text + more;
    place.replaceChildren(text, element("small", more));
  }
}

// The line above the images: what happens, and what to try next.
export function advice(hello, header, moves) {
  const agent = header.driver === "agent";
  const takeOver = `Hold ${moves.slice(0, 2).map((move) => move.label).join(" or ")} to act yourself.`;
  if (dreamEnded(header)) return "The dream has ended: restart, or go back and take another action.";
  if (header.observing && realEnded(header)) return "The real episode has ended: restart, or turn off “Agent observes” to continue the dream.";
  const text = agent && header.observing && header.real ? "The agent acts and observes the real environment. Turn off “Agent observes” to test how long its dream stays accurate."
    : agent && header.real ? `The agent acts from its dream alone; the real environment gets the same actions. ${takeOver}`
    : agent ? `The agent acts in its dream. ${takeOver}`
    : hello.actions.every((spec) => spec.kind === "discrete") ? "You act. The dream runs while you hold a move. “Agent acts” hands control back."
    : "You act. “Agent acts” hands control back.";
  return header.running ? text : `Paused. ${text}`;
}

const hasAxes = (specs) => specs.some((spec) => spec.kind === "continuous");

// The explanation of uncertainty depends on the kind of action.
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
    ["continue probability", percent(header.cont)],
    ["value", short(header.value)],
    ["surprise", header.surprise === null ? "–" : `${short(header.surprise)} nats`],
    ["agent's uncertainty", uncertainty(hello, header)],
  ], ([term, value]) => {
    const group = document.createElement("div");
    group.append(element("dt", term), element("dd", value));
    return group;
  }, "dd");
}

const MAX_NUMBERS = 12;  // of each vector

function writeVectors(hello, header) {
  const rows = [];
  for (const [name, values] of Object.entries(header.vectors)) {
    values.slice(0, MAX_NUMBERS).forEach((value, i) => {
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

// Creates the rows once; afterwards writes only changed cells.
function writeCells(place, rows, made, cell) {
  if (place.childElementCount !== rows.length) return place.replaceChildren(...rows.map(made));
  const cells = place.querySelectorAll(cell), values = rows.flatMap((row) => row.slice(1));
  values.forEach((value, i) => write(cells[i], value));
}
