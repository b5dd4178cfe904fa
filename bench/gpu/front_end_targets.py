"""The numbers that front-end processes were asked for, beside those that a run has measured. Pure, but `write_targets`.

A number that a run has not measured is called that: nothing is derived from another run.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

Cell: TypeAlias = Mapping[str, Any]

SMALL, LARGE = 150_528, 519_168
MOST_P99_MS = 15.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One number.

    Attributes:
        what: it is of.
        asked: in words.
        measured: None: not measured.
        is_met: None: not measured, or nothing was asked.
    """

    what: str
    asked: str
    measured: str | None
    is_met: bool | None

    def __str__(self) -> str:
        verdict = {True: "met", False: "missed", None: ""}[self.is_met]
        return f"{self.what}: {self.measured or 'not measured'} (asked: {self.asked}) {verdict}".rstrip()


def outcomes_of(cells: Sequence[Cell]) -> Iterator[Outcome]:
    """Return the outcome of each number, given the cells of section front_ends."""
    group = [cell for cell in cells if cell.get("front_ends")]
    small = _fastest(_of(group, "frames", f"identity, {SMALL} bytes"))
    unary = _fastest(_of(group, "unary", f"identity, {SMALL} bytes"))
    large = _fastest(_of(group, "frames", f"identity, {LARGE} bytes"))
    alone = next((cell for cell in cells if cell["way"] == "engine alone"), None)
    raw = _fastest(_of(group, "frames", alone["model"])) if alone else None
    typed = _fastest([cell for cell in group if str(cell.get("model")).endswith(", detections")])

    def is_fast(cell: Cell) -> bool:
        return bool(cell["rows_per_s"] >= 15_000 and cell["p99_ms"] <= MOST_P99_MS)

    yield _outcome("identity 150,528 bytes, stream", ">= 15,000/s, p99 <= 15 ms", small, _rate_p99, is_fast)
    yield _outcome("identity 150,528 bytes, unary", ">= 7,500/s", unary, _rate, lambda cell: _per_s(cell) >= 7_500)
    yield _outcome("identity 519,168 bytes, stream", ">= 3,600/s", large, _rate, lambda cell: _per_s(cell) >= 3_600)
    yield _ratio("ResNet-50 FP16, 96 in flight, over the engine alone", raw, alone, 0.75)
    yield _ratio("detector with typed results over identity of its size", typed, large, 0.9)
    yield from _camera_outcomes(group)
    starts = [cell for cell in group if cell["way"] == "start"]
    ratios = sorted(cell["ratio"] for cell in starts)
    ratio = ratios[len(ratios) // 2] if ratios else None
    yield Outcome(
        "start to ready over one process",
        "<= 1.5",
        None if ratio is None else f"{ratio:.2f}",
        None if ratio is None else ratio <= 1.5,
    )
    pss = [mib for cell in starts for mib in cell["front_end_pss_mib"]]
    most = max(pss, default=None)
    yield Outcome(
        "memory (PSS) of an idle front-end process",
        "<= 80 MB",
        None if most is None else f"{most:.0f} MiB at most",
        None if most is None else most * (1 << 20) <= 80e6,
    )


def _camera_outcomes(group: Sequence[Cell]) -> Iterator[Outcome]:
    for encoding, count, least, most_ms in (
        ("raw", 64, 0.999, MOST_P99_MS),
        ("raw", 96, 0.97, None),
        ("raw", 128, None, None),
        ("jpeg", 40, 0.97, None),
    ):
        found = _best([cell for cell in group if cell["way"] == f"{encoding} cameras" and cell["cameras"] == count])
        asked = "no number" if least is None else f">= {least:.1%} in time"
        asked += f", p99 <= {most_ms:g} ms" if most_ms else ""

        def is_met(cell: Cell, least: float | None = least, most_ms: float | None = most_ms) -> bool | None:
            if least is None:
                return None
            return bool(cell["in_time_share"] >= least and (most_ms is None or cell["p99_ms"] <= most_ms))

        yield _outcome(f"{count} {encoding} cameras", asked, found, _in_time, is_met)
    for load in (1.5, 2.0):
        found = _best([cell for cell in group if cell.get("load") == load])
        yield _outcome(
            f"overload, {load:g} times the closed loop's rate",
            ">= 90 % of that rate in time, Jain >= .95",
            found,
            lambda cell: f"{cell['of_capacity']:.0%}, Jain {cell['jain']:.3f}",
            lambda cell: bool(cell["of_capacity"] >= 0.9 and cell["jain"] >= 0.95),
        )


def _outcome(
    what: str, asked: str, cell: Cell | None, words: Callable[[Cell], str], is_met: Callable[[Cell], bool | None]
) -> Outcome:
    if cell is None:
        return Outcome(what, asked, None, None)
    return Outcome(what, asked, f"{words(cell)} ({cell['front_ends']} front-end processes)", is_met(cell))


def _ratio(what: str, cell: Cell | None, other: Cell | None, least: float) -> Outcome:
    if cell is None or other is None:
        return Outcome(what, f">= {least:g}", None, None)
    found = _per_s(cell) / _per_s(other)
    return Outcome(what, f">= {least:g}", f"{found:.2f} ({cell['front_ends']} front-end processes)", found >= least)


def _of(cells: Sequence[Cell], way: str, model: str) -> list[Cell]:
    return [cell for cell in cells if cell["way"] == way and cell["model"] == model and cell.get("in_flight", 96) == 96]


def _fastest(cells: Sequence[Cell]) -> Cell | None:
    return max(cells, key=_per_s, default=None)


def _best(cells: Sequence[Cell]) -> Cell | None:
    return max(cells, key=lambda cell: float(cell["in_time_share"]), default=None)


def _per_s(cell: Cell) -> float:
    return float(cell["rows_per_s"])


def _rate(cell: Cell) -> str:
    return f"{_per_s(cell):,.0f}/s"


def _rate_p99(cell: Cell) -> str:
    return f"{_rate(cell)}, p99 {cell['p99_ms']:.1f} ms"


def _in_time(cell: Cell) -> str:
    return f"{cell['in_time_share']:.1%}, p99 {cell['p99_ms']:.1f} ms"


def write_targets(folder: Path) -> list[str]:
    """Read front_ends.json, write front_end_targets.json beside it, and return the outcomes in words."""
    path = folder / "front_ends.json"
    cells: list[Cell] = json.loads(path.read_text()) if path.is_file() else []
    outcomes = list(outcomes_of(cells))
    (folder / "front_end_targets.json").write_text(json.dumps([asdict(each) for each in outcomes], indent=1) + "\n")
    return [str(each) for each in outcomes]
