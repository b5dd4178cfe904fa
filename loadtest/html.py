"""The report as one self-contained HTML file: styles and charts are inline, there is no script.

Pure: a document in, text out. All external text is escaped.
"""

import math
from html import escape

from forebay_server.loadtest import histograms
from forebay_server.loadtest.markdown import identity, interval, number, rows, title
from forebay_server.loadtest.report import Document
from forebay_server.loadtest.svg import Axis, Series, line_chart, linear_axis, stacked_bars

_COLOURS = (
    "var(--c1)",
    "var(--c2)",
    "var(--c3)",
    "var(--c4)",
    "var(--c5)",
    "var(--c6)",
    "var(--c7)",
    "var(--c8)",
    "var(--c9)",
)
_PERCENTILES = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99)
_MAX_TABLE_ROWS = 200
_STYLE = """
:root{--bg:#fff;--fg:#1c2330;--dim:#5d6778;--line:#dfe4ec;--ok:#1a7f45;--bad:#b3261e;--warn:#8a5a00;
--c1:#2463c4;--c2:#d1622b;--c3:#2c8f63;--c4:#8b4fc0;--c5:#b8901f;--c6:#1e93ab;--c7:#c1477f;--c8:#667085;--c9:#7b9b2d}
@media(prefers-color-scheme:dark){:root{--bg:#12161d;--fg:#e3e8f0;--dim:#98a3b5;--line:#2a3240;--ok:#58c88a;
--bad:#f2857c;--warn:#e3b25c;--c1:#6ea0f0;--c2:#f0955f;--c3:#5cc596;--c4:#bd8cec;--c5:#e0bd55;--c6:#5cc4da;
--c7:#ec87b5;--c8:#a0aabb;--c9:#b0cf68}}
body{font:15px/1.5 system-ui,sans-serif;background:var(--bg);color:var(--fg);max-width:960px;margin:2rem auto;
padding:0 1rem}
h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .5rem}p{margin:.3rem 0}.dim{color:var(--dim)}
.verdict{display:inline-block;padding:.1rem .7rem;border:1.5px solid;border-radius:1rem;font-weight:600}
.OK{color:var(--ok)}.INVALID,.SLO_MISSED,.NO_SERVER{color:var(--bad)}.INCONCLUSIVE{color:var(--warn)}
.big{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:1rem;margin:1.2rem 0}
.big div{border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem}.big b{display:block;font-size:1.35rem}
table{border-collapse:collapse;width:100%;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.2rem .35rem;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}.plain td{white-space:normal}
th{color:var(--dim);font-weight:500}.wide{overflow-x:auto}.wide svg{min-width:560px}
svg{width:100%;height:auto;display:block}polyline{fill:none;stroke-width:1.6}.grid{stroke:var(--line)}
.mark{stroke:var(--dim);stroke-dasharray:4 4}.tick{fill:var(--dim);font-size:11px}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.2rem 1rem;padding:0;margin:.2rem 0 0;color:var(--dim);
font-size:.9rem}
.legend span{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em}
"""


def html(document: Document) -> str:
    """Return the whole page."""
    sections = (
        _head(document),
        _headline(document),
        _section("Latency distribution", _distribution(document)),
        _section("Latency over time", _over_time(document)),
        _section("Offered and answered", _rates(document)),
        _section("Where the time went", _stages(document)),
        _section("Slowest answers", _slowest(document)),
        _section("All numbers", _numbers(document)),
        _section("Streams", _streams(document)),
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>Load test: {escape(title(document))}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(sections)}</body></html>\n"
    )


def _head(document: Document) -> str:
    loop = "open" if document["scenario"]["is_open_loop"] else "closed"
    remarks = "".join(f"<p>{escape(text)}</p>" for text in (*document["reasons"], *document["notes"]))
    return (
        f"<h1>{escape(title(document))}</h1>"
        f'<p class="dim">{escape(document["started_at"])} · {escape(document["frames"])} ·'
        f" seed {document['scenario']['seed']} · {loop} loop</p>"
        f'<p><span class="verdict {document["verdict"]}">{document["verdict"]}</span></p>{remarks}'
    )


def _headline(document: Document) -> str:
    share = document["goodput_share"]
    cells = (
        ("p50", number(document["p50_ms"], "ms"), "latency"),
        (
            "p99",
            number(document["p99_ms"], "ms"),
            f"95 % interval{interval(document)}" if document["p99_ci_ms"] else "no interval",
        ),
        ("age p99", number(document["age_p99_ms"], "ms"), "of a result on arrival"),
        ("goodput", number(document["goodput_per_s"], "/s"), f"{(share or 0) * 100:.1f} % of offered"),
        ("lost", str(document["lost"]), f"of {document['sent']} sent"),
    )
    boxes = "".join(f'<div>{name}<b>{value}</b><span class="dim">{note}</span></div>' for name, value, note in cells)
    return f'<div class="big">{boxes}</div><p class="dim">{identity(document)}</p>'


def _section(name: str, body: str) -> str:
    return f"<h2>{name}</h2>{body or '<p class=dim>The run has no numbers for this.</p>'}"


def _distribution(document: Document) -> str:
    """Return latency by percentile, the axis stretched towards the tail as HdrHistogram plots it."""
    if not document["samples"]:
        return ""
    lines = []
    names = (("latency from the intended send", "latency_hdr"), ("service time from the actual send", "service_hdr"))
    for place, (name, key) in enumerate(names):
        values_ms, counts = histograms.values(document[key])
        points: list[tuple[float, float | None]] = []
        seen, total = 0, int(counts.sum())
        for value, count in zip(values_ms.tolist(), counts.tolist(), strict=True):
            points.append((_nines(seen / total), value))
            seen += count
        lines.append(Series(name, points, _COLOURS[place]))
    right = max(point[0] for line in lines for point in line.points)
    ticks = [(_nines(p / 100), f"{p:g} %") for p in _PERCENTILES if _nines(p / 100) <= right + 0.3]
    highest = max(point[1] or 0.0 for line in lines for point in line.points)
    x_axis = Axis("percentile", 0.0, max(right, 0.1), ticks)
    return line_chart("Latency by percentile", lines, x_axis, linear_axis("ms", 0.0, highest))


def _nines(share: float) -> float:
    return -math.log10(max(1.0 - share, 1e-9))


def _over_time(document: Document) -> str:
    table = document["timeline"]
    names = (("p50", "p50_ms"), ("p99", "p99_ms"), ("highest", "max_ms"))
    lines = [
        Series(name, [(point["t_s"], point[key]) for point in table], _COLOURS[place])
        for place, (name, key) in enumerate(names)
    ]
    highest = max((point["max_ms"] or 0.0 for point in table), default=0.0)
    marks = [Series("warm-up ends", [(document["warm_up_cut_s"], 0.0)], "")] if document["warm_up_cut_s"] else []
    x_axis = linear_axis("seconds since the start", 0.0, document["duration_s"])
    return line_chart("Latency over time", lines, x_axis, linear_axis("ms", 0.0, highest), marks)


def _rates(document: Document) -> str:
    names = (("offered", "offered_per_s"), ("answered", "answered_per_s"))
    table = document["timeline"]
    lines = [
        Series(name, [(point["t_s"], point[key]) for point in table], _COLOURS[place])
        for place, (name, key) in enumerate(names)
    ]
    highest = max((point[key] for point in table for _, key in names), default=0.0)
    x_axis = linear_axis("seconds since the start", 0.0, document["duration_s"])
    return line_chart("Offered and answered frames", lines, x_axis, linear_axis("frames per second", 0.0, highest))


def _stages(document: Document) -> str:
    stages = document["stages_ms"]
    if not stages:
        return ""
    bars = [
        (name, [(stage, part[key], _COLOURS[i % len(_COLOURS)]) for i, (stage, part) in enumerate(stages.items())])
        for name, key in (("all answers", "mean_ms"), ("slowest 1 %", "tail_ms"))
    ]
    lines = [[name, *(f"{part[key]:.3f}" for key in ("mean_ms", "p99_ms", "tail_ms"))] for name, part in stages.items()]
    note = "client: intended send to actual send; network: the rest of the service time; the rest: the server."
    chart = stacked_bars("Where the time went", bars, "ms")
    return chart + _table(["part (ms)", "mean", "p99", "slowest 1 %"], lines) + f'<p class="dim">{note}</p>'


def _slowest(document: Document) -> str:
    if not document["slowest"]:
        return ""
    lines = [
        [str(frame["stream"]), f"{frame['due_s']:.3f}", f"{frame['latency_ms']:.2f}", f"{frame['service_ms']:.2f}"]
        for frame in document["slowest"]
    ]
    return _table(["stream", "due (s)", "latency (ms)", "service time (ms)"], lines)


def _numbers(document: Document) -> str:
    lines = [[name, value] for name, value in rows(document)]
    lines += [[f"assert {item['text']}", "holds" if item["holds"] else "fails"] for item in document["asserts"]]
    return _table(["", ""], lines, look="plain")


def _streams(document: Document) -> str:
    streams = document["streams"]
    if not streams:
        return ""
    names = list(streams[0])
    lines = [
        [number(stream[name]) if name.endswith("_ms") else str(stream[name]) for name in names]
        for stream in streams[:_MAX_TABLE_ROWS]
    ]
    more = len(streams) - len(lines)
    rest = f'<p class="dim">{more} more are in the JSON report.</p>' if more > 0 else ""
    return _table([name.replace("_", " ") for name in names], lines) + rest


def _table(names: list[str], lines: list[list[str]], look: str = "wide") -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines)
    return f'<div class="{look}"><table><tr>{head}</tr>{body}</table></div>'
