"""How far a cell with real threads is from the same cell in virtual time."""

from collections.abc import Iterable, Mapping
from typing import Any

from forebay_server.bench.batching_bars import Bar, value_of

TOLERANCE = 0.15
ALWAYS = ("p99_ms", "goodput_per_s")
LOST_SHARES = ("late_share", "shed_share")
"""Compared by the share that is not lost, because a share of zero is no scale."""


def deviations(real: Mapping[str, Any], virtual: Mapping[str, Any], bars: Iterable[Bar]) -> dict[str, float]:
    """Return, by field, the part by which a real number is more (or, negative, less) than the virtual one.

    Args:
        real: a cell as in the JSON.
        virtual: the same cell in virtual time.
        bars: whose fields of this cell are compared, beside p99 and goodput.
    """
    cell = (real["workload"], real["load"])
    fields = [*ALWAYS, *(bar.field for bar in bars if (bar.workload, bar.load) == cell)]
    found: dict[str, float] = {}
    for name in dict.fromkeys(fields):
        got, expected = value_of(real, name), value_of(virtual, name)
        if name in LOST_SHARES and got is not None and expected is not None:
            got, expected = 1.0 - got, 1.0 - expected
        if got is not None and expected:
            found[name] = got / expected - 1.0
    return found


def is_within(found: Mapping[str, float]) -> bool:
    """Whether every deviation is within the tolerance."""
    return all(abs(deviation) <= TOLERANCE for deviation in found.values())
