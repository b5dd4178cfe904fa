"""The scenarios `mixed` and `fourth` of `bench.scaling` in virtual time: `python -m forebay_server.bench.small_fleet`.

Three servers behind a proxy that counts streams as Envoy does, with the product's own decisions (`simulated_fleet`),
for many seeds: a real run takes a minute and shows one of them.
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass

from forebay.addresses import Address
from forebay_server.bench.simulated_fleet import Proxy, Server, Stream

SECOND_NS = 1_000_000_000
REOPENING_NS = 50_000_000
FRAME_S = 0.0212  # of a server's time: 47 frames/s
HEAVY_AND_LIGHT = [12.0] * 4 + [3.0] * 20  # frames/s of the cameras
ALIKE = [5.0] * 30
NOISE = 0.03  # standard deviation of the load of one second
MIXED_S, LAST_S, FOURTH_S = 60, 15, 30


class Fleet:
    """Servers and cameras, second by second.

    Args:
        servers: that run.
        fps: of the cameras, in the order in which they are opened.
        seed: of all chance.

    Attributes:
        frames: that each server has answered so far.
        moves: streams that were opened again.
    """

    def __init__(self, servers: int, fps: Sequence[float], seed: int) -> None:
        self._chance = chance = random.Random(seed)  # noqa: S311 - repeatable, no secret
        self.servers = [
            Server(Address(f"server-{index}:8001"), asks=True, chance=chance, most_load=1.0, noise=NOISE)
            for index in range(servers)
        ]
        self.frames = [0.0] * servers
        self.moves = 0
        self._phases_ns = [chance.randrange(SECOND_NS) for _ in self.servers]
        self._proxy = Proxy(self.servers, chance)
        self._second = 0
        self.open(fps)

    def open(self, fps: Sequence[float]) -> None:
        """Open cameras, one after the other."""
        for number, each in enumerate(fps):
            self._proxy.place(Stream(number, each * FRAME_S), 0)

    def play(self, seconds: int) -> None:
        """Let time pass."""
        for second in range(self._second, self._second + seconds):
            looks = sorted(zip(self._phases_ns, self.servers, strict=True), key=lambda look: look[0])
            for phase_ns, server in looks:
                now_ns = second * SECOND_NS + phase_ns
                for stream in server.look(now_ns):
                    server.drop(stream)
                    stream.moves += 1
                    self.moves += 1
                    self._proxy.place(stream, now_ns + REOPENING_NS)
            for index, server in enumerate(self.servers):
                self.frames[index] += min(server.load, 1.0) / FRAME_S
        self._second += seconds


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of a run.

    Attributes:
        value: frames of the busiest server over those of the least busy one, or share of the fourth server.
        moves: streams that were opened again.
    """

    value: float
    moves: int


def mixed(seed: int) -> Found:
    """Play heavy and light cameras; compare the frames of the servers in the last seconds of a minute."""
    fleet = Fleet(3, HEAVY_AND_LIGHT, seed)
    fleet.play(MIXED_S - LAST_S)
    before = list(fleet.frames)
    fleet.play(LAST_S)
    frames = [now - was for now, was in zip(fleet.frames, before, strict=True)]
    return Found(max(frames) / min(frames), fleet.moves)


def fourth(seed: int, after_s: int) -> Found:
    """Start a fourth server beside three that have too much to do; return its share of the next frames."""
    fleet = Fleet(4, [], seed)
    fleet.servers[3].is_down = True
    fleet.open(ALIKE)
    fleet.play(after_s)
    fleet.servers[3].is_down = False
    before, moves = list(fleet.frames), fleet.moves
    fleet.play(FOURTH_S)
    frames = [now - was for now, was in zip(fleet.frames, before, strict=True)]
    return Found(frames[3] / sum(frames), fleet.moves - moves)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m forebay_server.bench.small_fleet", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="runs of each scenario [200]")
    seeds = range(parser.parse_args().seeds)
    print("| scenario | median | worst of 20 | worst | streams moved, mean |")
    print("| --- | ---: | ---: | ---: | ---: |")
    rows = {"mixed: most frames over least": sorted((mixed(seed) for seed in seeds), key=lambda found: found.value)}
    for after_s in (8, 60, 300, 3600):
        runs = (fourth(seed, after_s) for seed in seeds)
        rows[f"a fourth server after {after_s} s: its share"] = sorted(runs, key=lambda found: -found.value)
    for name, found in rows.items():
        middle, nearly, worst = found[len(found) // 2], found[len(found) * 19 // 20], found[-1]
        moves = sum(each.moves for each in found) / len(found)
        print(f"| {name} | {middle.value:.2f} | {nearly.value:.2f} | {worst.value:.2f} | {moves:.1f} |", flush=True)


if __name__ == "__main__":
    main()
