"""Messages to a batch former other than requests: cancellations, a lane's notices, a drain."""

from collections.abc import Sequence
from dataclasses import dataclass

from forebay_server.service.batching.core import FormerCore
from forebay_server.service.request import Batch, Request


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Give up what is still pending of `requests`."""

    requests: Sequence[Request]


@dataclass(frozen=True, slots=True)
class ComputeEnded:
    """A batch has left compute: see LaneListener."""

    batch: Batch
    ended_ns: int
    h2d_ns: int
    execute_ns: int


@dataclass(frozen=True, slots=True)
class SlotFreed:
    """A slot is free again: see LaneListener."""

    lane_index: int
    slot_index: int
    d2h_ns: int


class Drain:
    """Refuse newcomers and hold nothing back."""


Event = Request | Cancelled | ComputeEnded | SlotFreed | Drain


def handle(core: FormerCore, event: Event, now_ns: int) -> None:
    """Hand an event to the core. Thread: the one that steps the core."""
    match event:
        case Request():
            core.arrive(event, now_ns)
        case ComputeEnded():
            core.compute_ended(event.batch, event.ended_ns, event.h2d_ns, event.execute_ns)
        case SlotFreed():
            core.slot_freed(event.lane_index, event.slot_index, event.d2h_ns)
        case Cancelled():
            core.cancel(event.requests, now_ns)
        case Drain():
            core.is_draining = True
