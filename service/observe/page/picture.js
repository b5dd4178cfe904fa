// The latest picture of one camera with its boxes, fetched while it is shown. Labels are only ever text.
"use strict";

const PICTURE_MS = 500; // the server takes one a second; asking more often shows it sooner
const looking = { id: null, name: "", timer: 0, opener: null };

function showPictureOf(stream, opener) {
  looking.id = stream.id;
  looking.name = stream.name;
  looking.opener = opener;
  setText(byId("picture-title"), readable(stream.name));
  setText(byId("picture-text"), "waiting for a frame");
  byId("picture-canvas").hidden = true;
  byId("picture").hidden = false;
  byId("picture-close").focus();
  fetchPicture(stream.id);
}

function closePicture() {
  if (looking.id === null) return;
  window.clearTimeout(looking.timer);
  looking.id = null;
  byId("picture").hidden = true;
  if (looking.opener && looking.opener.isConnected) looking.opener.focus();
}

async function fetchPicture(id) {
  window.clearTimeout(looking.timer);
  if (looking.id !== id) return;
  let isOver = false;
  if (!document.hidden && !view.isPaused) {
    try {
      const answer = await fetch(`/picture?stream=${id}`, { cache: "no-store" });
      isOver = answer.status === 404 || answer.status === 403;
      if (answer.ok) await drawPicture(id, await answer.json());
      else if (looking.id === id) setText(byId("picture-text"), (await answer.text()).trim());
    } catch {
      if (looking.id === id) setText(byId("picture-text"), "server gone, trying again");
    }
  }
  if (looking.id === id && !isOver) looking.timer = window.setTimeout(() => fetchPicture(id), PICTURE_MS);
}

async function drawPicture(id, picture) {
  if (!picture.jpeg) return;
  const bytes = Uint8Array.from(atob(picture.jpeg), (letter) => letter.charCodeAt(0));
  const image = await createImageBitmap(new Blob([bytes], { type: "image/jpeg" }));
  if (looking.id !== id) return;
  const canvas = byId("picture-canvas");
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.hidden = false;
  const pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0);
  image.close();
  pen.font = "13px system-ui, 'DejaVu Sans', sans-serif";
  pen.lineWidth = 2;
  for (const { label, score, box } of picture.results) if (box) drawBox(pen, picture, `${readable(label)} ${score.toFixed(2)}`, box);
  const found = picture.results.map(({ label, score }) => `${readable(label)} ${score.toFixed(2)}`).join(", ") || "nothing found";
  canvas.setAttribute("aria-label", `Latest picture of ${readable(looking.name)}: ${found}`);
  const size = `${picture.sent[0]} × ${picture.sent[1]}`;
  setText(byId("picture-text"), `frame ${picture.seq}, ${size}, answered ${picture.shown_after_ms} ms before this picture: ${found}`);
}

function drawBox(pen, picture, text, [left, top, right, bottom]) {
  const [x, y] = [left * picture.width, top * picture.height];
  pen.strokeStyle = "#ffb000";
  pen.strokeRect(x, y, (right - left) * picture.width, (bottom - top) * picture.height);
  const wide = pen.measureText(text).width + 8;
  const at = Math.max(0, y - 18);
  pen.fillStyle = "#ffb000";
  pen.fillRect(Math.min(x - 1, picture.width - wide), at, wide, 18);
  pen.fillStyle = "#17202b";
  pen.textAlign = "left";
  pen.fillText(text, Math.min(x - 1, picture.width - wide) + 4, at + 13);
}

function startPicture() {
  byId("picture-close").addEventListener("click", closePicture);
  document.addEventListener("keydown", (event) => event.key === "Escape" && closePicture());
  document.addEventListener("visibilitychange", () => document.hidden || looking.id === null || fetchPicture(looking.id));
}

startPicture();
