"""A lane in virtual time: three serial stages with the durations of a cost function, and the events that they cause.

It implements `service.lane.Lane` for the real former core; nothing of it sleeps or reads a clock. What a device does
in parallel is computed: an upload starts when it is formed and the upload stage is free, execution when its upload is
done and compute is free, and so on. The real stages on the simulated device give the same instants
(tests/unit/bench/test_virtual_lane.py) at many times the cost.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from forebay_server.bench.disturbance import DOWNLOAD, EXECUTION, NONE, UPLOAD, Disturbances
from forebay_server.service.request import Batch


@dataclass(frozen=True, slots=True)
class StageCosts:
    """Durations in nanoseconds of each stage: fixed and per row, and the relative scatter of execution."""

    alpha_ns: int
    beta_ns: int
    h2d_ns: tuple[int, int] = (0, 0)
    d2h_ns: tuple[int, int] = (0, 0)
    jitter: float = 0.05


class LaneEvent(NamedTuple):
    """Something that a batch did at an instant: compute ended, or its slot was freed."""

    at_ns: int
    order: int
    batch: Batch
    h2d_ns: int = 0
    execute_ns: int = 0
    d2h_ns: int = 0
    is_slot_freed: bool = False


class VirtualLane:
    """See the module's docstring.

    Args:
        index: of the lane.
        costs: how long things take.
        now: the virtual instant.
        seed: of the scatter.
        slowdown: factor on execution by the instant at which the batch is formed.
        slots: slots of the lane.
        disturbances: of this lane, by time.
    """

    def __init__(
        self,
        index: int,
        costs: StageCosts,
        now: Callable[[], int],
        *,
        seed: int = 1,
        slowdown: Callable[[int], float] | None = None,
        slots: int = 4,
        disturbances: Disturbances = NONE,
    ) -> None:
        self.index = index
        self.slot_count = slots
        self.costs = costs
        self.events: list[LaneEvent] = []
        self.busy_ns = 0
        self._now = now
        self._random = Random(seed)  # noqa: S311 - scatter, not secrets
        self._slowdown = slowdown
        self._disturbances = disturbances
        self._free = list(range(slots))
        self._upload_free_ns = self._compute_free_ns = self._download_free_ns = 0
        self._order = 0

    def try_reserve(self) -> int | None:
        """Take a free slot."""
        return self._free.pop() if self._free else None

    def unreserve(self, slot_index: int) -> None:
        """Give a slot back."""
        self._free.append(slot_index)

    def submit(self, batch: Batch) -> bool:
        """Compute what happens to `batch` and leave its events in `events`."""
        batch.claim.start()  # its upload begins
        now_ns, costs, rows = self._now(), self.costs, batch.executed_rows
        factor = self._disturbances.factor
        upload_ns = max(now_ns, self._upload_free_ns)
        h2d_ns = int((costs.h2d_ns[0] + costs.h2d_ns[1] * rows) * factor(UPLOAD, upload_ns))
        self._upload_free_ns = upload_ns + h2d_ns
        scatter = math.exp(self._random.gauss(-(costs.jitter**2) / 2, costs.jitter)) if costs.jitter else 1.0
        slowdown = 1.0 if self._slowdown is None else self._slowdown(now_ns)
        start_ns = max(self._upload_free_ns, self._compute_free_ns)
        execute_ns = int((costs.alpha_ns + costs.beta_ns * rows) * scatter * slowdown * factor(EXECUTION, start_ns))
        compute_end_ns = self._compute_free_ns = start_ns + execute_ns
        download_ns = max(compute_end_ns, self._download_free_ns)
        d2h_ns = int((costs.d2h_ns[0] + costs.d2h_ns[1] * rows) * factor(DOWNLOAD, download_ns))
        freed_ns = self._download_free_ns = download_ns + d2h_ns
        self.busy_ns += execute_ns
        self._order += 2
        self.events.append(LaneEvent(compute_end_ns, self._order, batch, h2d_ns, execute_ns))
        self.events.append(LaneEvent(freed_ns, self._order + 1, batch, d2h_ns=d2h_ns, is_slot_freed=True))
        return False
