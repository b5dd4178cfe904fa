"""What clients notice of front-end processes that are killed: `python -m forebay_server.bench.deaths --kills 200`.

A group serves a simulated model to cameras of the client library in other processes, half of them EVERY, half LATEST.
Again and again a front-end process, chosen by chance, is ended by SIGKILL at a random instant. Reported are

- EVERY: frames that got no result (lost), and results that came twice. Both must be 0.
- LATEST: frames in flight on the killed process, which its clients get back as `unanswered`.
- the gap of the other cameras: the longest time between two results in the second after a death, of the cameras that
  did not have to reconnect, beside the same in the second before it. On a shared machine the start of the new process
  and the work of other programs are in both.
- the gap of the cameras of the killed process: from its death to their next result.
- the time from the death until the new process listens.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import psutil

from forebay_server.bench.server_process import RunningServer, running_server, simulated_config

MODEL = "simulated"
ROW_BYTES = 1024
CLIENT_PROCESSES = 2
WINDOW_NS = 1_000_000_000
RESTART_LIMIT_S = 60.0
MOST_IN_A_MINUTE = 18  # of one process: the group gives up at 20 (`service.group.processes`)
LOOK_S = 0.005
STARTED_S = 2.0  # for the cameras to open their streams


@dataclass(slots=True)
class Report:
    """The counts, and the times in milliseconds."""

    sent: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    twice: Counter[str] = field(default_factory=Counter)
    resent: int = 0
    statuses: dict[str, Counter[str]] = field(default_factory=dict)
    gaps_before_ms: list[float] = field(default_factory=list)
    gaps_after_ms: list[float] = field(default_factory=list)
    own_gaps_ms: list[float] = field(default_factory=list)


def report_of(cameras: Iterable[dict[str, Any]], deaths_ns: Sequence[int]) -> Report:
    """Return the report of cameras, given the instants of the deaths. Pure."""
    report = Report()
    for camera in cameras:
        delivery, results = camera["delivery"], camera["results"]
        seen = Counter(seq for seq, *_ in results)
        report.sent[delivery] += camera["sent"]
        report.lost[delivery] += camera["sent"] - len(seen)
        report.twice[delivery] += sum(count - 1 for count in seen.values())
        report.resent += camera["resent"]
        report.statuses.setdefault(delivery, Counter()).update(status for _, status, _, _ in results)
        for death_ns in deaths_ns:
            _add_gaps(report, [(at_ns, opened) for _, status, at_ns, opened in results if status == "ok"], death_ns)
    return report


def _add_gaps(report: Report, answers: Sequence[tuple[int, int]], death_ns: int) -> None:
    """Add the gaps of one camera around a death; `answers` are (time, number of the connection)."""
    before = [each for each in answers if death_ns - WINDOW_NS <= each[0] < death_ns]
    after = [each for each in answers if each[0] >= death_ns]
    if not (before and after):
        return  # it had not come back from the death before this one, or the run has ended
    soon = [each for each in after if each[0] <= death_ns + WINDOW_NS]
    if after[0][1] != before[-1][1]:
        report.own_gaps_ms.append((after[0][0] - death_ns) / 1e6)
    elif len({opened for _, opened in before + soon}) == 1:
        report.gaps_before_ms.append(_longest_ms([at_ns for at_ns, _ in before]))
        report.gaps_after_ms.append(_longest_ms([at_ns for at_ns, _ in [before[-1], *soon]]))


def _longest_ms(instants_ns: Sequence[int]) -> float:
    return max((after - before for before, after in pairwise(instants_ns)), default=0) / 1e6


@contextmanager
def cameras_of(
    address: str, every: int, latest: int, fps: float, model: str = MODEL, row_bytes: int = ROW_BYTES
) -> Iterator["subprocess.Popen[str]"]:
    """Run a process of cameras; it is killed at the end of the block if it still runs."""
    command = [sys.executable, "-m", "forebay_server.bench.death_cameras", address, model]
    command += [str(every), str(latest), str(fps), str(row_bytes)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:  # noqa: S603
        try:
            assert process.stdout is not None  # noqa: S101 - a pipe
            process.stdout.readline()
            yield process
        finally:
            process.kill()


class Killer:
    """Ends front-end processes of a running group.

    Attributes:
        deaths_ns: when, by the monotonic clock.
        restarts_ms: how long it took until the next process listened.
    """

    def __init__(self, server: RunningServer, chance: random.Random) -> None:
        self.deaths_ns: list[int] = []
        self.restarts_ms: list[float] = []
        self._chance = chance
        parent = server.process.parent()
        assert parent is not None  # noqa: S101 - it runs
        self._parent = parent
        self._others = {child.pid for child in parent.children()} - set(server.others)
        self._port = int(server.address.rpartition(":")[2])
        self._recent: deque[float] = deque()

    def kill_one(self) -> None:
        """Wait for a random instant, kill one, and wait until another one listens in its place."""
        while len(self._recent) >= MOST_IN_A_MINUTE and time.monotonic() - self._recent[0] < 60:
            time.sleep(LOOK_S)  # noqa: TID251 - waits for the time that it measures
        if len(self._recent) >= MOST_IN_A_MINUTE:
            self._recent.popleft()
        time.sleep(self._chance.uniform(1.0, 2.0))  # noqa: TID251 - the random instant
        before = self._front_ends()
        os.kill(self._chance.choice(sorted(before)), signal.SIGKILL)
        death_ns = time.monotonic_ns()
        self._recent.append(death_ns / 1e9)
        self.deaths_ns.append(death_ns)
        while not any(self._listens(pid) for pid in self._front_ends() - before):
            if time.monotonic_ns() - death_ns > RESTART_LIMIT_S * 1e9:
                raise RuntimeError("no front-end process took the place of the one that was killed")
            time.sleep(LOOK_S)  # noqa: TID251 - the same
        self.restarts_ms.append((time.monotonic_ns() - death_ns) / 1e6)

    def _front_ends(self) -> set[int]:
        return {child.pid for child in self._parent.children()} - self._others

    def _listens(self, pid: int) -> bool:
        try:
            connections = psutil.Process(pid).net_connections("tcp")
        except psutil.Error:  # it is starting
            return False
        return any(each.status == psutil.CONN_LISTEN and each.laddr.port == self._port for each in connections)


def run(front_ends: int, kills: int, cameras: int, fps: float, seconds: float, seed: int) -> tuple[Report, list[float]]:
    """Kill front-end processes under load; return the report and the times to restart in milliseconds."""
    config = simulated_config(alpha_ms=2, beta_ms=0.1, input_bytes=ROW_BYTES)
    each = max(1, cameras // CLIENT_PROCESSES // 2)
    until_s = time.monotonic() + seconds
    with running_server({MODEL: config}, front_ends=front_ends) as server, ExitStack() as stack:
        clients = [stack.enter_context(cameras_of(server.address, each, each, fps)) for _ in range(CLIENT_PROCESSES)]
        time.sleep(STARTED_S)  # noqa: TID251 - see STARTED_S
        killer = Killer(server, random.Random(seed))  # noqa: S311 - repeatable, no secret
        while len(killer.deaths_ns) < kills and time.monotonic() < until_s:
            killer.kill_one()
        reports: list[dict[str, Any]] = []
        for client in clients:
            output, _ = client.communicate("\n", timeout=2 * RESTART_LIMIT_S)
            reports += json.loads(output)
    return report_of(reports, killer.deaths_ns), killer.restarts_ms


def lines_of(report: Report, restarts_ms: Sequence[float]) -> Iterator[str]:
    """Return the report in words."""
    yield f"front-end processes killed: {len(restarts_ms)}"
    for delivery, sent in report.sent.items():
        statuses = ", ".join(f"{count} {name}" for name, count in sorted(report.statuses[delivery].items()))
        lost, twice = report.lost[delivery], report.twice[delivery]
        yield f"{delivery.upper()}: {sent} frames sent, {lost} without a result, {twice} answered twice; {statuses}"
    yield f"frames sent again: {report.resent}"
    yield f"gap of cameras on other processes, second before: {_spread(report.gaps_before_ms)}"
    yield f"gap of cameras on other processes, second after: {_spread(report.gaps_after_ms)}"
    yield f"death to the next result, cameras of the killed one: {_spread(report.own_gaps_ms)}"
    yield f"death to listening: {_spread(restarts_ms)}"


def _spread(values_ms: Sequence[float]) -> str:
    if not values_ms:
        return "no sample"
    ranked = sorted(values_ms)
    median, late = ranked[len(ranked) // 2], ranked[int(len(ranked) * 0.99)]
    return f"median {median:.0f} ms, p99 {late:.0f} ms, longest {ranked[-1]:.0f} ms ({len(ranked)} samples)"


def main() -> int:
    """Kill, print the report, and return 1 if an EVERY frame was lost or answered twice."""
    parser = argparse.ArgumentParser(prog="python -m forebay_server.bench.deaths", description=__doc__)
    parser.add_argument("--front-ends", type=int, default=2)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--seconds", type=float, default=600.0, help="no kill begins later")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    report, restarts_ms = run(given.front_ends, given.kills, given.cameras, given.fps, given.seconds, given.seed)
    for line in lines_of(report, restarts_ms):
        print(line)
    return int(bool(report.lost["every"] or sum(report.twice.values())))


if __name__ == "__main__":
    sys.exit(main())
