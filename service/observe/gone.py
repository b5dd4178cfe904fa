"""Cameras that went away: for a quarter of an hour, and at most so many. Owner: the observer.

A camera is a name and a model: it has gone when its last stream closed, and is back when the next one opens.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass

from forebay_server.service.journal.events import Ending, StreamRecord

REMEMBERED_NS = 900_000_000_000
MAX_GONE = 200  # 100 kB; the oldest make way
FRAMES = "frames"  # protocol of cameras


@dataclass(frozen=True, slots=True)
class GoneCamera:
    """A camera without an open stream.

    Attributes:
        record: of its last stream.
        at_ns: when that closed, to a tick.
        ending: how.
    """

    record: StreamRecord
    at_ns: int
    ending: Ending


class GoneCameras:
    """See the module."""

    def __init__(self) -> None:
        self._open: Counter[tuple[str, str]] = Counter()
        self._gone: OrderedDict[tuple[str, str], GoneCamera] = OrderedDict()

    def opened(self, record: StreamRecord) -> None:
        """A stream has opened."""
        if record.protocol == FRAMES:
            key = (record.name, record.model)
            self._open[key] += 1
            self._gone.pop(key, None)

    def closed(self, record: StreamRecord, ending: Ending, now_ns: int) -> None:
        """A stream has closed."""
        if record.protocol != FRAMES:
            return
        key = (record.name, record.model)
        self._open[key] -= 1
        if self._open[key] > 0:
            return
        del self._open[key]
        self._gone[key] = GoneCamera(record, now_ns, ending)
        if len(self._gone) > MAX_GONE:
            self._gone.popitem(last=False)

    def latest(self, now_ns: int) -> list[GoneCamera]:
        """Return the cameras that are still remembered, the latest first; forget the others."""
        while self._gone and now_ns - next(iter(self._gone.values())).at_ns > REMEMBERED_NS:
            self._gone.popitem(last=False)
        return list(reversed(self._gone.values()))
