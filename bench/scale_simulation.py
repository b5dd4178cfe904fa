"""A hundred servers and thousands of cameras in virtual time: `python -m forebay_server.bench.scale_simulation`.

The choice among servers is the client library's own code (`forebay.addresses`), one instance for each gateway with its
cameras. Cameras come and go; once an hour a tenth of the servers fail and come back a minute later. Reported are the
imbalance (streams of a server over the mean of the servers that run, each minute), how many streams moved, and how
often one stream moved. Servers do not ask streams to leave here.
"""

import argparse
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from forebay.addresses import Address, Addresses

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS
HOUR_NS = 60 * MINUTE_NS
DOWN_NS = MINUTE_NS
WARM_NS = 10 * MINUTE_NS  # before imbalance counts


@dataclass(frozen=True, slots=True)
class Town:
    """The size of a simulation.

    Attributes:
        servers: all alike.
        gateways: clients, each with the same number of cameras.
        cameras: open streams, on average.
        stay_ns: mean time that a camera stays; another one comes in its place at another gateway.
        failing: share of the servers that fail at the middle of each hour.
        hours: simulated time.
    """

    servers: int = 100
    gateways: int = 10
    cameras: int = 5000
    stay_ns: int = 2 * HOUR_NS
    failing: float = 0.1
    hours: int = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened.

    Attributes:
        imbalance_p99: of all servers that ran and all minutes.
        imbalance_max: the same, the largest.
        moved_per_hour: streams that were opened again, in the worst hour.
        failed_over: streams that were on a server when it failed, in the worst hour.
        most_moves: of one stream.
        attempts: calls that were started.
    """

    imbalance_p99: float
    imbalance_max: float
    moved_per_hour: int
    failed_over: int
    most_moves: int
    attempts: int


class Simulation:
    """One run. Deterministic for a seed."""

    def __init__(self, town: Town, seed: int = 1) -> None:
        self._town = town
        self._chance = random.Random(seed)  # noqa: S311 - repeatable, no secret
        self._servers = [Address(f"server-{index}:8001") for index in range(town.servers)]
        self._gateways = [Addresses(self._chance.random) for _ in range(town.gateways)]
        for gateway in self._gateways:
            gateway.replace(self._servers)
        self._down: set[Address] = set()
        self._place: dict[int, tuple[Addresses, Address]] = {}  # by stream
        self._streams: Counter[Address] = Counter()
        self._moves: Counter[int] = Counter()
        self._moved_in: Counter[int] = Counter()  # by hour
        self._failed_over_in: Counter[int] = Counter()
        self._imbalances: list[float] = []
        self._attempts = 0
        self._numbers = itertools.count()
        self._events: list[tuple[int, int, Callable[[int], None]]] = []

    def run(self) -> Outcome:
        """Play all events."""
        town = self._town
        for _ in range(town.cameras):
            self._at(self._chance.randrange(WARM_NS // 2), self._arrive)
        for hour in range(town.hours):
            self._at(hour * HOUR_NS + HOUR_NS // 2, self._fail)
        for minute in range(WARM_NS // MINUTE_NS, town.hours * 60):
            self._at(minute * MINUTE_NS, self._look)
        end_ns = town.hours * HOUR_NS
        while self._events and self._events[0][0] < end_ns:
            now_ns, _, act = heapq.heappop(self._events)
            act(now_ns)
        ranked = sorted(self._imbalances)
        return Outcome(
            imbalance_p99=ranked[int(len(ranked) * 0.99)],
            imbalance_max=ranked[-1],
            moved_per_hour=max(self._moved_in.values(), default=0),
            failed_over=max(self._failed_over_in.values(), default=0),
            most_moves=max(self._moves.values(), default=0),
            attempts=self._attempts,
        )

    def _at(self, at_ns: int, act: Callable[[int], None]) -> None:
        heapq.heappush(self._events, (at_ns, next(self._numbers), act))

    def _arrive(self, now_ns: int) -> None:
        stream = next(self._numbers)
        self._open(stream, self._chance.choice(self._gateways), now_ns)
        self._at(
            now_ns + round(self._chance.expovariate(1 / self._town.stay_ns)), lambda at_ns: self._go(stream, at_ns)
        )

    def _go(self, stream: int, now_ns: int) -> None:
        gateway, server = self._place.pop(stream)
        gateway.ended(server)
        self._streams[server] -= 1
        self._arrive(now_ns)

    def _open(self, stream: int, gateway: Addresses, now_ns: int) -> None:
        """Try servers, as a link does, until one opens the stream: one that is down fails at once."""
        while True:
            server = gateway.choose(now_ns)
            self._attempts += 1
            if server not in self._down:
                break
            gateway.ended(server)
            gateway.failed(server, now_ns)
        gateway.opened(server)
        self._place[stream] = (gateway, server)
        self._streams[server] += 1

    def _fail(self, now_ns: int) -> None:
        count = round(self._town.failing * self._town.servers)
        failed = set(self._chance.sample(self._servers, count))
        self._down |= failed
        broken = [stream for stream, (_, server) in self._place.items() if server in failed]
        self._failed_over_in[now_ns // HOUR_NS] += len(broken)
        for stream in broken:
            gateway, server = self._place.pop(stream)
            gateway.ended(server)
            gateway.failed(server, now_ns)
            self._streams[server] -= 1
            self._moves[stream] += 1
            self._moved_in[now_ns // HOUR_NS] += 1
            self._open(stream, gateway, now_ns)
        self._at(now_ns + DOWN_NS, lambda _: self._down.difference_update(failed))

    def _look(self, _: int) -> None:
        running = [server for server in self._servers if server not in self._down]
        mean = sum(self._streams[server] for server in running) / len(running)
        self._imbalances += [self._streams[server] / mean for server in running]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m forebay_server.bench.scale_simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="runs [3]")
    parser.add_argument("--gateways", type=int, default=10, help="clients that share the cameras [10]")
    given = parser.parse_args()
    for seed in range(1, given.seeds + 1):
        found = Simulation(Town(gateways=given.gateways), seed).run()
        print(
            f"seed {seed}: imbalance p99 {found.imbalance_p99:.2f}, largest {found.imbalance_max:.2f}; "
            f"streams moved in the worst hour {found.moved_per_hour}, from servers that failed {found.failed_over}; "
            f"most moves of one stream {found.most_moves}; {found.attempts} calls"
        )


if __name__ == "__main__":
    main()
