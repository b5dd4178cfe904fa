// The table of cameras. Columns that say what is wrong come first; a phone shows only these.
"use strict";

const NARROW_PX = 640; // as in the style sheet
const COLUMNS = [
  { key: "name", title: "Camera" },
  { key: "level", title: "State", words: { bad: "problem", warn: "watch", quiet: "quiet", good: "fine" } },
  { key: "ok", title: "OK/s", digits: 1 },
  { key: "in_time", title: "In time", share: true },
  { key: "p99", title: "p99", digits: 0 },
  { key: "worst", title: "Last minute", line: true, wide: true },
  { key: "p50", title: "p50", digits: 0, wide: true },
  { key: "age", title: "Age", digits: 0, wide: true },
  { key: "found", title: "Found", digits: 1, wide: true },
  { key: "size", title: "Frames", wide: true },
  { key: "model", title: "Model", wide: true },
  { key: "address", title: "Client", wide: true },
];

function valueOf(stream, column) {
  if (column.key === "level") return RANKS[stream.level];
  if (column.key === "size") return [stream.size, stream.encoding].filter(Boolean).join(" ");
  return stream[column.key];
}

function sorted(streams) {
  const column = COLUMNS.find((each) => each.key === view.sort);
  const order = (a, b) => {
    const [first, second] = [valueOf(a, column), valueOf(b, column)];
    if (typeof first === "string" || typeof second === "string") return String(first).localeCompare(String(second));
    return (first ?? -1) - (second ?? -1);
  };
  return streams.slice().sort((a, b) => (view.falling ? -1 : 1) * order(a, b) || a.name.localeCompare(b.name) || a.id - b.id);
}

function showStreams(state) {
  const wanted = view.filter.toLowerCase();
  const all = [...state.streams, ...state.gone];
  const streams = sorted(all.filter((stream) => stream.name.toLowerCase().includes(wanted)));
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
  if (window.innerWidth > NARROW_PX) {
    const colors = lineColors();
    for (const row of order) drawLine(row.querySelector("canvas"), view.worst.get(row.stream.id) || [], colors[row.stream.level]);
  }
  setText(byId("window"), number(state.window_s, state.window_s < 9.95 ? 1 : 0));
  setText(byId("shown"), counted(state, streams.length));
}

function counted(state, shown) {
  const parts = [state.stream_count ? `${shown} of ${state.stream_count + state.gone_count}` : "no open streams"];
  if (state.gone_count) parts.push(`${state.gone_count} gone in the last 15 min`);
  const hidden = state.stream_count - state.streams.length;
  if (hidden > 0) parts.push(`the ${state.streams.length} that need attention most are listed`);
  return parts.join(", ");
}

function cameraRow() {
  const row = make("tr");
  COLUMNS.forEach((column, index) => {
    const cell = make(index ? "td" : "th", column.wide ? "wide" : "");
    if (!index) {
      cell.scope = "row";
      cell.dir = "auto";
    }
    if (column.line) cell.append(make("canvas", "line"));
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
  const value = valueOf(stream, column);
  if (column.line) return;
  if (column.words) {
    setText(cell, stream.cause === "gone" || stream.cause === "silent" ? stream.cause : column.words[stream.level]);
    cell.className = `state ${stream.level}`;
    if (cell.title !== stream.text) cell.title = stream.text;
  } else if (column.share) {
    const text = value === null || value === undefined ? "–" : `${Math.floor(100 * value)} %`;
    setText(cell, text);
    cell.className = value === null || value === undefined || value >= 0.99 ? "" : value >= 0.9 ? "warn" : "bad";
  } else if (typeof value === "string") {
    const text = column.key === "name" ? readable(value) : value === "" ? "–" : readable(value);
    setText(cell, text);
    if (column.key === "name" && cell.title !== text) cell.title = text;
  } else {
    const isRate = column.key === "ok" && stream.offered !== undefined && number(stream.offered, 1) !== number(value, 1);
    setText(cell, number(value, column.digits || 0) + (isRate ? ` of ${number(stream.offered, 1)}` : ""));
  }
}

function showColumns() {
  const picture = make("th", "picture-cell", "Picture");
  picture.scope = "col";
  byId("columns").replaceChildren(...COLUMNS.map((column) => {
    const head = make("th", column.wide ? "wide" : "");
    head.scope = "col";
    const button = make("button", "", column.title);
    button.type = "button";
    button.addEventListener("click", () => {
      view.falling = view.sort === column.key ? !view.falling : !["name", "model", "level", "size", "address"].includes(column.key);
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
