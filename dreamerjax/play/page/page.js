// The page: turns keys and buttons into messages, and messages into images and text.
import { Link } from "./link.js";
import { Moments } from "./moments.js";
import { actionOf, movesOf } from "./moves.js";
import { bitmapOf, paint } from "./screen.js";
import { drawLatent, drawStrips, drawTree, nearest, readColours } from "./strips.js";
import { advice, element, write, writeKinds, writeMoment } from "./text.js";

const $ = (id) => document.getElementById(id);
const token = new URLSearchParams(location.search).get("token");
const moments = new Moments();
let hello = null, header = null, moves = [], held = [], note = "";
const link = new Link({ text: receiveText, moment: receiveMoment, lost });
const request = (message) => link.request(message);

function lost(text) {
  held = [];
  document.body.classList.add("lost");
  $("main").inert = true;
  write($("status"), text);
}

function receiveText(content) {
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
    element("option", "reset of the environment", { value: "" }),
    ...content.episodes.map((one, i) => element("option", one.title, { value: i })),
  );
  updateRows();
  $("latent-note").textContent = `${content.latent[0]} groups of ${content.latent[1]} classes. Blue: prior probability. Dot: sampled class.`;
  $("keys").replaceChildren(...keyRows());
  for (const id of ["numbers", "vectors"]) $(id).replaceChildren();
  writeKinds(content);
  note = content.trouble ? `No real environment: ${content.trouble.split("\n")[0]}` : "";
}

// Updates the range of rows from which the selected episode can start.
function updateRows() {
  const chosen = hello?.episodes[$("episode").value], last = chosen ? chosen.steps - 1 : 0;
  Object.assign($("row"), { disabled: !chosen, max: last, value: Math.min($("row").value, last) });
  $("row-most").textContent = chosen ? `of ${last}` : "";
}

// Moments: all are stored, the newest one is drawn

let newest = null, undrawn = 0, drawing = false;

function receiveMoment(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const arrived = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const isNew = !moments.all.has(arrived.number);
  if (isNew) moments.add(arrived.number, arrived.parent, arrived.step, arrived);
  moments.prune(arrived.root);
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
      for (let i = 0; i < count; i++) request({ do: "drawn" });
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

// The measured steps per second, over the last one to two seconds of running without a pause.

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
  request({ do: "hold", action: actionOf(hello.actions, held) });
}

function releaseAll() {
  if (held.length) { held = []; hold(); }
}

// Keys and buttons: disabled until the first moment is drawn

const now = () => moments.line.indexOf(moments.now);
const along = (index) => link.requestMoment({ do: "go", to: moments.line[Math.max(0, Math.min(index, moments.line.length - 1))] });

function branch(way) {
  const tips = moments.tips().sort((a, b) => a.lane - b.lane), tip = moments.line.at(-1);
  if (tips.length) link.requestMoment({ do: "go", to: tips.at((tips.findIndex((one) => one.number === tip) + way + tips.length) % tips.length).number });
}

function pace(steps) {
  times = [];
  header.speed = Math.max(1, Math.min(60, steps));
  link.requestMoment({ do: "speed", steps: header.speed });
}

const COMMANDS = [
  [" ", "Space", "run or pause", () => request({ do: "run", on: !header.running })],
  ["g", "G", "you act or the agent acts", () => request({ do: "driver", who: header.driver === "agent" ? "you" : "agent" })],
  [".", ".", "one step", () => link.requestMoment({ do: "step", action: actionOf(hello.actions, held) })],
  ["Backspace", "⌫", "one step back", () => along(now() - 1)],
  ["PageUp", "Page Up", "ten steps back", () => along(now() - 10)],
  ["PageDown", "Page Down", "ten steps forward, along the branch", () => along(now() + 10)],
  ["Home", "Home", "to the start", () => along(0)],
  ["End", "End", "to the end of this branch", () => along(moments.line.length - 1)],
  ["[", "[", "the previous branch", () => branch(-1)],
  ["]", "]", "the next branch", () => branch(1)],
  ["e", "E", "agent observes, or not", () => request({ do: "observe", on: !header.observing })],
  ["r", "R", "restart", () => request({ do: "begin", episode: null, step: 0 })],
  ["?", "?", "show or hide these keys", () => { $("help").open = !$("help").open; if ($("help").open) $("help").scrollIntoView(); }],
  ["v", "V", "record; again: stop and save", () => request({ do: "record", on: !header.recording })],
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

// Whether the focused control handles a key itself: a slider only the keys that move it.
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

for (const [id, key] of [["driver", "g"], ["run", " "], ["back", "Backspace"], ["step", "."], ["observe", "e"], ["again", "r"], ["record", "v"]]) {
  $(id).addEventListener("click", () => run(key));
}
// Controls lose the focus after a click, so that keys keep working.
for (const control of document.querySelectorAll("button, input[type=range]")) {
  control.addEventListener("pointerup", () => setTimeout(() => control.blur()));
}
$("episode").addEventListener("change", updateRows);
$("speed").addEventListener("input", (event) => ready() && pace(Number(event.target.value)));
$("timeline").addEventListener("input", (event) => ready() && along(Number(event.target.value)));
$("tree").addEventListener("click", (event) => {
  const to = nearest($("tree"), moments, event.offsetX, event.offsetY);
  if (to !== null) link.requestMoment({ do: "go", to });
});
$("begin").addEventListener("submit", (event) => {
  event.preventDefault();
  const chosen = $("episode").value;
  request({ do: "begin", episode: chosen === "" ? null : Number(chosen), step: Math.max(0, Number($("row").value) | 0) });
});
addEventListener("resize", schedule);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); schedule(); });
