"""Disturbances in virtual time: some durations that the server measures grow by a factor for a while.

Six things take time there and are learnt from. `PAUSE` is the seventh: the whole process stands still, as under SIGSTOP
or on a machine that swaps; its events are seen at its end. `DEMAND` is the rate of arrivals.
"""

from collections.abc import Sequence
from typing import NamedTuple

EXECUTION = "execution"
UPLOAD = "upload"
DOWNLOAD = "download"
DELIVERY = "delivery"
TIMERS = "timers"
DEMAND = "demand"
PAUSE = "pause"

QUANTITIES = (EXECUTION, UPLOAD, DOWNLOAD, DELIVERY, TIMERS, DEMAND)


class Disturbance(NamedTuple):
    """`quantity` takes `factor` times as long from `start_ns` until before `end_ns`; any factor of PAUSE is a pause."""

    quantity: str
    factor: float
    start_ns: int
    end_ns: int


class Disturbances:
    """Several of them; factors of the same quantity multiply.

    Args:
        parts: in any order; they may overlap.
    """

    def __init__(self, parts: Sequence[Disturbance] = ()) -> None:
        self.parts = tuple(parts)
        self.end_ns = max((part.end_ns for part in parts), default=0)
        self._pauses = sorted((part.start_ns, part.end_ns) for part in parts if part.quantity == PAUSE)

    def factor(self, quantity: str, at_ns: float) -> float:
        """Return how many times as long `quantity` takes at an instant."""
        factor = 1.0
        for part in self.parts:
            if part.quantity == quantity and part.start_ns <= at_ns < part.end_ns:
                factor *= part.factor
        return factor

    def seen_ns(self, at_ns: int) -> int:
        """Return when the process notices what happens at an instant: at once, or when it runs again."""
        for start_ns, end_ns in self._pauses:
            if start_ns <= at_ns < end_ns:
                at_ns = end_ns
        return at_ns


NONE = Disturbances()
