"""Reads the load once a second, publishes it, and asks streams to go elsewhere as `overload` decides.

Owner: the event loop's thread.
"""

from collections.abc import Callable, Iterable
from typing import ClassVar, NamedTuple, Protocol

import structlog

from forebay_server.service.clock import Clock
from forebay_server.service.every_second import EverySecond
from forebay_server.service.journal.statistics import VersionStatistics
from forebay_server.service.journal.streams import RESUMED, StreamNumbers, Why
from forebay_server.service.load.meter import Load, LoadMeter, Totals
from forebay_server.service.load.overload import Overload

log = structlog.get_logger(__name__)


class Version(Protocol):
    """A model version that serves."""

    name: str
    version: str
    statistics: VersionStatistics

    @property
    def lanes(self) -> tuple[object, ...]:
        """One for each instance."""
        ...


class FrameTotals(NamedTuple):
    """Frames of streams so far.

    Attributes:
        ended: all.
        not_in_time: the late, the expired and the overloaded ones.
        streams: that are open now.
    """

    ended: int = 0
    not_in_time: int = 0
    streams: int = 0


class Moving(EverySecond):
    """See the module.

    Args:
        versions: returns those that serve.
        frames: returns the totals of streams.
        numbers: returns the numbers of streams.
        ask: asks so many streams to go elsewhere, the heaviest first, or by chance; returns how many could be asked.
        publish: called with the load, once a second.
        clock: source of monotonic nanoseconds.
        is_on: whether streams are asked.
        more_instances: returns the instances of a version in other processes, whose executions its statistics have.

    Attributes:
        load: the latest. Thread: any.
    """

    complaint: ClassVar[str] = "the load was not read"

    def __init__(
        self,
        versions: Callable[[], Iterable[Version]],
        frames: Callable[[], FrameTotals],
        numbers: Callable[[], StreamNumbers],
        ask: Callable[[int, bool], int],
        publish: Callable[[Load], None],
        clock: Clock,
        *,
        is_on: bool,
        more_instances: Callable[[str, str], int] = lambda _name, _version: 0,
    ) -> None:
        self.load = Load()
        self._versions = versions
        self._frames = frames
        self._numbers = numbers
        self._ask = ask
        self._publish = publish
        self._clock = clock
        self._is_on = is_on
        self._more_instances = more_instances
        self._meter = LoadMeter()
        self._overload = Overload()

    def look(self) -> None:
        """Read, publish and decide once."""
        now_ns, frames = self._clock.now_ns(), self._frames()
        self.load = load = self._meter.read(now_ns, self._totals(frames))
        self._publish(load)
        if not self._is_on:
            return
        came = _came(self._numbers())
        count = self._overload.decide(now_ns, is_over=load.is_over, streams=frames.streams, came=came)
        if count:
            asked = self._ask(count, self._overload.is_futile)
            self._overload.asked(asked, came)
            text = "too much to do: streams are asked to go to other servers"
            log.info(text, asked=asked, busy=round(load.busy, 2), not_in_time=round(load.not_in_time, 3))

    def _totals(self, frames: FrameTotals) -> Totals:
        execute_ns: dict[object, tuple[int, int]] = {}
        requests = failures = 0
        for version in self._versions():
            sums = version.statistics.sums()
            instances = len(version.lanes) + self._more_instances(version.name, version.version)
            execute_ns[version] = (sums.execute_ns, instances)
            requests += sums.requests
            failures += sums.failures
        return Totals(execute_ns, frames.ended, frames.not_in_time, requests, failures)


def _came(numbers: StreamNumbers) -> int:
    """Return how many streams came resumed that this server had not asked for another reason than its load."""
    others = sum(count for why, count in numbers.asked_to_leave.items() if why != Why.OVERLOAD.value)
    return numbers.opened.get(RESUMED, 0) - others


def share_out(count: int, streams: Iterable[tuple[int, Iterable[tuple[bool, float]]]]) -> dict[int, int]:
    """Return how many streams each front-end process asks, so that all together ask the first `count`.

    Args:
        count: of all processes.
        streams: of each process: its number, and (whether it has state, load) of its streams in the order of asking.
    """
    every = sorted((has_state, -load, process) for process, each in streams for has_state, load in each)
    shares: dict[int, int] = {}
    for _, _, process in every[:count]:
        shares[process] = shares.get(process, 0) + 1
    return shares
