"""A hundred servers and thousands of cameras in virtual time: `python -m forebay_server.bench.scale_simulation`.

Servers decide with `service.load`, clients choose with `forebay.addresses` (`simulated_fleet`). Cameras come and go,
some heavier than others; once an hour a tenth of the servers fail and come back a minute later. Reported are the
imbalance (load of a server over the mean of the servers that run, each minute), how many streams moved because a server
failed and because one had too much to do, and how often one stream moved within an hour.
"""

import argparse
import heapq
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from forebay.addresses import Address
from forebay_server.bench.simulated_fleet import Balancer, Gateway, Proxy, Server, Stream

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS
HOUR_NS = 60 * MINUTE_NS
DOWN_NS = MINUTE_NS
WARM_NS = 10 * MINUTE_NS  # before imbalance counts
REOPENING_NS = 200_000_000  # a stream waits for its answers and opens its next call


@dataclass(frozen=True, slots=True)
class Town:
    """The size of a simulation.

    Attributes:
        servers: all alike.
        gateways: clients, each with the same number of cameras; 0: all streams come through a proxy.
        cameras: open streams, on average.
        stay_ns: mean time that a camera stays; another one comes in its place at another gateway.
        failing: share of the servers that fail at the middle of each hour.
        hours: simulated time.
        utilization: mean load of a server while all run; 1 is a full server.
        heavy: share of the cameras that have four times the load of the others.
        asks: whether servers ask streams to leave.
    """

    servers: int = 100
    gateways: int = 10
    cameras: int = 5000
    stay_ns: int = 2 * HOUR_NS
    failing: float = 0.1
    hours: int = 3
    utilization: float = 0.7
    heavy: float = 0.1
    asks: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened.

    Attributes:
        imbalance_p99: load of a server over the mean, of all servers that ran and all minutes.
        imbalance_max: the same, the largest.
        over: share of these servers and minutes that were over the threshold.
        moved_per_hour: streams that servers had asked to leave and that were opened again, in the worst hour.
        failed_over: streams that were on a server when it failed, in the worst hour.
        most_moves: of one stream within one hour.
        placed: calls that were opened.
    """

    imbalance_p99: float
    imbalance_max: float
    over: float
    moved_per_hour: int
    failed_over: int
    most_moves: int
    placed: int


class Simulation:
    """One run. Deterministic for a seed."""

    def __init__(self, town: Town, seed: int = 1) -> None:
        self._town = town
        self._chance = chance = random.Random(seed)  # noqa: S311 - repeatable, no secret
        self._servers = [Server(Address(f"server-{index}:8001"), town.asks, chance) for index in range(town.servers)]
        self._balancers: list[Balancer] = [Gateway(self._servers, chance) for _ in range(town.gateways)]
        if not self._balancers:
            self._balancers.append(Proxy(self._servers, chance))
        mean = 1 + 3 * town.heavy
        self._unit = town.utilization * town.servers / (town.cameras * mean)
        self._place: dict[int, tuple[Stream, Balancer, Server]] = {}  # by the stream's number
        self._moved_in: Counter[int] = Counter()  # by hour
        self._failed_over_in: Counter[int] = Counter()
        self._moves_in: Counter[tuple[int, int]] = Counter()  # by stream and hour
        self._imbalances: list[float] = []
        self._over = 0
        self._placed = 0
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
            self._at(minute * MINUTE_NS, self._measure)
        for server in self._servers:  # not all at the same instant
            self._at(self._chance.randrange(SECOND_NS), partial(self._look, server))
        end_ns = town.hours * HOUR_NS
        while self._events and self._events[0][0] < end_ns:
            now_ns, _, act = heapq.heappop(self._events)
            act(now_ns)
        ranked = sorted(self._imbalances)
        return Outcome(
            imbalance_p99=ranked[int(len(ranked) * 0.99)],
            imbalance_max=ranked[-1],
            over=self._over / len(ranked),
            moved_per_hour=max(self._moved_in.values(), default=0),
            failed_over=max(self._failed_over_in.values(), default=0),
            most_moves=max(self._moves_in.values(), default=0),
            placed=self._placed,
        )

    def _at(self, at_ns: int, act: Callable[[int], None]) -> None:
        heapq.heappush(self._events, (at_ns, next(self._numbers), act))

    def _arrive(self, now_ns: int) -> None:
        load = self._unit * (4 if self._chance.random() < self._town.heavy else 1)
        stream = Stream(next(self._numbers), load)
        self._open(stream, self._chance.choice(self._balancers), now_ns)
        stay_ns = round(self._chance.expovariate(1 / self._town.stay_ns))
        self._at(now_ns + stay_ns, lambda at_ns: self._go(stream.number, at_ns))

    def _go(self, number: int, now_ns: int) -> None:
        if number not in self._place:  # between two calls: it goes a moment later
            self._at(now_ns + SECOND_NS, lambda at_ns: self._go(number, at_ns))
            return
        self._close(number)
        self._arrive(now_ns)

    def _open(self, stream: Stream, balancer: Balancer, now_ns: int, left: Server | None = None) -> None:
        self._placed += 1
        self._place[stream.number] = stream, balancer, balancer.place(stream, now_ns, left)

    def _close(self, number: int) -> tuple[Stream, Balancer]:
        stream, balancer, server = self._place.pop(number)
        server.drop(stream)
        balancer.ended(server)
        return stream, balancer

    def _move(self, stream: Stream, balancer: Balancer, now_ns: int, left: Server | None = None) -> None:
        stream.moves += 1
        self._moves_in[stream.number, now_ns // HOUR_NS] += 1
        self._at(now_ns + REOPENING_NS, lambda at_ns: self._open(stream, balancer, at_ns, left))

    def _look(self, server: Server, now_ns: int) -> None:
        for asked in server.look(now_ns):
            _, balancer, _ = self._place[asked.number]
            balancer.going(server, now_ns)
            self._moved_in[now_ns // HOUR_NS] += 1
            self._move(*self._close(asked.number), now_ns, server)
        self._at(now_ns + SECOND_NS, partial(self._look, server))

    def _fail(self, now_ns: int) -> None:
        count = round(self._town.failing * self._town.servers)
        failed = self._chance.sample(self._servers, count)
        for server in failed:
            for stream in server.fail():
                _, balancer, _ = self._place.pop(stream.number)
                balancer.ended(server)
                balancer.failed(server, now_ns)
                self._failed_over_in[now_ns // HOUR_NS] += 1
                self._move(stream, balancer, now_ns)
        self._at(now_ns + DOWN_NS, lambda _: self._come_back(failed))

    @staticmethod
    def _come_back(servers: list[Server]) -> None:
        for server in servers:
            server.is_down = False

    def _measure(self, _: int) -> None:
        running = [server for server in self._servers if not server.is_down]
        mean = sum(server.load for server in running) / len(running)
        self._imbalances += [server.load / mean for server in running]
        self._over += sum(server.is_over for server in running)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m forebay_server.bench.scale_simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of chance [1]")
    parser.add_argument("--gateways", type=int, nargs="+", default=[0, 1, 10, 50, 5000], help="clients; 0: a proxy")
    parser.add_argument("--utilization", type=float, nargs="+", default=[0.7], help="mean load of a server [0.7]")
    parser.add_argument("--no-asking", action="store_true", help="servers never ask streams to leave")
    given = parser.parse_args()
    print("| clients | load | imbalance p99 | largest | over | asked an hour | failed over | most moves an hour |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for gateways, utilization in itertools.product(given.gateways, given.utilization):
        town = replace(Town(), gateways=gateways, utilization=utilization, asks=not given.no_asking)
        start_s = time.process_time()
        found = Simulation(town, given.seed).run()
        print(
            f"| {gateways or 'proxy'} | {utilization:.2f} | {found.imbalance_p99:.2f} | {found.imbalance_max:.2f} | "
            f"{found.over:.1%} | {found.moved_per_hour} | {found.failed_over} | {found.most_moves} | "
            f"{time.process_time() - start_s:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
