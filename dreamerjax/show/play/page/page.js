// The page: keys and buttons to messages, messages to pictures.
import { Moments } from "./moments.js";
import { actionOf, ENDS, movesOf, NUMBERS } from "./moves.js";
import { drawBars, drawLatent, drawStrips, drawTree, nearest, short } from "./strips.js";

const $ = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search), token = query.get("token");
const moments = new Moments();
let hello = null, header = null, moves = [], held = [], socket = null, tries = 0, note = "";

// The socket

function connect() {
  const parameters = new URLSearchParams({ dream: sessionStorage.getItem("dream") ?? "" });
  if (token) parameters.set("token", token);
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws?${parameters}`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = (event) => (typeof event.data === "string" ? heard(JSON.parse(event.data)) : seen(event.data));
  socket.onclose = (event) => {
    held = [];
    document.body.classList.add("lost");
    if (event.reason === "opened in another window") return tell("This dream is open in another window. Reload this page to have it here.");
    if (event.code === 4001 || event.code === 1008) return tell(event.reason);
    tries += 1;
    tell("The program has ended, or does not answer. Once it runs again, this page goes on.");
    setTimeout(connect, Math.min(500 * tries, 5000));
  };
}

const ask = (message) => socket?.readyState === WebSocket.OPEN && socket.send(JSON.stringify(message));

function heard(content) {
  if (content.dream) sessionStorage.setItem("dream", content.dream);
  if (content.hello) begin(content);
  if (content.note) tell(note = content.note);
  if (content.saved) saved(content.saved, content.folder);
}

function begin(content) {
  tries = 0;
  document.body.classList.remove("lost");
  hello = content;
  $("name").textContent = content.hello;
  document.title = `Inside the dream of ${content.hello}`;
  moments.clear();
  for (const [number, parent, step, reward, cont, value, surprise] of content.tree) {
    moments.add(number, parent, step, { reward, cont, value, surprise });
  }
  moves = movesOf(content.id, content.actions);
  $("moves").replaceChildren(...moves.map(moveButton));
  $("episode").replaceChildren(
    option("a fresh start of the environment", ""),
    ...content.episodes.map((one, i) => option(one.title, i)),
  );
  rowsOffered();
  $("latent-note").textContent = `${content.latent[0]} groups of ${content.latent[1]} classes: blue is what the agent expects, a dot what it dreamed.`;
  $("keys").replaceChildren(...keyRows());
  note = content.trouble ? `There is no real side: ${content.trouble.split("\n")[0]}` : "";
}

// Which rows the chosen episode has to begin from.
function rowsOffered() {
  const chosen = hello.episodes[$("episode").value], last = chosen ? chosen.steps - 1 : 0;
  Object.assign($("row"), { disabled: !chosen, max: last, value: Math.min($("row").value, last) });
  $("row-most").textContent = chosen ? `of ${last}` : "";
}

function option(text, value) {
  const made = document.createElement("option");
  made.textContent = text;
  made.value = value;
  return made;
}

// A moment arrives

async function seen(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const known = moments.all.has(header.number);
  if (!known) moments.add(header.number, header.parent, header.step, header);
  moments.forget(header.root);
  moments.go(header.number);
  const [dreamed, real] = header.pictures, start = 4 + length;
  words();
  schedule();
  await Promise.all([
    picture($("dream"), new Uint8Array(buffer, start, dreamed), header.vectors, "--dream"),
    picture($("real"), new Uint8Array(buffer, start + dreamed, real), header.real?.vectors, "--real"),
  ]);
  document.body.dataset.frames = Number(document.body.dataset.frames ?? 0) + 1;
}

async function picture(canvas, bytes, vectors, colour) {
  if (!bytes.length) {
    if (vectors && Object.keys(vectors).length && !hello.draws) drawBars(canvas, vectors, colour);
    else canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
    return;
  }
  const bitmap = await createImageBitmap(new Blob([bytes]));
  canvas.classList.toggle("tiny", bitmap.width <= 128);
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
}

let scheduled = false;
function schedule() {
  if (scheduled || !header) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    drawStrips($("strips"), moments);
    drawTree($("tree"), moments);
    drawLatent($("latent"), header.latent, hello.latent);
  });
}

const percent = (x) => (x === null ? "–" : `${(100 * x).toFixed(0)}%`);

function words() {
  const agent = header.wheel === "agent", real = header.real, over = header.cont < 0.5;
  $("wheel").setAttribute("aria-pressed", agent);
  $("eyes").setAttribute("aria-pressed", header.eyes);
  $("record").setAttribute("aria-pressed", header.recording);
  $("run-shown").textContent = header.running ? "Pause" : "Run";
  if (document.activeElement !== $("speed")) $("speed").value = header.speed;
  $("speed-shown").textContent = `${header.speed.toFixed(0)}/s`;
  $("speed").setAttribute("aria-valuetext", `${header.speed.toFixed(0)} steps a second`);
  const at = moments.line.indexOf(header.number);
  Object.assign($("timeline"), { max: moments.line.length - 1, value: at });
  $("moment-shown").textContent = `step ${header.step}`;
  const gone = real && (real.ended || real.over);
  $("dream-note").textContent = header.eyes && gone ? "eyes open, but nothing real is left to see"
    : !header.opened ? "eyes shut" : header.step ? "eyes open: it sees what is real" : "a first look";
  banner($("dream-over"), over, "The dream ends here.", `${ENDS[hello.id] ?? ""} “Start again” begins anew, “Back” goes back.`);
  $("real-pane").style.opacity = real ? 1 : 0.5;
  $("real-note").textContent = !real ? "not to be had here" : real.over ? "has ended" : hello.pictures ? "as the agent sees it" : "the same actions";
  banner($("real-over"), gone, real?.failed ? "Here it really ended." : "Its time is up.",
    over ? "" : "The dream goes on without it. “Start again” begins both anew.");
  $("numbers").replaceChildren(
    ...pair("predicted reward", short(header.reward)),
    ...pair("probability to go on", percent(header.cont)),
    ...pair("value", short(header.value)),
    ...pair("surprise", header.surprise === null ? "–" : `${short(header.surprise)} nats`),
    ...pair("agent's uncertainty", `${short(header.entropy)} nats`),
  );
  vectors();
  const takeOver = `Hold ${moves.slice(0, 2).map((move) => move.label).join(" or ")} to take over.`;
  const hint = over ? "The dream has ended: start again, or go back and act otherwise."
    : agent && header.eyes ? `The agent acts, and sees what is real. ${takeOver}`
    : agent ? `The agent acts by its dream alone; reality only gets the same actions. ${takeOver}`
    : hello.actions.every((spec) => spec.kind === "discrete")
      ? "You act. Time moves while you hold a move; “Agent drives” gives the wheel back."
      : "You act. “Agent drives” gives the wheel back.";
  tell(note || (header.running || over ? hint : `Paused. ${hint}`));
}

function banner(place, shown, text, more) {
  place.hidden = !shown;
  if (shown) place.replaceChildren(text, element("small", more));
}

function tell(text) {
  if ($("status").textContent !== text) $("status").textContent = text;
}

function element(kind, text) {
  const made = document.createElement(kind);
  made.textContent = text;
  return made;
}

function pair(term, value) {
  const group = document.createElement("div");
  group.append(element("dt", term), element("dd", value));
  return [group];
}

function vectors() {
  const names = Object.keys(header.vectors);
  $("vectors-card").hidden = !names.length;
  const rows = [["", "dream", "real"].map((text) => Object.assign(element("th", text), { scope: "col" }))];
  for (const name of names) {
    header.vectors[name].slice(0, 12).forEach((value, i) => {
      const there = header.real?.vectors[name]?.[i];
      rows.push([Object.assign(element("th", NUMBERS[hello.id]?.[i] ?? `${name}[${i}]`), { scope: "row" }), element("td", value.toFixed(3)), element("td", there === undefined ? "–" : there.toFixed(3))]);
    });
  }
  $("vectors").replaceChildren(...rows.map((cells) => { const row = document.createElement("tr"); row.append(...cells); return row; }));
}

function saved(files, folder) {
  const item = document.createElement("li");
  item.append("Saved: ");
  files.forEach((file, i) => {
    const link = element("a", file);
    link.href = `/recordings/${encodeURIComponent(file)}${token ? `?token=${encodeURIComponent(token)}` : ""}`;
    link.download = file;
    item.append(i ? " and " : "", link);
  });
  item.append(` in ${folder}`);
  $("saved").prepend(item);
  note = `Saved in ${folder}: ${files.join(" and ")}.`;
  tell(note);
}

// Moves

function moveButton(move) {
  const button = element("button", move.label);
  button.type = "button";
  const hold = (event) => { event.preventDefault(); down(move); };
  const release = () => up(move);
  button.addEventListener("pointerdown", hold);
  for (const kind of ["pointerup", "pointerleave", "pointercancel", "blur"]) button.addEventListener(kind, release);
  button.addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.repeat) hold(event); });
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

// Keys and buttons

const now = () => moments.line.indexOf(moments.now);
const along = (index) => ask({ do: "go", to: moments.line[Math.max(0, Math.min(index, moments.line.length - 1))] });

function branch(way) {
  const tips = moments.tips().sort((a, b) => a.lane - b.lane), tip = moments.line.at(-1);
  if (tips.length) ask({ do: "go", to: tips.at((tips.findIndex((one) => one.number === tip) + way + tips.length) % tips.length).number });
}

function pace(steps) {
  header.speed = Math.max(1, Math.min(60, steps));
  ask({ do: "speed", steps: header.speed });
}

const COMMANDS = [
  [" ", "Space", "run or pause", () => ask({ do: "run", on: !header.running })],
  ["g", "G", "you or the agent at the wheel", () => ask({ do: "wheel", who: header.wheel === "agent" ? "you" : "agent" })],
  [".", ".", "one step", () => ask({ do: "step", action: actionOf(hello.actions, held) })],
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
  return rows.map(([key, does]) => { const row = document.createElement("tr"); row.append(Object.assign(element("th", key), { scope: "row" }), element("td", does)); return row; });
}

function run(key) {
  const command = COMMANDS.find(([own]) => own === key);
  if (!command || !header) return false;
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
  if (event.ctrlKey || event.metaKey || event.altKey || !hello || needs(event.target, key)) return;
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
$("speed").addEventListener("input", (event) => pace(Number(event.target.value)));
$("timeline").addEventListener("input", (event) => along(Number(event.target.value)));
$("tree").addEventListener("click", (event) => {
  const to = nearest($("tree"), moments, event.offsetX, event.offsetY);
  if (to !== null) ask({ do: "go", to });
});
$("begin").addEventListener("submit", (event) => {
  event.preventDefault();
  const chosen = $("episode").value;
  ask({ do: "begin", episode: chosen === "" ? null : Number(chosen), step: Math.max(0, Number($("row").value) | 0) });
});
addEventListener("resize", schedule);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", schedule);

connect();
