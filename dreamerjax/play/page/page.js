// The page: keys and buttons to messages, messages to pictures.
import { Link } from "./link.js";
import { Moments } from "./moments.js";
import { actionOf, movesOf } from "./moves.js";
import { bitmapOf, paint } from "./screen.js";
import { drawLatent, drawStrips, drawTree, nearest, readColours } from "./strips.js";
import { advice, element, write, writeKinds, writeMoment } from "./words.js";

const $ = (id) => document.getElementById(id);
const token = new URLSearchParams(location.search).get("token");
const moments = new Moments();
let hello = null, header = null, moves = [], held = [], note = "";
const link = new Link({ heard, seen, lost });
const ask = (message) => link.ask(message);

function lost(text) {
  held = [];
  document.body.classList.add("lost");
  $("main").inert = true;
  write($("status"), text);
}

function heard(content) {
  if (content.wait) { document.body.classList.remove("lost"); write($("status"), content.wait); }
  if (content.hello) begin(content);
  if (content.note) write($("status"), note = content.note);
  if (content.saved) saved(content.saved, content.folder);
}

function begin(content) {
  hello = content;
  header = newest = null;
  $("name").textContent = content.hello;
  document.title = `Inside the dream of ${content.hello}`;
  moments.clear();
  for (const [number, parent, step, reward, cont, value, surprise] of content.tree) {
    moments.add(number, parent, step, { reward, cont, value, surprise });
  }
  moves = movesOf(content.actions, content.names);
  $("moves").replaceChildren(...moves.map(moveButton));
  $("episode").replaceChildren(
    element("option", "a fresh start of the environment", { value: "" }),
    ...content.episodes.map((one, i) => element("option", one.title, { value: i })),
  );
  rowsOffered();
  $("latent-note").textContent = `${content.latent[0]} groups of ${content.latent[1]} classes: blue is what the agent expects, a dot what it dreamed.`;
  $("keys").replaceChildren(...keyRows());
  for (const id of ["numbers", "vectors"]) $(id).replaceChildren();
  writeKinds(content);
  note = content.trouble ? `There is no real side: ${content.trouble.split("\n")[0]}` : "";
}

// Which rows the chosen episode has to begin from.
function rowsOffered() {
  const chosen = hello?.episodes[$("episode").value], last = chosen ? chosen.steps - 1 : 0;
  Object.assign($("row"), { disabled: !chosen, max: last, value: Math.min($("row").value, last) });
  $("row-most").textContent = chosen ? `of ${last}` : "";
}

// Moments arrive, and the newest one is drawn

let newest = null, undrawn = 0, drawing = false;

function seen(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const arrived = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const isNew = !moments.all.has(arrived.number);
  if (isNew) moments.add(arrived.number, arrived.parent, arrived.step, arrived);
  moments.forget(arrived.root);
  moments.go(arrived.number);
  const [dreamed, real] = arrived.pictures, start = 4 + length;
  header = arrived;
  newest = { dream: new Uint8Array(buffer, start, dreamed), real: new Uint8Array(buffer, start + dreamed, real) };
  undrawn += 1;
  countSteps(isNew && arrived.running);
  schedule();
}

function schedule() {
  if (drawing || !newest) return;
  drawing = true;
  requestAnimationFrame(async () => {
    const moment = header, pictures = newest, count = undrawn;
    undrawn = 0;
    try {
      await draw(moment, pictures);
    } finally {
      drawing = false;
      for (let i = 0; i < count; i++) ask({ do: "seen" });
      if (undrawn) schedule();
    }
  });
}

async function draw(moment, pictures) {
  const bitmaps = await Promise.all([bitmapOf(pictures.dream), bitmapOf(pictures.real)]);
  paint($("dream"), bitmaps[0], hello.draws ? null : moment.vectors, "dream");
  paint($("real"), bitmaps[1], hello.draws ? null : moment.real?.vectors, "real");
  writeMoment(hello, moment, reached());
  write($("status"), note || advice(hello, moment, moves));
  Object.assign($("timeline"), { max: moments.line.length - 1, value: moments.line.indexOf(moment.number) });
  drawStrips($("strips"), moments);
  drawTree($("tree"), moments);
  drawLatent($("latent"), moment.latent, hello.latent);
  $("main").inert = false;
  document.body.classList.remove("lost");
  document.body.dataset.frames = Number(document.body.dataset.frames ?? 0) + 1;
}

// How many steps a second are really reached: over the last second or more, while time goes on without a break.

let times = [];

function countSteps(counts) {
  if (!counts) { times = []; return; }
  times.push(performance.now());
  if (times.length > 120) times.shift();
}

function reached() {
  const last = times.at(-1), first = times.findIndex((time) => last - time < 2000), seconds = (last - times[first]) / 1000;
  return times.length > 3 && seconds > 1 ? (times.length - 1 - first) / seconds : null;
}

function saved(files, folder) {
  const item = document.createElement("li");
  item.append("Saved: ");
  files.forEach((file, i) => {
    const href = `/recordings/${encodeURIComponent(file)}${token ? `?token=${encodeURIComponent(token)}` : ""}`;
    item.append(i ? " and " : "", element("a", file, { href, download: file }));
  });
  item.append(` in ${folder}`);
  $("saved").prepend(item);
  write($("status"), note = `Saved in ${folder}: ${files.join(" and ")}.`);
}

// Moves

function moveButton(move) {
  const button = element("button", move.label, { type: "button" });
  const press = (event) => { event.preventDefault(); down(move); };
  const release = () => up(move);
  button.addEventListener("pointerdown", press);
  for (const kind of ["pointerup", "pointerleave", "pointercancel", "blur"]) button.addEventListener(kind, release);
  button.addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.repeat) press(event); });
  button.addEventListener("keyup", (event) => { if (event.key === "Enter") release(); });
  button.addEventListener("contextmenu", (event) => event.preventDefault());
  move.button = button;
  return button;
}

function down(move) {
  if (held.includes(move)) return;
  held.push(move);
  hold();
}

function up(move) {
  if (!held.includes(move)) return;
  held = held.filter((other) => other !== move);
  hold();
}

function hold() {
  note = "";
  for (const move of moves) move.button.classList.toggle("held", held.includes(move));
  ask({ do: "hold", action: actionOf(hello.actions, held) });
}

function releaseAll() {
  if (held.length) { held = []; hold(); }
}

// Keys and buttons: none of them does anything before the first moment is drawn

const now = () => moments.line.indexOf(moments.now);
const along = (index) => link.askMoment({ do: "go", to: moments.line[Math.max(0, Math.min(index, moments.line.length - 1))] });

function branch(way) {
  const tips = moments.tips().sort((a, b) => a.lane - b.lane), tip = moments.line.at(-1);
  if (tips.length) link.askMoment({ do: "go", to: tips.at((tips.findIndex((one) => one.number === tip) + way + tips.length) % tips.length).number });
}

function pace(steps) {
  times = [];
  header.speed = Math.max(1, Math.min(60, steps));
  link.askMoment({ do: "speed", steps: header.speed });
}

const COMMANDS = [
  [" ", "Space", "run or pause", () => ask({ do: "run", on: !header.running })],
  ["g", "G", "you or the agent at the wheel", () => ask({ do: "wheel", who: header.wheel === "agent" ? "you" : "agent" })],
  [".", ".", "one step", () => link.askMoment({ do: "step", action: actionOf(hello.actions, held) })],
  ["Backspace", "⌫", "one step back", () => along(now() - 1)],
  ["PageUp", "Page Up", "ten steps back", () => along(now() - 10)],
  ["PageDown", "Page Down", "ten steps on, along what was dreamed", () => along(now() + 10)],
  ["Home", "Home", "to the beginning", () => along(0)],
  ["End", "End", "to the end of this branch", () => along(moments.line.length - 1)],
  ["[", "[", "the branch before", () => branch(-1)],
  ["]", "]", "the next branch", () => branch(1)],
  ["e", "E", "open or shut the agent's eyes", () => ask({ do: "eyes", opened: !header.eyes })],
  ["r", "R", "start again", () => ask({ do: "begin", episode: null, step: 0 })],
  ["?", "?", "show or hide these keys", () => { $("help").open = !$("help").open; if ($("help").open) $("help").scrollIntoView(); }],
  ["v", "V", "record, then stop and save", () => ask({ do: "record", on: !header.recording })],
  ["-", "−", "slower", () => pace(header.speed - 5)],
  ["+", "+", "faster", () => pace(header.speed + 5)],
];

function keyRows() {
  const rows = [...moves.map((move) => [move.keys.map((key) => move.arrow === key ? move.label.split(" ")[0] : key.toUpperCase()).join(" or "), `hold: ${move.name}`]), ...COMMANDS.map(([, shown, does]) => [shown, does])];
  return rows.map(([key, does]) => { const row = document.createElement("tr"); row.append(element("th", key, { scope: "row" }), element("td", does)); return row; });
}

const ready = () => header !== null && !$("main").inert;

function run(key) {
  const command = COMMANDS.find(([own]) => own === key);
  if (!command || !ready()) return false;
  note = "";
  command[3]();
  return true;
}

// Whether a control that has the focus needs a key itself: a slider only what moves it, and only if it was reached by Tab.
const MOVES_SLIDER = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "PageUp", "PageDown", "Home", "End"];
function needs(target, key) {
  if (target.matches?.("input[type=range]")) return MOVES_SLIDER.includes(key);
  if (target.matches?.("button, summary, a")) return key === " " || key === "Enter";
  return target.matches?.("input, select") ?? false;
}

addEventListener("keydown", (event) => {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey || event.altKey || !ready() || needs(event.target, key)) return;
  const move = moves.find((one) => one.keys.includes(key));
  if (move) { event.preventDefault(); if (!event.repeat) down(move); return; }
  if (run(key)) event.preventDefault();
});
addEventListener("keyup", (event) => {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const move = moves.find((one) => one.keys.includes(key));
  if (move) up(move);
});
addEventListener("blur", releaseAll);
document.addEventListener("visibilitychange", () => document.hidden && releaseAll());

for (const [id, key] of [["wheel", "g"], ["run", " "], ["back", "Backspace"], ["step", "."], ["eyes", "e"], ["again", "r"], ["record", "v"]]) {
  $(id).addEventListener("click", () => run(key));
}
// Who uses the mouse keeps the keys: a control that was clicked does not hold on to them.
for (const control of document.querySelectorAll("button, input[type=range]")) {
  control.addEventListener("pointerup", () => setTimeout(() => control.blur()));
}
$("episode").addEventListener("change", rowsOffered);
$("speed").addEventListener("input", (event) => ready() && pace(Number(event.target.value)));
$("timeline").addEventListener("input", (event) => ready() && along(Number(event.target.value)));
$("tree").addEventListener("click", (event) => {
  const to = nearest($("tree"), moments, event.offsetX, event.offsetY);
  if (to !== null) link.askMoment({ do: "go", to });
});
$("begin").addEventListener("submit", (event) => {
  event.preventDefault();
  const chosen = $("episode").value;
  ask({ do: "begin", episode: chosen === "" ? null : Number(chosen), step: Math.max(0, Number($("row").value) | 0) });
});
addEventListener("resize", schedule);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); schedule(); });
