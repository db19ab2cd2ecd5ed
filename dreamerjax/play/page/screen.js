// The two screens: an image of any shape, shown completely, or bars if there are no images.
import { colours } from "./strips.js";

export const bitmapOf = (bytes) => (bytes.length ? createImageBitmap(new Blob([bytes])) : null);

// bitmap: null without an image; then the numbers of vectors are drawn as bars.
export function paint(canvas, bitmap, vectors, colour) {
  if (!bitmap && vectors && Object.keys(vectors).length) return drawBars(canvas, vectors, colour);
  if (!bitmap) return canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  shape(canvas, bitmap.width, bitmap.height);
  canvas.classList.toggle("tiny", bitmap.width <= 128);
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
}

function shape(canvas, width, height) {
  if (canvas.width === width && canvas.height === height) return;
  [canvas.width, canvas.height] = [width, height];
  canvas.parentElement.style.setProperty("--shape", `${width} / ${height}`);
}

function drawBars(canvas, vectors, colour) {
  shape(canvas, 300, 200);
  const pen = canvas.getContext("2d"), values = Object.values(vectors).flat().slice(0, 40);
  pen.fillStyle = "#fff"; pen.fillRect(0, 0, 300, 200);
  pen.fillStyle = colours[colour];
  values.forEach((value, i) => {
    const tall = 90 * Math.tanh(value / 2), wide = 280 / values.length;
    pen.fillRect(10 + i * wide + 1, 100 - Math.max(0, tall), wide - 2, Math.abs(tall));
  });
  pen.strokeStyle = "#888"; pen.beginPath(); pen.moveTo(5, 100.5); pen.lineTo(295, 100.5); pen.stroke();
}
