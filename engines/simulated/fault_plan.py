"""Plan of the operations of a simulated device that fail or stall.

An operation is named by its verb and its number: ("copy_h2d", 7) is the eighth copy_h2d of the device, on any device
stream. Verbs: copy_h2d, copy_d2h, execute, record, wait, sync, alloc_host, alloc_device.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from forebay_server.engines.errors import EngineError

VERBS = ("copy_h2d", "copy_d2h", "execute", "record", "wait", "sync", "alloc_host", "register_host", "alloc_device")
_QUEUED_VERBS = ("copy_h2d", "copy_d2h", "execute")

OperationKey = tuple[str, int]


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """The planned faults. A DeviceLostError is permanent, any other error happens once.

    Attributes:
        fail: raised by the call itself; the operation does not happen.
        fail_late: raised by the call that synchronises with the operation (copies and executions only). It goes with
            the first event recorded after it, and on to the streams that wait for that event; later batches are not
            hit.
        stall: added to the cost in ns (copies and executions only); None holds the device stream just before the
            operation, until `SimulatedStream.release()`.
    """

    fail: Mapping[OperationKey, EngineError] = field(default_factory=dict)
    fail_late: Mapping[OperationKey, EngineError] = field(default_factory=dict)
    stall: Mapping[OperationKey, int | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse faults that would never happen."""
        for verb, _ in self.fail:
            if verb not in VERBS:
                raise ValueError(f"no operation is called {verb!r}: one of {', '.join(VERBS)}")
        for verb, _ in (*self.fail_late, *self.stall):
            if verb not in _QUEUED_VERBS:
                raise ValueError(f"only {', '.join(_QUEUED_VERBS)} can stall or fail late, not {verb!r}")


@dataclass(frozen=True, slots=True)
class Fault:
    """The planned fault of one operation."""

    error: EngineError | None = None
    late_error: EngineError | None = None
    stall_ns: int = 0
    is_endless: bool = False


class FaultCounter:
    """Numbers the operations of a device and looks them up in its plan. Owner: the device's lock."""

    def __init__(self, plan: FaultPlan) -> None:
        self._plan = plan
        self._counts: Counter[str] = Counter()

    def next(self, verb: str) -> Fault:
        """Count one more operation and return its planned fault."""
        key = (verb, self._counts[verb])
        self._counts[verb] += 1
        stall_ns = self._plan.stall.get(key, 0)
        return Fault(self._plan.fail.get(key), self._plan.fail_late.get(key), stall_ns or 0, stall_ns is None)
