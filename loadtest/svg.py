"""Charts as inline SVG: lines over numbers, and stacked bars. Pure functions from numbers to text.

Colours come from CSS variables of the page, so that charts follow its light and dark look. Every chart has a title
for screen readers and marks its axes with round numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 12, 40
_TICKS = 5

Point = tuple[float, float | None]


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart; `colour` is a CSS value. A point without y is a gap."""

    name: str
    points: Sequence[Point]
    colour: str


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its label, its range, and where its marks are."""

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]


def linear_axis(label: str, low: float, high: float) -> Axis:
    """Return an axis with round marks that covers low..high."""
    span = (high - low) or 1.0
    raw = span / _TICKS
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [(index * step, f"{index * step:g}") for index in range(first, last + 1)]
    return Axis(label, ticks[0][0], ticks[-1][0] or step, ticks)


def line_chart(title: str, lines: Sequence[Series], x_axis: Axis, y_axis: Axis, marks: Sequence[Series] = ()) -> str:
    """Return a chart of lines.

    Args:
        title: for screen readers.
        lines: to draw.
        x_axis: horizontal.
        y_axis: vertical.
        marks: vertical lines, each at the x of its first point.
    """
    body = [_frame(x_axis, y_axis)]
    for mark in marks:
        x = _x(x_axis, mark.points[0][0])
        body.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}" class="mark"/>')
        body.append(f'<text x="{x + 4:.1f}" y="{_TOP + 12}" class="tick">{escape(mark.name)}</text>')
    for line in lines:
        for run in _runs(line.points):
            places = " ".join(f"{_x(x_axis, x):.1f},{_y(y_axis, y):.1f}" for x, y in run)
            if len(run) == 1:
                x, y = run[0]
                body.append(
                    f'<circle cx="{_x(x_axis, x):.1f}" cy="{_y(y_axis, y):.1f}" r="2" style="fill:{line.colour}"/>'
                )
            else:
                body.append(f'<polyline points="{places}" style="stroke:{line.colour}"/>')
    return _svg(title, "".join(body), HEIGHT) + legend([(line.name, line.colour) for line in lines])


def stacked_bars(title: str, bars: Sequence[tuple[str, Sequence[tuple[str, float, str]]]], unit: str) -> str:
    """Return horizontal bars; each is a name and its parts (name, length, colour)."""
    left, row = 110, 44
    longest = max((sum(max(length, 0.0) for _, length, _ in parts) for _, parts in bars), default=0.0) or 1.0
    body = []
    for place, (name, parts) in enumerate(bars):
        y = 8 + place * row
        body.append(f'<text x="{left - 8}" y="{y + 19}" class="tick" text-anchor="end">{escape(name)}</text>')
        x = float(left)
        for part, length, colour in parts:
            wide = max(length, 0.0) / longest * (WIDTH - left - 90)
            label = escape(f"{part}: {length:.3f} {unit}")
            body.append(
                f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="28" style="fill:{colour}">'
                f"<title>{label}</title></rect>"
            )
            x += wide
        total = sum(length for _, length, _ in parts)
        body.append(f'<text x="{x + 6:.1f}" y="{y + 19}" class="tick">{total:.2f} {unit}</text>')
    names = [(part, colour) for part, _, colour in bars[0][1]] if bars else []
    return _svg(title, "".join(body), 8 + row * len(bars)) + legend(names)


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Return the names and colours of a chart as HTML."""
    items = "".join(f'<li><span style="background:{colour}"></span>{escape(name)}</li>' for name, colour in entries)
    return f'<ul class="legend">{items}</ul>'


def _svg(title: str, body: str, height: int) -> str:
    return (
        f'<div class="wide"><svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{body}</svg></div>"
    )


def _frame(x_axis: Axis, y_axis: Axis) -> str:
    parts = []
    for value, text in y_axis.ticks:
        y = _y(y_axis, value)
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" class="tick" text-anchor="end">{escape(text)}</text>')
    for value, text in x_axis.ticks:
        x = _x(x_axis, value)
        if _LEFT <= x <= WIDTH - _RIGHT + 0.5:
            place = f'x="{x:.1f}" y="{HEIGHT - _BOTTOM + 16}"'
            parts.append(f'<text {place} class="tick" text-anchor="middle">{escape(text)}</text>')
    middle = (HEIGHT - _BOTTOM + _TOP) / 2
    parts.append(f'<text x="{WIDTH / 2:.0f}" y="{HEIGHT - 6}" class="tick" text-anchor="middle">{x_axis.label}</text>')
    turn = f'transform="rotate(-90 12 {middle:.0f})"'
    parts.append(f'<text x="12" y="{middle:.0f}" class="tick" text-anchor="middle" {turn}>{y_axis.label}</text>')
    return "".join(parts)


def _x(axis: Axis, value: float) -> float:
    return _LEFT + (value - axis.low) / ((axis.high - axis.low) or 1.0) * (WIDTH - _LEFT - _RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - _BOTTOM - (value - axis.low) / ((axis.high - axis.low) or 1.0) * (HEIGHT - _TOP - _BOTTOM)


def _runs(points: Sequence[Point]) -> list[list[tuple[float, float]]]:
    """Return the stretches of points without a gap."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None:
            runs.append([])
        else:
            runs[-1].append((x, y))
    return [run for run in runs if run]
