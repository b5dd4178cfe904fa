"""Messages to a batch former other than requests: cancellations, a lane's notices, a drain."""

from collections.abc import Sequence
from typing import NamedTuple

from forebay_server.service.request import Batch, Request


class Cancelled(NamedTuple):
    """Give up what is still pending of `requests`."""

    requests: Sequence[Request]


class ComputeEnded(NamedTuple):
    """A batch has left compute: see LaneListener."""

    batch: Batch
    ended_ns: int
    h2d_ns: int
    execute_ns: int


class SlotFreed(NamedTuple):
    """A slot is free again: see LaneListener."""

    lane_index: int
    slot_index: int
    d2h_ns: int


class Drain:
    """Refuse newcomers and hold nothing back."""


Event = Request | Cancelled | ComputeEnded | SlotFreed | Drain
