"""Runs a batching workload with the real former thread and a real clock, on the simulated executor.

The load comes from a process of its own (`bench.trace_sender`), whose timers are the probe: a run in which their p99
lag exceeds 1 ms says nothing about the former and is marked void. Requests are made before the clock starts, and the
garbage collector rests while it runs.
"""

import contextlib
import gc
import subprocess
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from forebay_server.bench.batching_workloads import Workload
from forebay_server.bench.real_lane import RealLane
from forebay_server.bench.trace_sender import END, READY, WORD
from forebay_server.bench.virtual_time import NOT_YET_NS, cost_of
from forebay_server.service.batching.former import BatchFormer
from forebay_server.service.batching.settings import BatchingSettings
from forebay_server.service.clock import MonotonicClock
from forebay_server.service.request import Batch, Completion, FrameBuffer, Request, StreamKey
from forebay_server.service.tuning import SWITCH_INTERVAL_S

LARGEST_LAG_NS = 1_000_000
PERMITS = 20_000
START_AFTER_NS = 50_000_000
DRAIN_NS = 5_000_000_000
READ_BYTES = 1 << 16
_FRAME = cast("FrameBuffer", SimpleNamespace(release=lambda: None))


@dataclass(slots=True)
class RealRun:
    """The outcome of a trace on a real clock. `finished_ns` counts from the start of the trace."""

    finished_ns: NDArray[np.int64]
    batch_rows: list[int] = field(default_factory=list)
    timer_lag_p99_ms: float = 0.0

    @property
    def is_void(self) -> bool:
        """Whether the machine was too busy for the numbers to mean anything."""
        return self.timer_lag_p99_ms * 1e6 > LARGEST_LAG_NS


class _Sink:
    def post(self, completions: Sequence[Completion]) -> None:
        """Requests that were not executed keep their place in `finished_ns` at -1."""


def run_real(workload: Workload, settings: BatchingSettings, *, seed: int = 1) -> RealRun:
    """Run `workload` in real time. Blocks: as long as the trace is. Thread: main, since it tunes the interpreter."""
    clock = MonotonicClock()
    run = RealRun(np.full(len(workload.arrivals_ns), NOT_YET_NS))
    finished: list[tuple[Batch, int]] = []
    errors: list[BaseException] = []
    start_ns = clock.now_ns()
    slowdown = workload.slowdown
    lane = RealLane(
        workload.executor,
        clock,
        lambda batch, now_ns: finished.append((batch, now_ns)),
        seed=seed,
        slowdown=None if slowdown is None else lambda now_ns: slowdown(now_ns - start_ns),
    )
    former = BatchFormer("bench", [lane], cost_of(workload.executor), settings, clock, _Sink(), PERMITS, errors.append)
    lane.listener = former
    lane.egress_time = former.egress_time
    with _sender(workload) as (trace_in, trace_out):
        requests = _requests(workload)
        with _tuned_interpreter():
            lane.start()
            former.start()
            try:
                start_ns = clock.now_ns() + START_AFTER_NS
                _start(requests, start_ns)
                trace_in.write(array("q", [start_ns]).tobytes())
                lags = _receive(trace_out, requests, former)
                former.drain(clock.now_ns() + DRAIN_NS)
            finally:
                former.stop()
                former.join()
                lane.close()
    lags_ns = np.frombuffer(lags, np.int64)
    if errors:
        raise errors[0]
    for batch, now_ns in finished:
        run.batch_rows.append(batch.rows)
        run.finished_ns[[request.id for request in batch.requests]] = now_ns - start_ns
    run.timer_lag_p99_ms = float(np.percentile(lags_ns, 99) / 1e6) if lags_ns.size else 0.0
    return run


def _requests(workload: Workload) -> list[Request]:
    """Make every request of the trace; ids are positions, and instants count from 0."""
    streams = {stream: StreamKey(str(stream), workload.delivery) for stream in np.unique(workload.streams).tolist()}
    trace = zip(workload.arrivals_ns.tolist(), workload.budgets_ns.tolist(), workload.streams.tolist(), strict=True)
    return [
        Request(position, streams[stream], 1, None, arrival_ns + budget_ns, arrival_ns, 1, _FRAME, _end)
        for position, (arrival_ns, budget_ns, stream) in enumerate(trace)
    ]


def _end(_: Completion) -> None:
    """Count the requests that the lane finished."""


def _start(requests: list[Request], start_ns: int) -> None:
    """Let the trace begin at `start_ns`."""
    for request in requests:
        request.arrival_ns += start_ns
        if request.deadline_ns is not None:
            request.deadline_ns += start_ns


@contextlib.contextmanager
def _tuned_interpreter() -> Iterator[None]:
    """Threads take turns as in the service, and no collection stops them all."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
        sys.setswitchinterval(interval_s)


@contextlib.contextmanager
def _sender(workload: Workload) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Start the sender and give it the trace; yield its two ends once it is ready."""
    command = [sys.executable, "-m", "forebay_server.bench.trace_sender"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:  # noqa: S603
        try:
            trace_in, trace_out = process.stdin, process.stdout
            if trace_in is None or trace_out is None:
                raise RuntimeError("the sender has no pipes")
            arrivals = array("q", [len(workload.arrivals_ns), *workload.arrivals_ns.tolist()])
            _write_all(trace_in, arrivals.tobytes())
            if trace_out.read(WORD) != array("I", [READY]).tobytes():
                raise RuntimeError("the sender of the trace did not start")
            yield trace_in, trace_out
        finally:
            if process.poll() is None:
                process.kill()


def _write_all(sink: IO[bytes], data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[sink.write(left) :]


def _receive(trace: IO[bytes], requests: list[Request], former: BatchFormer) -> bytes:
    """Hand every request to the former when its position comes, as a session does; return what follows the last."""
    data = b""
    while chunk := trace.read(READ_BYTES):
        data += chunk
        whole = len(data) - len(data) % WORD
        for number, position in enumerate(memoryview(data)[:whole].cast("I")):
            if position == END:
                return data[(number + 1) * WORD :] + trace.read()
            former.arrive(requests[position])
        data = data[whole:]
    raise RuntimeError("the sender of the trace died")
