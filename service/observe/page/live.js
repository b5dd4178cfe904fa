// The live page: takes the server's events and draws them. No framework; names are only ever set as text.
"use strict";

const HISTORY_SECONDS = 900;
const STALE_MS = 4000;
const RETRY_MS = 2000;
const WORST_SECONDS = 60;
const MAX_FINDINGS = 6; // cameras in the list at the top
const MAX_NAMES = 5; // of those that wait for their model
const RANKS = { bad: 0, warn: 1, quiet: 2, good: 3 };
const MARKS = { bad: "Problem", warn: "Watch", good: "Fine", quiet: "Quiet" };
const STAGES = ["receive", "decode", "queue", "h2d", "execute", "d2h", "deliver"];

const byId = (id) => document.getElementById(id);
const view = { state: null, history: new Map(), worst: new Map(), models: new Map(), rows: new Map(), sort: "name",
  falling: false, filter: "", spanUs: 500000, isPaused: false, seenAt: 0, source: null };

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

function duration(seconds) {
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const [size, unit] = units.find(([length]) => seconds >= 2 * length) || units[3];
  return `${Math.floor(seconds / size)} ${unit}`;
}

function showServer(state) {
  const cpu = state.processes.reduce((sum, each) => sum + each.cpu, 0);
  const memory = state.processes.reduce((sum, each) => sum + each.memory_mb, 0);
  tiles(byId("server"), [
    ["cameras", String(state.stream_count)],
    ["CPU", `${number(cpu * 100)} %`],
    ["memory", `${memory} MB`],
    ...Object.entries(state.devices).map(([name, [used, total]]) => [
      readable(name), `${number(used / 2 ** 30, 1)} of ${number(total / 2 ** 30, 0)} GiB`]),
    ["permits", `${state.permits[0]}/${state.permits[1]}`],
    ["workers", `${state.workers[0]}/${state.workers[1]}`],
    ["up", duration(state.uptime_s)],
    ["version", state.version],
  ]);
  tiles(byId("processes"), state.processes.length < 2 ? [] : state.processes.map((each) => [
    `${each.name} (${each.pid})`,
    `${number(each.cpu * 100)} %, ${each.memory_mb} MB` + (each.streams === null ? "" : `, ${each.streams} streams`)]));
}

// Cameras that wait for their model are one line, since the model's has the reason; it names the first of them.
function waitingLine(waiting) {
  if (waiting.length === 1) return [waiting[0].level, "camera", waiting[0].name, waiting[0].text];
  const names = waiting.slice(0, MAX_NAMES).map((each) => readable(each.name)).join(", ");
  const rest = waiting.length > MAX_NAMES ? ` and ${waiting.length - MAX_NAMES} more` : "";
  return ["warn", `${waiting.length} cameras`, "", `late because of the model: ${names}${rest}`];
}

// One line for each model, then the cameras that are not as they should be, the worst first. The list never gets
// shorter than it was, so that nothing below it moves up and down.
function showFindings(state) {
  const list = byId("findings");
  const worstFirst = (a, b) => RANKS[a.level] - RANKS[b.level];
  const found = state.models.slice().sort(worstFirst).map((model) => [model.level, "model", model.name, model.text]);
  const late = [...state.streams, ...state.gone].filter((each) => each.level === "bad" || each.level === "warn")
    .sort(worstFirst);
  const cameras = late.filter((each) => each.cause !== "model");
  found.push(...cameras.slice(0, MAX_FINDINGS).map((each) => [each.level, "camera", each.name, each.text]));
  const waiting = late.filter((each) => each.cause === "model");
  if (waiting.length) found.push(waitingLine(waiting));
  else if (!state.stream_count && !late.length) found.push(["quiet", "cameras", "", "no stream is open"]);
  else if (!late.length) found.push(["good", "cameras", "", `nothing to say about the ${state.stream_count} of them`]);
  found.forEach(([level, kind, name, text], index) => {
    const line = list.children[index] || list.appendChild(make("li"));
    const key = [level, kind, name, text].join("\n");
    if (line.dataset.key === key) return;
    const subject = make("strong", "", kind === "camera" || kind === "model" ? `${kind} ${readable(name)}` : kind);
    subject.dir = "auto";
    line.replaceChildren(make("span", `mark ${level}`, MARKS[level]), subject, make("span", "", `: ${text}`));
    line.className = level;
    line.dataset.key = key;
  });
  while (list.children.length > found.length) list.lastChild.remove();
  list.style.minHeight = `${Math.max(parseFloat(list.style.minHeight) || 0, list.scrollHeight)}px`;
  const hidden = cameras.length - MAX_FINDINGS;
  setText(byId("more"), hidden > 0 ? `and ${hidden} more: sort the cameras by State` : "");
  document.title = found.some(([level]) => level === "bad") ? "! Forebay" : "Forebay";
}

function modelCard(name) {
  const card = make("article", "model");
  const title = make("h3", "", readable(name));
  const facts = make("dl", "tiles");
  const pair = make("div", "pair");
  const left = make("div");
  const right = make("div");
  const legend = make("p", "legend");
  const span = make("span");
  legend.append(make("span", "key p50"), "p50 ", make("span", "key p99"), "p99 in ms, ", span);
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
  return { card, facts, chart, span, stages, sizes };
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
      ["busy", `${number(100 * model.busy[1])} %`],
      ["drift", number(model.drift, 2)],
    ]);
    parts.facts.children[1].lastChild.className = model.level;
    showStages(parts.stages, model.stages);
    drawSizes(parts.sizes, model.batches);
    setText(parts.span, drawChart(parts.chart, view.history.get(model.name) || [], state.now_s));
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

function show() {
  if (!view.state) return;
  showServer(view.state);
  showFindings(view.state);
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
  const told = JSON.parse(event.data);
  view.history = new Map(Object.entries(told.models));
  view.worst = new Map(Object.entries(told.worst).map(([id, values]) => [Number(id), values]));
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
  view.worst = new Map(state.streams.map(({ id, worst }) => [
    id, [...(view.worst.get(id) || []), worst].slice(-WORST_SECONDS)]));
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
    byId("findings").style.minHeight = "";
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
