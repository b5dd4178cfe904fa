"""What observing costs: server CPU per frame with the admin port, page, scrapes and traces, over the same without.

Two servers run side by side and are loaded in turn, ABBA, so that whatever else the machine does hits both; the
quotient of neighbouring runs is what counts, and its spread is reported. On a machine that others use too it scatters
by tens of percent; so the CPU time of the observer's own thread over that of the rest of the same process in the same
run is reported beside it, which both suffer alike. It leaves out what the data path itself does for observing, and
waiting for the GIL. The observed server has the live page open, is scraped every five seconds (Prometheus asks every
fifteen) and gives a trace of five seconds every thirty.

Run: `python -m bench.observe`.
"""

import argparse
import contextlib
import http.client
import socket
import statistics
import threading
import time
from collections.abc import Iterator, Sequence

from bench.identity import IDENTITY_BYTES, STREAMS, WINDOW, offer
from bench.rows import Spread
from bench.server_process import RunningServer, running_server, simulated_config
from engines.clock import MonotonicClock
from service.observe.journal import Journal
from service.observe.observer import Observer
from service.request import Timeline

SCRAPE_INTERVAL_S = 5.0
SCRAPES_PER_TRACE = 6
BAR = 1.05


def fold_us(frames_per_tick: int, ticks: int = 200) -> float:
    """Return the CPU time of the observer per frame, in µs, at so many frames per tick."""
    journal = Journal()
    observer = Observer(journal, MonotonicClock())
    records = [journal.open(f"camera-{index}", "detector", "1") for index in range(20)]
    base = time.monotonic_ns()
    spent_s = 0.0
    for tick in range(ticks):
        for index in range(frames_per_tick):
            at = base + tick * 1_000_000 + index
            stamps = (at, at + 10_000, at + 20_000, at + 30_000, at + 9_000_000, at + 9_100_000, 100, 8_000_000, 100)
            event = (records[index % len(records)], Timeline(*stamps), None, at + 10**8, at // 1000, None)
            journal.frames.append(event)
        before_s = time.thread_time()
        observer.tick()
        spent_s += time.thread_time() - before_s
    return spent_s * 1e6 / (ticks * frames_per_tick)


def append_us(frames: int = 200_000) -> float:
    """Return the CPU time that the data path spends on one frame, in µs: building the tuple and appending it."""
    journal = Journal()
    record = journal.open("camera", "detector", "1")
    timeline, append = Timeline(), journal.frames.append
    before_s = time.thread_time()
    for _ in range(frames):
        append((record, timeline, None, 1, 2, None))
    return (time.thread_time() - before_s) * 1e6 / frames


class Watchers(threading.Thread):
    """A browser's worth of interest in one server until `close`."""

    def __init__(self, port: int) -> None:
        super().__init__(name="watchers")
        self._port = port
        self._is_over = threading.Event()
        self.scrapes = self.bytes_read = 0

    def run(self) -> None:
        """Keep the page's events open; scrape, and save a trace now and then."""
        with socket.create_connection(("127.0.0.1", self._port)) as events:
            events.sendall(b"GET /events HTTP/1.1\r\n\r\n")
            events.settimeout(0)
            while not self._is_over.wait(SCRAPE_INTERVAL_S):
                with contextlib.suppress(BlockingIOError):
                    while data := events.recv(1 << 20):
                        self.bytes_read += len(data)
                self._get("/metrics")
                self.scrapes += 1
                if self.scrapes % SCRAPES_PER_TRACE == 0:
                    self._get("/trace?seconds=5")

    def _get(self, path: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        connection.request("GET", path)
        self.bytes_read += len(connection.getresponse().read())
        connection.close()

    def close(self) -> None:
        """Stop and join."""
        self._is_over.set()
        self.join()


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def pair(payload_bytes: int, alpha_ms: float) -> Iterator[tuple[RunningServer, RunningServer, int]]:
    """Run a server that nobody observes and one with an admin port."""
    config = {"identity": simulated_config(alpha_ms=alpha_ms, beta_ms=0, input_bytes=payload_bytes)}
    port = free_port()
    with running_server(config) as plain, running_server(config, "--admin-address", f"127.0.0.1:{port}") as observed:
        yield plain, observed, port


def observer_cpu_s(port: int) -> float:
    """Return what the observer's thread has used."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return float(next(line for line in lines if line.startswith("forebay_observer_cpu_seconds_total ")).split()[1])


def measure(frames: int, repeats: int, payload_bytes: int = IDENTITY_BYTES) -> tuple[list[float], list[float]]:
    """Return CPU ms per frame without and with observers, neighbours at the same place."""
    plain_ms, observed_ms, _ = measure_with_shares(frames, repeats, payload_bytes)
    return plain_ms, observed_ms


def measure_with_shares(
    frames: int, repeats: int, payload_bytes: int = IDENTITY_BYTES
) -> tuple[list[float], list[float], list[float]]:
    """Return CPU ms per frame without and with observers, neighbours at the same place, and the thread's shares."""
    plain_ms: list[float] = []
    observed_ms: list[float] = []
    shares: list[float] = []
    with pair(payload_bytes, 0) as (plain, observed, port):
        watchers = Watchers(port)

        def run(server: RunningServer) -> float:
            result = offer(server, server.address, payload_bytes, streams=STREAMS, window=WINDOW, frames=frames)
            return float(result["server_cpu_ms"])

        def run_observed() -> None:
            before_s, before_all_s = observer_cpu_s(port), observed.cpu_s()
            observed_ms.append(run(observed))
            own_s = observer_cpu_s(port) - before_s
            shares.append(own_s / (observed.cpu_s() - before_all_s - own_s))

        run(plain)
        run(observed)
        watchers.start()
        try:
            for index in range(repeats):
                if index % 2:
                    run_observed()
                    plain_ms.append(run(plain))
                else:
                    plain_ms.append(run(plain))
                    run_observed()
        finally:
            watchers.close()
        print(f"scrapes {watchers.scrapes}, bytes read by observers {watchers.bytes_read}")
    return plain_ms, observed_ms, shares


def report(plain_ms: Sequence[float], observed_ms: Sequence[float], shares: Sequence[float]) -> None:
    """Print both, and their quotient."""
    ratios = [observed / plain for plain, observed in zip(plain_ms, observed_ms, strict=True)]
    print(f"server CPU per frame, not observed   {Spread.of(list(plain_ms))} ms")
    print(f"server CPU per frame, observed       {Spread.of(list(observed_ms))} ms")
    print(f"quotient of neighbouring runs        {Spread.of(ratios)}; bar {BAR}")
    print(f"quotient of sums                     {sum(observed_ms) / sum(plain_ms):.3f}")
    print(f"observer's thread over the rest      {Spread.of(list(shares))}")
    if len(ratios) > 1:
        print(f"standard error of the mean quotient  {statistics.stdev(ratios) / len(ratios) ** 0.5:.3f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.observe", description=__doc__)
    parser.add_argument("--frames", type=int, default=8000)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    print(f"on the data path, per frame          {append_us():.2f} µs")
    for frames in (15, 150, 1000):
        print(f"on the observer's thread, per frame  {fold_us(frames):.2f} µs at {2 * frames} frames per second")
    report(*measure_with_shares(options.frames, options.repeats))


if __name__ == "__main__":
    main()
