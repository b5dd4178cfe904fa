"""Reads the load once a second, publishes it, and asks streams to go elsewhere as `overload` decides.

Owner: the event loop's thread.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, NamedTuple, Protocol

import structlog

from forebay_server.service.clock import Clock
from forebay_server.service.every_second import EverySecond
from forebay_server.service.journal.statistics import VersionStatistics
from forebay_server.service.journal.streams import UNWANTED, StreamNumbers
from forebay_server.service.load.choice import Weight, chosen
from forebay_server.service.load.meter import Load, LoadMeter, Totals
from forebay_server.service.load.overload import NOTHING, Overload, Wish

log = structlog.get_logger(__name__)

SHARED_SLACK = 1.1  # a load that was sent a moment ago may be a little higher now


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
        ask: asks streams to go elsewhere, whose load together is the wish's surplus, in instances; returns how many
            could be asked.
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
        ask: Callable[[Wish], int],
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
        load = self._meter.read(now_ns, self._totals(frames))
        if self._is_on:
            load = self._decide(now_ns, load, frames.streams)
        self.load = load
        self._publish(load)

    def _decide(self, now_ns: int, load: Load, streams: int) -> Load:
        unwanted = self._numbers().opened.get(UNWANTED, 0)
        wish = self._overload.decide(now_ns, utilization=load.offered, streams=streams, unwanted=unwanted)
        if wish.count:
            asked = self._ask(replace(wish, surplus=wish.surplus * load.instances))
            self._overload.asked(asked, unwanted)
            text = "too much to do: streams are asked to go to other servers"
            log.info(text, asked=asked, busy=round(load.busy, 2), not_in_time=round(load.not_in_time, 3))
        return replace(load, has_room=self._overload.has_room)

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


def share_out(wish: Wish, streams: Mapping[int, Sequence[Weight]]) -> dict[int, Wish]:
    """Return the wish to each front-end process, so that all together ask those that one process would.

    Args:
        wish: to all processes.
        streams: the weights of each process's streams that can be asked, by its number.
    """
    every = [(process, weight) for process, weights in streams.items() for weight in weights]
    shares: dict[int, Wish] = {}
    for place in chosen([weight for _, weight in every], wish.count, wish.surplus):
        process, (_, load) = every[place]
        share = shares.get(process, NOTHING)
        surplus = share.surplus + load * SHARED_SLACK
        surplus = math.inf if math.isinf(wish.surplus) else surplus
        shares[process] = Wish(share.count + 1, surplus)
    return shares
