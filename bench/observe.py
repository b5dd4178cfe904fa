"""The cost of observing: server CPU per frame with page, scrapes and timeline on, over the same without.

Two servers run side by side and one client loads them in turn, a second or two each, ABBA, so that other work
of the machine hits both; then the same with two new servers, started in the other order, since two processes of one
program differ by some percent for as long as they live. The median of the quotients of neighbouring runs
counts, with its interval; the quotient of the sums is beside it, in which rare events (a saved trace) count and
disturbances too. CPU time comes from the processes' own clocks, to the nanosecond.

The observed server keeps its timeline, has the live page open, is scraped in every run (Prometheus asks every fifteen
seconds) and gives a trace of five seconds every thirty. `--recording` leaves page, scrapes and traces out.

The CPU time of the observer's own thread over that of the rest of its process is reported too: it needs no second
server, and leaves out what the data path itself does for observing, and waiting for the GIL.

Run: `python -m forebay_server.bench observe`; `python -m forebay_server.bench.observe` has options.
"""

import argparse
import asyncio
import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from forebay_server.bench import observe_cost
from forebay_server.bench.frame_load import run as offer
from forebay_server.bench.identity import IDENTITY_BYTES, STREAMS, WINDOW
from forebay_server.bench.pairs import Pairs, median_interval
from forebay_server.bench.rows import Row, Spread
from forebay_server.bench.server_process import RunningServer, running_server, simulated_config

TRACE_INTERVAL_S = 30.0
ROUNDS = 4
BAR = 1.05


class Page(threading.Thread):
    """A browser that keeps the page open until `close`: reads what comes and asks for nothing."""

    def __init__(self, port: int) -> None:
        super().__init__(name="page")
        self._first = b""
        self._events = socket.create_connection(("127.0.0.1", port))

    def run(self) -> None:
        """Read."""
        self._events.sendall(b"GET /events HTTP/1.1\r\n\r\n")
        with contextlib.suppress(OSError):
            while data := self._events.recv(1 << 16):
                if b"event:" not in self._first:
                    self._first += data

    def close(self) -> None:
        """Close the page and join. Raises RuntimeError if it received no message: then the run was not observed."""
        self._events.shutdown(socket.SHUT_RDWR)
        self.join()
        self._events.close()
        if b"event:" not in self._first:
            raise RuntimeError("the live page got no events: the measurement is void")


def get(port: int, path: str) -> bytes:
    """Return what the admin port answers. Raises RuntimeError for anything but 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.status != http.HTTPStatus.OK:
        raise RuntimeError(f"{path} was answered with {answer.status}: the measurement is void")
    return body


def observer_cpu_s(port: int) -> float:
    """Return what the observer's thread has used. This is a scrape."""
    lines = get(port, "/metrics").decode().splitlines()
    return float(next(line for line in lines if line.startswith("forebay_observer_cpu_seconds_total ")).split()[1])


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def two_servers(*, observed_first: bool) -> Iterator[tuple[RunningServer, RunningServer, int]]:
    """Run an unobserved server and one with an admin port; yield both and that port."""
    config = {"identity": simulated_config(alpha_ms=0, beta_ms=0, input_bytes=IDENTITY_BYTES)}
    port = free_port()
    flags: tuple[tuple[str, ...], ...] = ((), ("--admin-address", f"127.0.0.1:{port}"))
    first, second = reversed(flags) if observed_first else flags
    with running_server(config, *first) as one, running_server(config, *second) as other:
        yield (other, one, port) if observed_first else (one, other, port)


@dataclass(slots=True)
class ObserveResult:
    """CPU ms per frame, without and with observers, and the shares of the observer's thread."""

    cpu_ms: Pairs = field(default_factory=Pairs)
    shares: list[float] = field(default_factory=list)
    scrapes: int = 0
    traces: int = 0


class _Runs:
    """Loads two servers in turn. Owner: one event loop."""

    def __init__(
        self,
        servers: tuple[RunningServer, RunningServer, int],
        frames: int,
        result: ObserveResult,
        *,
        is_watched: bool,
    ) -> None:
        self.result = result
        self._plain, self._observed, self._port = servers
        self._frames = frames
        self._is_watched = is_watched
        self.is_counted = False
        self._trace_due_s = time.monotonic()

    async def plain(self) -> float:
        """Return the CPU time of an unobserved frame, in ms."""
        return await self._run(self._plain)

    async def observed(self) -> float:
        """Return the CPU time of a frame with observers, in ms. Scrapes are part of it."""
        if not self._is_watched:
            return await self._run(self._observed)
        before_s = await asyncio.to_thread(observer_cpu_s, self._port)
        started_s = self._observed.cpu_s()
        cpu_ms, _ = await asyncio.gather(self._run(self._observed), asyncio.to_thread(self._watch))
        whole_s = self._observed.cpu_s() - started_s
        own_s = await asyncio.to_thread(observer_cpu_s, self._port) - before_s
        if self.is_counted:
            self.result.shares.append(own_s / (whole_s - own_s))
        return cpu_ms

    def _watch(self) -> None:
        get(self._port, "/metrics")
        self.result.scrapes += 1
        if time.monotonic() >= self._trace_due_s:
            self._trace_due_s = time.monotonic() + TRACE_INTERVAL_S
            get(self._port, "/trace?seconds=5")
            self.result.traces += 1

    async def _run(self, server: RunningServer) -> float:
        before_s = server.cpu_s()
        found = await offer(server.address, "identity", IDENTITY_BYTES, STREAMS, WINDOW, self._frames, "forebay")
        if found.not_ok:
            raise RuntimeError(f"{found.not_ok} of {found.frames} frames were not OK: the measurement is void")
        return (server.cpu_s() - before_s) * 1e3 / found.frames


async def _measure(runs: _Runs, pairs: int) -> None:
    await runs.plain()
    await runs.observed()
    runs.is_counted = True
    for index in range(pairs):
        order = (runs.observed, runs.plain) if index % 2 else (runs.plain, runs.observed)
        costs = {run: await run() for run in order}
        runs.result.cpu_ms.first.append(costs[runs.plain])
        runs.result.cpu_ms.second.append(costs[runs.observed])


def measure(frames: int, pairs: int, *, is_watched: bool = True) -> ObserveResult:
    """Measure `ROUNDS` times `pairs` pairs of runs of `frames` frames each."""
    result = ObserveResult()
    for number in range(ROUNDS):
        with two_servers(observed_first=number % 2 == 1) as servers, contextlib.ExitStack() as stack:
            if is_watched:
                page = Page(servers[2])
                page.start()
                stack.callback(page.close)
            asyncio.run(_measure(_Runs(servers, frames, result, is_watched=is_watched), pairs))
    return result


def rows(*, is_quick: bool) -> Iterator[Row]:
    """Measure the parts, and the whole."""
    yield from observe_cost.rows(is_quick=is_quick)
    yield from ab_rows(measure(*((1000, 3) if is_quick else (2000, 15))))


def ab_rows(result: ObserveResult) -> Iterator[Row]:
    """Print the measurements."""
    pairs, case = result.cpu_ms, "identity, 150 KB"
    found, sums = pairs.median_ratio(), pairs.ratio_of_sums()
    yield Row(f"{case}: server CPU per frame, not observed", Spread.of(pairs.first), "ms")
    yield Row(f"{case}: server CPU per frame, observed", Spread.of(pairs.second), "ms")
    note = f"median of {len(pairs.first)} pairs; in brackets where it lies with 95 %"
    yield Row(f"{case}: observed over not", Spread(found.value, found.low, found.high), "", BAR, note=note)
    note = f"{result.scrapes} scrapes, {result.traces} traces; in brackets where it lies with 95 %"
    yield Row(f"{case}: observed over not, of the sums", Spread(sums.value, sums.low, sums.high), note=note)
    if result.shares:
        share = median_interval(result.shares)
        yield Row(f"{case}: observer's thread over the rest", Spread(share.value, share.low, share.high))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m forebay_server.bench.observe", description=__doc__)
    parser.add_argument("--frames", type=int, default=2000, help="of one run")
    parser.add_argument("--pairs", type=int, default=15, help=f"in each of {ROUNDS} rounds")
    parser.add_argument("--recording", action="store_true", help="an admin port without requests")
    options = parser.parse_args()
    for row in ab_rows(measure(options.frames, options.pairs, is_watched=not options.recording)):
        print(f"{row.what}: {row.value} {row.unit} {row.verdict} {row.note}".rstrip())


if __name__ == "__main__":
    main()
