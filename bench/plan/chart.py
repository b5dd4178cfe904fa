"""The chart of a plan: p99 and drops against cameras on one machine, as one SVG file. Pure.

The file needs no other: its style follows the light or dark look of the viewer.
"""

import math
import re
from html import escape

from forebay_server.bench.plan.fit import Point
from forebay_server.bench.plan.fleet import Group, Plan
from forebay_server.loadtest.svg import HEIGHT, WIDTH, Series, line_chart, linear_axis

COLOURS = ("var(--c1)", "var(--c2)", "var(--c3)", "var(--c4)", "var(--c5)", "var(--c6)")
_STYLE = """
svg{--bg:#fff;--fg:#1c2330;--dim:#5d6778;--line:#dfe4ec;--bad:#b3261e;--c1:#2463c4;--c2:#d1622b;--c3:#2c8f63;--c4:#8b4fc0;
--c5:#b8901f;--c6:#1e93ab;font-family:system-ui,sans-serif}
@media(prefers-color-scheme:dark){svg{--bg:#12161d;--fg:#e3e8f0;--dim:#98a3b5;--line:#2a3240;--bad:#f2857c;--c1:#6ea0f0;
--c2:#f0955f;--c3:#5cc596;--c4:#bd8cec;--c5:#e0bd55;--c6:#5cc4da}}
.back{fill:var(--bg)}.title{fill:var(--fg);font-size:14px;font-weight:600}.name{fill:var(--dim);font-size:12px}
polyline{fill:none;stroke-width:1.8}.grid{stroke:var(--line)}.mark{stroke:var(--dim);stroke-dasharray:4 4}
.tick{fill:var(--dim);font-size:11px}
"""
_HEAD, _FOOT = 34, 12
_INNER = re.compile(r"<svg[^>]*>(.*)</svg>", re.DOTALL)


def chart(plan: Plan) -> str:
    """Return the file's text."""
    names = [_name(group) for group in plan.groups]
    lines = [
        Series(name, [(p.cameras, _shown(p, plan)) for p in group.fit.points], COLOURS[index % len(COLOURS)])
        for index, (name, group) in enumerate(zip(names, plan.groups, strict=True))
    ]
    most = max(point.cameras for group in plan.groups for point in group.fit.points)
    highest = max((y for line in lines for _, y in line.points if y is not None), default=0.0)
    target = Series(
        f"target {plan.target.p99_ms:g} ms", [(0, plan.target.p99_ms), (most, plan.target.p99_ms)], "var(--bad)"
    )
    fitting = {group.fit.fits for group in plan.groups} - {0}
    marks = [Series(f"{count} fit", [(count, 0.0)], "") for count in sorted(fitting)]
    body = _INNER.search(
        line_chart(
            "p99 against cameras on one machine",
            [*lines, target],
            linear_axis("cameras on one machine", 0, most),
            linear_axis("upper end of p99, ms", 0, max(highest, plan.target.p99_ms) * 1.05),
            marks,
        )
    )
    assert body is not None  # noqa: S101 - it is a chart of our own
    legend, x = [], 56
    for line in (*lines, target):
        legend.append(f'<rect x="{x}" y="{_HEAD + HEIGHT}" width="10" height="10" style="fill:{line.colour}"/>')
        legend.append(f'<text x="{x + 15}" y="{_HEAD + HEIGHT + 9}" class="name">{escape(line.name)}</text>')
        x += 30 + 7 * len(line.name)
    costs = plan.costs
    title = f"{costs.model}, {plan.cameras.fps:g} frames a second of {costs.encoding}: {plan.in_all} cameras fit in all"
    height = _HEAD + HEIGHT + 12 + _FOOT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
        f'<style>{_STYLE}</style><rect class="back" width="{WIDTH}" height="{height}"/>'
        f'<text x="56" y="22" class="title">{escape(title)}</text>'
        f'<g transform="translate(0 {_HEAD})">{body[1]}</g>{"".join(legend)}</svg>\n'
    )


def _name(group: Group) -> str:
    cores = group.machine.cores
    return f"{cores} {'core' if cores == 1 else 'cores'}"


def _shown(point: Point, plan: Plan) -> float | None:
    """Return p99 for the chart; a point far above the target would hide all others, and is left out."""
    if not math.isfinite(point.p99_upper_ms) or point.p99_upper_ms > 3 * plan.target.p99_ms:
        return None
    return point.p99_upper_ms
