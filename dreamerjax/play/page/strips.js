// Small canvas drawings: numbers over time, the tree of branches, the latent state.

// The colours of the page, read once and when the colour scheme changes, because reading them is slow.
export const colours = {};
export function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["ink", "soft", "line", "dream", "real", "alarm"]) colours[name] = style.getPropertyValue(`--${name}`).trim();
}
readColours();

// The size of each canvas, kept by an observer: reading it while text changes would force a layout.
const sizes = new Map();
const observer = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) sizes.set(target, [contentRect.width, contentRect.height]);
});

function sizeOf(canvas) {
  if (!sizes.has(canvas)) {
    sizes.set(canvas, [canvas.clientWidth, canvas.clientHeight]);
    observer.observe(canvas);
  }
  return sizes.get(canvas);
}

function prepared(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = sizeOf(canvas);
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = "12px system-ui, sans-serif";
  return [pen, width, height];
}

const STRIPS = [
  ["reward", "predicted reward", null],
  ["cont", "continue probability", [0, 1]],
  ["value", "value", null],
  ["surprise", "surprise, nats", [0, null]],
];
const SHOWN = 240;

export function drawStrips(canvas, moments) {
  const [pen, width, height] = prepared(canvas);
  const at = moments.line.indexOf(moments.now);
  const first = Math.max(0, Math.min(at - (SHOWN * 3) / 4, moments.line.length - SHOWN) | 0);
  const shown = moments.line.slice(first, first + SHOWN).map((number) => moments.all.get(number));
  const left = 4, right = width - 46, tall = height / STRIPS.length;
  const x = (i) => left + ((right - left) * i) / Math.max(1, Math.min(SHOWN, Math.max(shown.length, 60)) - 1);
  STRIPS.forEach(([key, label, range], row) => {
    const top = row * tall + 16, bottom = (row + 1) * tall - 4;
    const known = shown.map((one) => one[key]).filter((value) => value !== null && value !== undefined);
    let low = range?.[0] ?? Math.min(...known, 0), high = range?.[1] ?? Math.max(...known, low + 1e-3);
    if (high - low < 1e-6) high = low + 1;
    const y = (value) => bottom - ((bottom - top) * (Math.min(Math.max(value, low), high) - low)) / (high - low);
    pen.fillStyle = colours.soft;
    pen.fillText(label, left, row * tall + 12);
    if (known.length) {
      pen.fillText(short(high), right + 6, top + 6);
      pen.fillText(short(low), right + 6, bottom);
    }
    pen.strokeStyle = colours.line;
    pen.lineWidth = 1;
    pen.beginPath(); pen.moveTo(left, bottom + .5); pen.lineTo(right, bottom + .5); pen.stroke();
    for (const [from, to, faint] of [[0, at - first, false], [at - first, shown.length - 1, true]]) {
      pen.strokeStyle = key === "surprise" ? colours.alarm : colours.dream;
      pen.globalAlpha = faint ? .35 : 1;
      pen.lineWidth = 1.8;
      pen.beginPath();
      let drawing = false;
      for (let i = from; i <= to; i++) {
        const value = shown[i]?.[key];
        if (value === null || value === undefined) { drawing = false; continue; }
        if (drawing) pen.lineTo(x(i), y(value)); else pen.moveTo(x(i), y(value));
        drawing = true;
      }
      pen.stroke();
      pen.globalAlpha = 1;
    }
  });
  pen.strokeStyle = colours.ink;
  pen.lineWidth = 1;
  pen.beginPath(); pen.moveTo(x(at - first), 0); pen.lineTo(x(at - first), height); pen.stroke();
}

export const short = (value) =>
  value === null || value === undefined ? "–" : Math.abs(value) < 0.005 ? "0.00" : Math.abs(value) >= 100 ? value.toFixed(0) : Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(2);

function laneScale(moments, width, height) {
  const all = [...moments.all.values()];
  const steps = all.map((one) => one.step), lanes = [...new Set(all.map((one) => one.lane))].sort((a, b) => a - b);
  const low = Math.min(...steps), high = Math.max(...steps, low + 1);
  const x = (step) => 8 + ((width - 16) * (step - low)) / (high - low);
  const y = (lane) => 10 + Math.min(18, (height - 20) / Math.max(1, lanes.length - 1)) * lanes.indexOf(lane);
  return [x, y, all];
}

export function drawTree(canvas, moments) {
  const [pen, width, height] = prepared(canvas);
  if (!moments.all.size) return;
  const [x, y, all] = laneScale(moments, width, height), followed = new Set(moments.line);
  for (const chosen of [false, true]) {
    pen.strokeStyle = chosen ? colours.dream : colours.soft;
    pen.lineWidth = chosen ? 3 : 1.5;
    pen.beginPath();
    for (const one of all) {
      const above = moments.all.get(one.parent);
      if (!above || followed.has(one.number) !== chosen) continue;
      pen.moveTo(x(above.step), y(above.lane));
      pen.lineTo(x(one.step), y(one.lane));
    }
    pen.stroke();
  }
  const now = moments.all.get(moments.now);
  if (!now) return;
  pen.fillStyle = colours.alarm;
  pen.beginPath(); pen.arc(x(now.step), y(now.lane), 5, 0, 2 * Math.PI); pen.fill();
}

// The moment of the tree nearest to a point of its canvas.
export function nearest(canvas, moments, px, py) {
  const [x, y, all] = laneScale(moments, ...sizeOf(canvas));
  let best = null, distance = Infinity;
  for (const one of all) {
    const d = (x(one.step) - px) ** 2 + 4 * (y(one.lane) - py) ** 2;
    if (d < distance) [best, distance] = [one.number, d];
  }
  return best;
}

// Each column is a latent group, each row a class: darker means a higher prior probability; a square marks the sample.
export function drawLatent(canvas, coded, [groups, classes]) {
  const [pen, width, height] = prepared(canvas);
  const bytes = Uint8Array.from(atob(coded), (one) => one.charCodeAt(0));
  const wide = width / groups, tall = height / classes;
  for (let g = 0; g < groups; g++) {
    for (let k = 0; k < classes; k++) {
      const byte = bytes[g * classes + k];
      pen.fillStyle = colours.dream;
      pen.globalAlpha = .06 + .94 * ((byte >> 4) / 15);
      pen.fillRect(g * wide + .5, k * tall + .5, wide - 1, tall - 1);
      pen.globalAlpha = 1;
      if (byte & 1) {
        pen.fillStyle = colours.alarm;
        const size = Math.max(2, Math.min(wide, tall) / 3);
        pen.fillRect(g * wide + (wide - size) / 2, k * tall + (tall - size) / 2, size, size);
      }
    }
  }
}
