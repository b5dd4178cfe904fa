"""Is run B better, the same, or worse than run A? Differences with confidence intervals, and a verdict.

The blocks of both runs are drawn anew many times; the spread of the difference of a quantile is its interval. A
difference counts only when its interval excludes zero and it is larger than a twentieth, since two runs of the
same server on a shared host differ by a few per cent for no reason.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from forebay_server.loadtest import histograms
from forebay_server.loadtest.report import Document

MATERIAL_SHARE = 0.05
MATERIAL_MS = 0.2  # quantiles closer than this count as equal, however small they are
_REPLICATES = 1000
_MIN_BLOCKS = 10
_TAIL = 0.025
QUANTILES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99}
_RATES = ("answered_per_s", "goodput_per_s")
# Runs of different loads can be compared, but not judged.
_LOAD_FIELDS = ("arrival", "streams", "fps", "rate_per_s", "peak_per_s", "concurrency", "policy", "jitter_ms")


class Change(StrEnum):
    """The rating of B relative to A."""

    BETTER = "better"
    SAME = "same"
    WORSE = "worse"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Difference:
    """One number of both runs. `low`..`high`: the interval of b - a; None if there is none."""

    name: str
    a: float | None
    b: float | None
    low: float | None
    high: float | None
    change: Change


@dataclass(frozen=True, slots=True)
class Comparison:
    """All differences, the verdict and its reasons."""

    differences: tuple[Difference, ...]
    verdict: Change
    reasons: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison for JSON."""
        return {
            "schema": "forebay.load.compare/1",
            "verdict": self.verdict.value,
            "reasons": list(self.reasons),
            "differences": [
                {"name": d.name, "a": d.a, "b": d.b, "ci": [d.low, d.high], "change": d.change.value}
                for d in self.differences
            ],
        }


def compare(a: Document, b: Document, seed: int = 1) -> Comparison:
    """Compare two reports."""
    samples = [_blocks(document) for document in (a, b)]
    differences = [
        *(_quantile_difference(name, share, a, b, samples, seed) for name, share in QUANTILES.items()),
        *(_rate_difference(name, a, b) for name in _RATES),
    ]
    reasons = [f"{name}: the loads differ" for name in _LOAD_FIELDS if a["scenario"][name] != b["scenario"][name]]
    reasons += [f"run {name} is {d['verdict']}" for name, d in (("A", a), ("B", b)) if d["verdict"] in _UNUSABLE]
    if reasons:
        return Comparison(tuple(differences), Change.UNKNOWN, tuple(reasons))
    changes = {difference.name: difference.change for difference in differences}
    deciding = [changes["p99_ms"], changes["goodput_per_s"]]
    verdict = next(
        (change for change in (Change.WORSE, Change.UNKNOWN, Change.BETTER) if change in deciding), Change.SAME
    )
    return Comparison(tuple(differences), verdict, tuple(_reason(d) for d in differences if d.change is verdict))


_UNUSABLE = ("INVALID", "NO_SERVER")


def text(comparison: Comparison) -> str:
    """Return the comparison for a terminal."""
    lines = [f"{'':<18}{'A':>12}{'B':>12}{'B - A, 95 % interval':>28}   "]
    for item in comparison.differences:
        ends = f"[{item.low:+.3f}, {item.high:+.3f}]" if item.low is not None and item.high is not None else "-"
        lines.append(f"{item.name:<18}{_number(item.a):>12}{_number(item.b):>12}{ends:>28}   {item.change.value}")
    lines += ["", f"verdict: B is {comparison.verdict.value}", *(f"  {reason}" for reason in comparison.reasons)]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class _Blocks:
    """A run's latencies, ascending, with the number of times that each was seen in each block."""

    values_ms: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    block: npt.NDArray[np.int64]
    blocks: int

    def resampled(self, share: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        """Return the quantile in each of many resamplings of the blocks."""
        weights = rng.multinomial(self.blocks, np.full(self.blocks, 1 / self.blocks), _REPLICATES)
        estimates = np.empty(_REPLICATES)
        for index in range(_REPLICATES):
            passed = np.cumsum(weights[index][self.block] * self.counts)
            rank = max(1, int(np.ceil(share * passed[-1] - 1e-9)))
            estimates[index] = self.values_ms[np.searchsorted(passed, rank)]
        return estimates


def _blocks(document: Document) -> _Blocks | None:
    encoded = document["latency_blocks"]["hdr"]
    if len(encoded) < _MIN_BLOCKS or document["p99_ms"] is None:
        return None
    parts = [histograms.values(text) for text in encoded]
    values_ms = np.concatenate([part[0] for part in parts])
    counts = np.concatenate([part[1] for part in parts])
    block = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    order = np.argsort(values_ms, kind="stable")
    return _Blocks(values_ms[order], counts[order], block[order], len(parts))


def _quantile_difference(
    name: str, share: float, a: Document, b: Document, samples: list[_Blocks | None], seed: int
) -> Difference:
    first, second = samples
    if first is None or second is None:
        return Difference(name, a[name], b[name], None, None, Change.UNKNOWN)
    rng = np.random.default_rng(seed)
    spread = second.resampled(share, rng) - first.resampled(share, rng)
    low, high = np.quantile(spread, [_TAIL, 1 - _TAIL]).tolist()
    material = max(MATERIAL_MS, MATERIAL_SHARE * a[name])
    difference = b[name] - a[name]
    change = Change.SAME
    if low > 0 and difference > material:
        change = Change.WORSE
    elif high < 0 and -difference > material:
        change = Change.BETTER
    return Difference(name, a[name], b[name], low, high, change)


def _rate_difference(name: str, a: Document, b: Document) -> Difference:
    """Compare rates by size alone: a run has only one rate."""
    first, second = a[name], b[name]
    if first is None or second is None:
        return Difference(name, first, second, None, None, Change.UNKNOWN)
    change = Change.SAME
    if abs(second - first) > MATERIAL_SHARE * max(first, second):
        change = Change.BETTER if second > first else Change.WORSE
    return Difference(name, first, second, None, None, change)


def _reason(difference: Difference) -> str:
    if difference.change is Change.SAME:
        return f"{difference.name} is the same within {MATERIAL_SHARE:.0%} or its interval"
    if difference.change is Change.UNKNOWN:
        return f"{difference.name}: a run has too few samples or is too short for an interval"
    return f"{difference.name} went from {_number(difference.a)} to {_number(difference.b)}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
