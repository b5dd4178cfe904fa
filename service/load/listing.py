"""The open streams of a server as its operator sees them, in the order in which they would be asked to move. Pure."""

import enum
import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from forebay_server.service.load.choice import Weight

MOST_LISTED = 1000
"""Lines of a list: some 100 KB on the wire and 3 ms of the event loop."""


class Placement(enum.Enum):
    """Whether a stream can be asked to go to another server: names and values of forebay.v1 Placement."""

    MOVABLE = 1
    LEAVING = 2  # it was asked
    STAYS = 3  # it came resumed a moment ago
    LOCAL = 4  # it came over the unix socket, which no other server has


@dataclass(frozen=True, slots=True)
class StreamLine:
    """One open stream.

    Attributes:
        stream_id: as its client named it.
        model: its name.
        version: decimal number.
        placement: whether it can be asked to move.
        load: share of one instance's time that its frames took in the last seconds.
        age_s: since this server opened it.
        frames: received.
        has_state: whether another server has to be given its state.
        is_resumed: whether its client had one before.
        front_end: number of its front-end process; 0 where there is one process.
    """

    stream_id: str
    model: str
    version: str
    placement: Placement
    load: float
    age_s: float
    frames: int
    has_state: bool
    is_resumed: bool
    front_end: int = 0


@dataclass(frozen=True, slots=True)
class Listing:
    """The open streams of a process or of a group.

    Attributes:
        streams: those that would be asked first, at most `MOST_LISTED`.
        count: of all.
        inference: open streams of the Open Inference Protocol.
    """

    streams: tuple[StreamLine, ...]
    count: int
    inference: int


NO_STREAMS = Listing((), 0, 0)


def listing_of(lines: Iterable[StreamLine], count: int, inference: int) -> Listing:
    """Return a list in the order of asking. `count` and `inference` are as in `Listing`."""
    return Listing(tuple(heapq.nsmallest(MOST_LISTED, lines, key=_turn)), count, inference)


def together(listings: Mapping[int, Listing]) -> Listing:
    """Return one list of those of front-end processes, by the number of the process."""
    lines = (replace(line, front_end=number) for number, each in listings.items() for line in each.streams)
    return listing_of(
        lines, sum(each.count for each in listings.values()), sum(each.inference for each in listings.values())
    )


def movable_by_process(listing: Listing) -> dict[int, list[Weight]]:
    """Return the weights of the movable streams of each front-end process, in their order."""
    found: dict[int, list[Weight]] = {}
    for line in listing.streams:
        if line.placement is Placement.MOVABLE:
            found.setdefault(line.front_end, []).append((line.has_state, line.load))
    return found


def _turn(line: StreamLine) -> tuple[bool, bool, float, str]:
    return line.placement is not Placement.MOVABLE, line.has_state, -line.load, line.stream_id
