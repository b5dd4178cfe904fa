"""Numbers of streams, of both protocols."""

import enum
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

OPENED_HOW = NEW, RESUMED, UNWANTED = "new", "resumed", "unwanted"
REFUSED_WHY = DRAIN, LIMIT, ASKED = "drain", "limit", "asked"


class Why(enum.Enum):
    """Why a stream is asked to reconnect. The values are labels of a metric."""

    DRAIN = "drain"  # the server ends
    LIFETIME = "lifetime"
    UNLOADED = "unloaded"  # its version is
    UNEVEN = "uneven"  # its front-end process has more streams than the others
    OVERLOAD = "overload"  # the server has too much to do
    OPERATOR = "operator"  # `forebay streams move`


LEAVING_WHY = tuple(why.value for why in Why)


@dataclass(frozen=True, slots=True)
class StreamNumbers:
    """The streams of a process, or of a group of them.

    Attributes:
        inference: open streams of the Open Inference Protocol.
        opened: streams so far, by `OPENED_HOW`: `resumed` are those of clients that had one before, `unwanted` those of
            them that came while the server had too much to do, and that no other had taken.
        refused: streams so far, by `REFUSED_WHY`.
        asked_to_leave: streams that were asked to reconnect so far, by `LEAVING_WHY`.
        is_draining: whether the server has been asked to stop.
    """

    inference: int = 0
    opened: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    asked_to_leave: Mapping[str, int] = field(default_factory=dict)
    is_draining: bool = False


def sum_of(numbers: Iterable[StreamNumbers]) -> StreamNumbers:
    """Return the numbers of several processes together."""
    every = list(numbers)
    return StreamNumbers(
        sum(each.inference for each in every),
        _added(each.opened for each in every),
        _added(each.refused for each in every),
        _added(each.asked_to_leave for each in every),
        any(each.is_draining for each in every),
    )


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)
