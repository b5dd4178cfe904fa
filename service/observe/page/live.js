// The live page: takes the server's events and draws them. No framework; names are only ever set as text.
"use strict";

const HISTORY_SECONDS = 900;
const STALE_MS = 4000;
const RETRY_MS = 2000;
const STAGES = ["receive", "decode", "queue", "h2d", "execute", "d2h", "deliver"];
const COLUMNS = [
  { key: "name", title: "Camera" },
  { key: "model", title: "Model", wide: true },
  { key: "fps", title: "fps", digits: 1 },
  { key: "p50", title: "p50", digits: 1, wide: true },
  { key: "p99", title: "p99", digits: 1 },
  { key: "age", title: "Age", digits: 0 },
  { key: "superseded", title: "Superseded", short: "Sup." },
  { key: "expired", title: "Expired", short: "Exp.", warn: true },
  { key: "late", title: "Late", wide: true, warn: true },
  { key: "other", title: "Failed", wide: true, bad: true },
];

const byId = (id) => document.getElementById(id);
const view = { state: null, history: new Map(), models: new Map(), rows: new Map(), sort: "name", falling: false,
  filter: "", spanUs: 500000, isPaused: false, seenAt: 0, source: null };

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Control characters become their pictures, so that a name is one line and shows what it holds.
function readable(name) {
  return name === "" ? "(no name)" : name.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g,
    (character) => character.charCodeAt(0) < 32 ? String.fromCharCode(0x2400 + character.charCodeAt(0)) : "\ufffd");
}

function number(value, digits = 0) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

function ms(value) {
  return number(value, value !== null && value !== undefined && value < 10 ? 2 : 1);
}

// A list of names and values that is built once and then only has its values changed.
function tiles(list, entries) {
  if (list.children.length !== entries.length) {
    list.replaceChildren(...entries.map(() => {
      const pair = make("div");
      pair.append(make("dt"), make("dd"));
      return pair;
    }));
  }
  entries.forEach(([name, value], index) => {
    const [term, detail] = list.children[index].children;
    setText(term, name);
    setText(detail, value);
  });
}

function showServer(state) {
  tiles(byId("server"), [
    ["cameras", String(state.stream_count)],
    ["CPU", `${number(state.cpu * 100)} %`],
    ["memory", `${state.memory_mb} MB`],
    ...Object.entries(state.devices).map(([name, [used, total]]) => [
      readable(name), `${number(used / 2 ** 30, 1)} of ${number(total / 2 ** 30, 0)} GiB`]),
    ["permits", `${state.permits[0]}/${state.permits[1]}`],
    ["workers", `${state.workers[0]}/${state.workers[1]}`],
  ]);
}

function modelCard(name) {
  const card = make("article", "model");
  const title = make("h3", "", readable(name));
  const facts = make("dl", "tiles");
  const pair = make("div", "pair");
  const left = make("div");
  const right = make("div");
  const legend = make("p", "legend");
  legend.append(make("span", "key p50"), "p50 ", make("span", "key p99"), "p99, last 15 minutes, ms");
  const chart = make("canvas");
  chart.setAttribute("role", "img");
  left.append(legend, chart);
  const stages = make("ul", "stages");
  for (const stage of STAGES) {
    const line = make("li");
    const track = make("span", "track");
    track.append(make("div", `fill ${stage}`));
    line.append(make("span", "", stage), track, make("span", "number"));
    stages.append(line);
  }
  const sizes = make("canvas");
  sizes.setAttribute("role", "img");
  right.append(make("h4", "", "Stages, p50 and p99 in ms"), stages, make("h4", "", "Batch sizes, last second"), sizes);
  pair.append(left, right);
  card.append(title, facts, pair);
  return { card, facts, chart, stages, sizes };
}

function showModels(state) {
  const names = new Set(state.models.map((model) => model.name));
  for (const [name, parts] of view.models) {
    if (!names.has(name)) {
      parts.card.remove();
      view.models.delete(name);
      view.history.delete(name);
    }
  }
  for (const model of state.models) {
    let parts = view.models.get(model.name);
    if (!parts) {
      parts = modelCard(model.name);
      view.models.set(model.name, parts);
      byId("models").append(parts.card);
    }
    const share = model.offered > 0 ? ` (${number(100 * model.goodput / model.offered)} %)` : "";
    const total = model.stages.total || [null, null];
    tiles(parts.facts, [
      ["offered", `${number(model.offered, 0)}/s`],
      ["in time", `${number(model.goodput, 0)}/s${share}`],
      ["p50", `${ms(total[0])} ms`],
      ["p99", `${ms(total[1])} ms`],
      ["waiting", number(model.pending)],
      ["slots", model.slots ? `${model.slots[0]}/${model.slots[1]}` : "–"],
      ["compute busy", `${number(100 * model.busy[1])} %`],
      ["drift", number(model.drift, 2)],
    ]);
    showStages(parts.stages, model.stages);
    drawSizes(parts.sizes, model.batches);
    drawChart(parts.chart, view.history.get(model.name) || [], state.now_s);
  }
  setText(byId("idle"), state.idle_models.length ? `Loaded, no frames yet: ${state.idle_models.map(readable).join(", ")}` : "");
}

function showStages(list, stages) {
  const most = Math.max(...STAGES.map((stage) => (stages[stage] || [0, 0])[1]), 1e-9);
  STAGES.forEach((stage, index) => {
    const [, track, text] = list.children[index].children;
    const [p50, p99] = stages[stage] || [null, null];
    track.firstChild.style.width = `${100 * (p50 || 0) / most}%`;
    setText(text, p50 === null ? "–" : `${ms(p50)} · ${ms(p99)}`);
  });
}

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

function sorted(streams) {
  const { sort, falling } = view;
  const order = (a, b) => {
    const [first, second] = [a[sort], b[sort]];
    if (typeof first === "string" || typeof second === "string") return String(first).localeCompare(String(second));
    return (first ?? -1) - (second ?? -1);
  };
  return streams.slice().sort((a, b) => (falling ? -1 : 1) * order(a, b) || a.id - b.id);
}

function showStreams(state) {
  const wanted = view.filter.toLowerCase();
  const streams = sorted(state.streams.filter((stream) => stream.name.toLowerCase().includes(wanted)));
  const rows = new Map();
  for (const stream of streams) {
    const row = view.rows.get(stream.id) || cameraRow();
    rows.set(stream.id, row);
    COLUMNS.forEach((column, index) => fill(row.children[index], column, stream));
    row.lastChild.firstChild.hidden = !stream.picture;
    row.stream = stream;
  }
  byId("rows").parentElement.classList.toggle("pictures", state.streams.some((stream) => stream.picture));
  const body = byId("rows");
  const order = [...rows.values()];
  if (order.length !== body.children.length || order.some((row, index) => row !== body.children[index])) {
    body.replaceChildren(...order);
  }
  view.rows = rows;
  const hidden = state.stream_count - state.streams.length;
  const parts = [state.stream_count ? `${streams.length} of ${state.stream_count}` : "no open streams"];
  if (hidden > 0) parts.push(`the ${state.streams.length} slowest are listed`);
  setText(byId("shown"), parts.join(", "));
}

function cameraRow() {
  const row = make("tr");
  COLUMNS.forEach((column, index) => {
    const cell = make(index ? "td" : "th", column.wide ? "wide" : "");
    if (!index) {
      cell.scope = "row";
      cell.dir = "auto";
    }
    row.append(cell);
  });
  const cell = make("td", "picture-cell");
  const button = make("button", "", "Show");
  button.type = "button";
  button.addEventListener("click", () => showPictureOf(row.stream, button));
  cell.append(button);
  row.append(cell);
  return row;
}

function fill(cell, column, stream) {
  const value = stream[column.key];
  if (typeof value === "string") {
    const text = readable(value);
    setText(cell, text);
    if (column.key === "name" && cell.title !== text) cell.title = text;
    return;
  }
  setText(cell, number(value, column.digits || 0));
  cell.classList.toggle("warn", Boolean(column.warn && value > 0));
  cell.classList.toggle("bad", Boolean(column.bad && value > 0));
}

function showColumns() {
  const picture = make("th", "picture-cell", "Picture");
  picture.scope = "col";
  byId("columns").replaceChildren(...COLUMNS.map((column) => {
    const head = make("th", column.wide ? "wide" : "");
    head.scope = "col";
    const button = make("button", "", column.short && window.innerWidth <= 640 ? column.short : column.title);
    button.type = "button";
    button.title = column.title;
    button.addEventListener("click", () => {
      view.falling = view.sort === column.key ? !view.falling : column.key !== "name" && column.key !== "model";
      view.sort = column.key;
      markSorted();
      show();
    });
    head.append(button);
    return head;
  }), picture);
  markSorted();
}

function markSorted() {
  COLUMNS.forEach((column, index) => {
    const head = byId("columns").children[index];
    if (column.key === view.sort) head.setAttribute("aria-sort", view.falling ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
}

function show() {
  if (!view.state) return;
  showServer(view.state);
  showModels(view.state);
  drawStrip(view.state);
  showStreams(view.state);
}

function setStatus(text, className) {
  const status = byId("status");
  setText(status, text);
  status.className = `status ${className}`;
  document.body.classList.toggle("stale", className === "gone");
}

function takeHistory(event) {
  view.history = new Map(Object.entries(JSON.parse(event.data).models));
}

function takeState(event) {
  const state = JSON.parse(event.data);
  view.seenAt = Date.now();
  setStatus(state.ready ? "live" : "draining", state.ready ? "live" : "");
  for (const model of state.models) {
    const samples = view.history.get(model.name) || [];
    const last = samples[samples.length - 1];
    if (model.sample && (!last || model.sample[0] > last[0])) samples.push(model.sample);
    view.history.set(model.name, samples.slice(-HISTORY_SECONDS));
  }
  if (view.isPaused) return;
  view.state = state;
  if (!document.hidden) show();
}

function connect() {
  if (view.source) view.source.close();
  const source = new EventSource("/events");
  view.source = source;
  view.seenAt = Date.now();
  source.addEventListener("history", takeHistory);
  source.addEventListener("state", takeState);
  source.addEventListener("error", () => {
    setStatus("server gone, trying again", "gone");
    if (source.readyState === EventSource.CLOSED) window.setTimeout(() => source === view.source && connect(), RETRY_MS);
  });
}

function choose(button) {
  view.spanUs = Number(button.dataset.us);
  for (const other of byId("spans").children) other.setAttribute("aria-pressed", String(other === button));
  show();
}

function pause() {
  view.isPaused = !view.isPaused;
  byId("pause").setAttribute("aria-pressed", String(view.isPaused));
}

function start() {
  showColumns();
  for (const button of byId("spans").children) button.addEventListener("click", () => choose(button));
  byId("pause").addEventListener("click", pause);
  byId("filter").addEventListener("input", (event) => {
    view.filter = event.target.value;
    show();
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") {
      event.preventDefault();
      byId("filter").focus();
    } else if (event.key === "p") {
      pause();
    } else if ("123".includes(event.key)) {
      choose(byId("spans").children[Number(event.key) - 1]);
    }
  });
  document.addEventListener("visibilitychange", () => document.hidden || show());
  window.addEventListener("resize", () => {
    showColumns();
    show();
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  window.setInterval(() => {
    if (Date.now() - view.seenAt > STALE_MS) {
      setStatus("server gone, trying again", "gone");
      if (Date.now() - view.seenAt > 3 * STALE_MS) connect();
    }
  }, 1000);
  connect();
}

start();
