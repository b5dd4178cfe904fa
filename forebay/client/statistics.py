"""Counters of one stream, a plain value."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from forebay.client.result import Status


@dataclass(frozen=True, slots=True)
class Statistics:
    """A snapshot. Every frame given to `send` is in exactly one of waiting, in flight, or a status.

    Attributes:
        offered: frames that `send` accepted.
        sent: frames written to the wire, resends not counted again.
        resent: number of times that a frame was written again after a reconnect.
        waiting: frames in the client's queue.
        in_flight: frames sent and not answered.
        ready: results that have come and are not yet taken.
        by_status: frames that have ended, by status.
        out_of_order: answers that came in the wrong order, twice, or for no frame of this stream. The server's fault.
        opened: calls that the server opened: 1, and 1 more for each reconnect.
    """

    offered: int = 0
    sent: int = 0
    resent: int = 0
    waiting: int = 0
    in_flight: int = 0
    ready: int = 0
    by_status: Mapping[Status, int] = field(default_factory=dict)
    out_of_order: int = 0
    opened: int = 0
