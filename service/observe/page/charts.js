// The pictures of the page: latency, batch sizes, the pipeline's strip, and the line of one camera.
"use strict";

// Sets a canvas up for its size on the screen; returns what is needed to draw, in CSS pixels.
function prepare(canvas, height) {
  const width = canvas.clientWidth;
  const ratio = window.devicePixelRatio || 1;
  canvas.style.height = `${height}px`;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = "12px system-ui, 'DejaVu Sans', sans-serif";
  const style = getComputedStyle(document.documentElement);
  return { pen, width, height, color: (name) => style.getPropertyValue(`--${name}`).trim() };
}

function niceMax(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-3)));
  return [1, 2, 5, 10].map((factor) => factor * power).find((bound) => bound >= value);
}

function drawChart(canvas, samples, nowS) {
  const { pen, width, height, color } = prepare(canvas, 150);
  const [left, right, top, bottom] = [38, 6, 8, 20];
  const known = samples.filter((sample) => sample[4] !== null);
  const most = niceMax(Math.max(1, ...known.map((sample) => sample[4])));
  const span = Math.min(HISTORY_SECONDS, Math.max(60, samples.length ? nowS - samples[0][0] : 60));
  const x = (atS) => left + (width - left - right) * (1 - (nowS - atS) / span);
  const y = (value) => top + (height - top - bottom) * (1 - value / most);
  pen.strokeStyle = color("line");
  pen.fillStyle = color("quiet");
  pen.lineWidth = 1;
  for (const share of [0, 0.5, 1]) {
    const at = Math.round(y(most * share)) + 0.5;
    pen.beginPath();
    pen.moveTo(left, at);
    pen.lineTo(width - right, at);
    pen.stroke();
    pen.textAlign = "right";
    pen.fillText(String(most * share), left - 6, at + 4);
  }
  pen.textAlign = "left";
  pen.fillText(span >= 120 ? `${Math.round(span / 60)} min ago` : `${Math.round(span)} s ago`, left, height - 5);
  pen.textAlign = "right";
  pen.fillText("now", width - right, height - 5);
  for (const [column, name] of [[3, "p50"], [4, "p99"]]) {
    pen.strokeStyle = color(name);
    pen.lineWidth = 1.6;
    pen.beginPath();
    let isDown = false;
    for (const sample of samples) {
      if (sample[column] === null) {
        isDown = false;
      } else {
        pen[isDown ? "lineTo" : "moveTo"](x(sample[0]), y(sample[column]));
        isDown = true;
      }
    }
    pen.stroke();
  }
  const last = known[known.length - 1];
  canvas.setAttribute("aria-label", last ? `Latency: p50 ${ms(last[3])} ms, p99 ${ms(last[4])} ms` : "Latency: no frames");
  return span >= 120 ? `last ${Math.round(span / 60)} minutes` : `last ${Math.round(span)} s`;
}

function drawSizes(canvas, batches) {
  const { pen, width, height, color } = prepare(canvas, 64);
  const sizes = Object.entries(batches).map(([rows, count]) => [Number(rows), count]).sort((a, b) => a[0] - b[0]);
  const most = Math.max(1, ...sizes.map(([, count]) => count));
  const step = Math.min(34, width / Math.max(1, sizes.length));
  const every = Math.ceil(20 / step);
  pen.textAlign = "center";
  sizes.forEach(([rows, count], index) => {
    const barHeight = Math.max(1, (height - 20) * count / most);
    pen.fillStyle = color("execute");
    pen.fillRect(index * step + 1, height - 16 - barHeight, Math.max(1, step - 3), barHeight);
    pen.fillStyle = color("quiet");
    if (index % every === 0) pen.fillText(String(rows), index * step + step / 2, height - 3);
  });
  if (!sizes.length) {
    pen.fillStyle = color("quiet");
    pen.textAlign = "left";
    pen.fillText("none", 0, height - 3);
  }
  canvas.setAttribute("aria-label", `Batch sizes: ${sizes.map(([rows, count]) => `${count} of ${rows}`).join(", ") || "none"}`);
}

function drawStrip(state) {
  const { us, batches } = state.strip;
  const lanes = Math.max(1, ...batches.map((batch) => batch[0] + 1));
  const [row, gap, bottom] = [16, 8, 18];
  const { pen, width, height, color } = prepare(byId("strip"), lanes * (3 * row + gap) + gap + bottom);
  const names = ["h2d", "execute", "d2h"];
  const left = 4;
  // The end of the picture is the end of the latest batch that is whole, so that a short span is never empty.
  const endUs = view.spanUs < us && batches.length ? Math.max(...batches.map((batch) => batch[7])) : us;
  const x = (at) => left + (width - 2 * left) * (1 - (endUs - at) / view.spanUs);
  for (const batch of batches) {
    names.forEach((name, index) => {
      const [start, end] = [batch[2 + 2 * index], batch[3 + 2 * index]];
      if (end < endUs - view.spanUs) return;
      const from = Math.max(left, x(start));
      const wide = Math.max(0.75, x(end) - from - 0.5);
      const at = gap + batch[0] * (3 * row + gap) + index * row;
      pen.fillStyle = color(name);
      pen.fillRect(from, at, wide, row - 2);
      if (index === 1 && wide > 18) {
        pen.fillStyle = color("card");
        pen.textAlign = "center";
        pen.fillText(String(batch[1]), from + wide / 2, at + row - 5);
      }
    });
  }
  pen.fillStyle = color("quiet");
  pen.textAlign = "left";
  pen.fillText(view.spanUs >= 1e6 ? `${view.spanUs / 1e6} s` : `${view.spanUs / 1e3} ms`, left, height - 5);
  pen.textAlign = "right";
  pen.fillText(batches.length ? "now; numbers are rows" : "no batches", width - left, height - 5);
}

const LINE = { width: 90, height: 22 };

function lineColors() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(`--${name}`).trim();
  return { bad: color("bad"), warn: color("warn"), good: color("p50"), quiet: color("quiet") };
}

// The worst latency of each second, on a scale of its own.
function drawLine(canvas, values, color) {
  const { width, height } = LINE;
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const most = niceMax(Math.max(1, ...values.filter((value) => value !== null)));
  pen.strokeStyle = color;
  pen.lineWidth = 1.4;
  pen.beginPath();
  let isDown = false;
  values.forEach((value, index) => {
    if (value !== null) {
      const x = width - (values.length - 1 - index) * width / (WORST_SECONDS - 1);
      const y = 2 + (height - 4) * (1 - value / most);
      pen[isDown ? "lineTo" : "moveTo"](x, y);
      if (!isDown) pen.lineTo(x + 0.5, y);
    }
    isDown = value !== null;
  });
  pen.stroke();
}
