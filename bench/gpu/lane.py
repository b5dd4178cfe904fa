"""One engine alone, and the same engine behind the pipeline (h2d, execute, d2h) without gRPC and without a former.

Alone: executions back to back on one device stream, no copies. Behind the pipeline: a feeder keeps `depth` batches in
flight per instance, each row uploaded from a host buffer of its own, outputs brought back and copied out.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forebay_server.bench.gpu.devices import open_bench_device
from forebay_server.engines import open_engine
from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.device import Device, DeviceStream, HostBuffer
from forebay_server.engines.engine import Engine, SlotBuffers
from forebay_server.service.clock import MonotonicClock as ServiceClock
from forebay_server.service.journal.events import BatchEvent, Journal
from forebay_server.service.pipeline.builder import LaneContext, build_lane
from forebay_server.service.pipeline.pipeline import Pipeline
from forebay_server.service.request import Batch, Completion, Delivery, Request, StreamKey

CLOCK = MonotonicClock()
CREDIT_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Setup:
    """The lane to run.

    Attributes:
        network: name, for the report.
        path: exported program.
        device: `cuda` or `cpu`.
        rows: of every batch.
        depth: batches in flight per instance, not yet out of d2h.
        is_pinned: host memory that the GPU copies from by itself; else plain memory.
        has_graphs: one CUDA graph per batch size, or plain launches.
        instances: engines with lanes of their own.
        gpus: over which the instances are dealt out.
        seconds: of measurement, about.
    """

    network: str
    path: Path
    device: str
    rows: int
    depth: int = 2
    is_pinned: bool = True
    has_graphs: bool = True
    instances: int = 1
    gpus: int = 1
    seconds: float = 1.0

    @property
    def facts(self) -> dict[str, Any]:
        """The report of a run."""
        return {name: value for name, value in asdict(self).items() if name not in {"path", "seconds"}}


class _Frame:
    """A frame buffer that is never given back."""

    offsets = (0,)
    is_released = False

    def __init__(self, host: HostBuffer) -> None:
        self.host = host

    def release(self) -> None:
        """Stay."""


class _Listener:
    """Gives the feeder a credit for each batch that has left its slot."""

    def __init__(self, lanes: int, depth: int) -> None:
        self.credits = deque(lane for _ in range(depth) for lane in range(lanes))
        self.free = threading.Semaphore(lanes * depth)

    def compute_ended(self, batch: Batch, ended_ns: int, h2d_ns: int, execute_ns: int) -> None:
        """Nothing to predict."""

    def slot_freed(self, lane_index: int, slot_index: int, d2h_ns: int) -> None:  # noqa: ARG002
        """Let the next batch go to this lane."""
        self.credits.append(lane_index)
        self.free.release()

    def arrive(self, request: Request) -> None:
        """A retry: the run is void."""
        raise RuntimeError(f"request {request.id} failed and came back")

    def take(self) -> int:
        """Wait for a credit and return its lane."""
        if not self.free.acquire(timeout=CREDIT_TIMEOUT_S):
            raise RuntimeError("the pipeline stands still")
        return self.credits.popleft()


def measure_alone(setup: Setup) -> dict[str, Any]:
    """Return rows per second back to back, and the time of one batch at a time, launch and wait included."""
    with ExitStack() as stack:
        device = open_bench_device(setup.device, is_pinned=True)
        stack.callback(device.close)
        stream = device.create_stream("compute")
        stack.callback(stream.close)
        engine = warm_engine(setup, device, stream, stack)

        def run(count: int) -> float:
            started_ns = CLOCK.now_ns()
            for _ in range(count):
                engine.enqueue(0, setup.rows, stream)
            stream.sync()
            return (CLOCK.now_ns() - started_ns) / 1e9

        run(3)
        count = _count(setup, run(5) / 5)
        elapsed_s = run(count)
        singles_ms = np.asarray([run(1) * 1e3 for _ in range(min(count, 300))])
        return {
            "rows_per_s": count * setup.rows / elapsed_s,
            "batch_ms": elapsed_s / count * 1e3,
            "single_p50_ms": float(np.quantile(singles_ms, 0.5)),
            "single_p99_ms": float(np.quantile(singles_ms, 0.99)),
        }


def warm_engine(setup: Setup, device: Device, stream: DeviceStream, stack: ExitStack) -> Engine:
    """Open an engine, bind one slot and warm it up; `stack` closes it."""
    engine = _open(setup, device, stack)
    engine.bind(_slot(engine, device, stack))
    engine.warm_up((setup.rows,), stream)
    return engine


def _open(setup: Setup, device: Device, stack: ExitStack) -> Engine:
    options = {"cuda_graphs": "on" if setup.has_graphs else "off"}
    engine = open_engine(
        "torch", model_path=setup.path, device=device, clock=CLOCK, options=options, max_batch_size=setup.rows
    )
    stack.callback(engine.close)
    return engine


def _slot(engine: Engine, device: Device, stack: ExitStack) -> SlotBuffers:
    def buffers(sizes: Sequence[int]) -> list[Any]:
        made = []
        for size in sizes:
            host = device.alloc_host(size)
            stack.callback(host.close)
            made.append(device.alloc_device(size, host))
            stack.callback(made[-1].close)
        return made

    specs, rows = engine.specs, engine.specs.max_batch_size
    inputs = buffers([spec.row_bytes * rows for spec in specs.inputs])
    return SlotBuffers(0, tuple(inputs), tuple(buffers([spec.row_bytes * rows for spec in specs.outputs])))


def _count(setup: Setup, batch_s: float) -> int:
    return max(6, min(4000, int(setup.seconds / max(batch_s, 1e-6))))


def measure_lane(setup: Setup, batch_s: float) -> tuple[dict[str, Any], list[BatchEvent]]:
    """Return rates, latencies, idle share, overlap and host CPU, and the batches as they ran.

    Args:
        setup: the lane to run.
        batch_s: seconds of one batch of the engine alone, to choose how many to run.
    """
    journal, errors = Journal(), list[BaseException]()
    count = _count(setup, batch_s) * setup.instances
    warm = max(3, count // 5)
    with ExitStack() as stack:
        lanes, requests = [], []
        devices = [
            open_bench_device(setup.device, is_pinned=setup.is_pinned, index=index % _gpu_count(setup))
            for index in range(setup.gpus)
        ]
        for device in devices:
            stack.callback(device.close)
        for index in range(setup.instances):
            device = devices[index % setup.gpus]
            device.attach_thread()
            lanes.append(_lane(setup, index, device, journal, errors))
            stack.callback(_close, lanes[-1])
            lanes[-1].warm_up((setup.rows,))
            requests.append(_requests(lanes[-1].engine, device, setup.rows, stack))
        listener = _Listener(setup.instances, setup.depth)
        for lane in lanes:
            lane.start(listener)
        _feed(lanes, listener, requests, warm)
        cpu_ns = _feed(lanes, listener, requests, count, after=time.process_time_ns)
        _ = [listener.take() for _ in range(setup.depth * setup.instances)]  # all have come back
    if errors:
        raise errors[0]
    batches = sorted(list(journal.batches)[warm:], key=lambda batch: batch.execute_end_ns)
    return summarise(batches, setup.rows, cpu_ns / count, setup.instances), batches


def _gpu_count(setup: Setup) -> int:
    """A dry run has one CPU, however many GPUs it plays."""
    return setup.gpus if setup.device == "cuda" else 1


def _close(lane: Pipeline) -> None:
    if not lane.close(CLOSE_TIMEOUT_S):
        raise RuntimeError("a stage did not end")


def _lane(setup: Setup, index: int, device: Device, journal: Journal, errors: list[BaseException]) -> Pipeline:
    def finish(completions: Sequence[Completion]) -> None:
        errors.extend(c.error for c in completions if c.error is not None)

    with ExitStack() as stack:
        engine = _open(setup, device, stack)
        context = LaneContext(ServiceClock(), "1", finish, errors.append, journal=journal)
        lane = build_lane(index, f"bench.{index}", device, engine, context)
        stack.pop_all()
    return lane


def _requests(engine: Engine, device: Device, rows: int, stack: ExitStack) -> list[Request]:
    stream, random = StreamKey("bench", Delivery.EVERY), np.random.default_rng(7)
    requests = []
    for index in range(rows):
        host = device.alloc_host(engine.specs.inputs[0].row_bytes)
        stack.callback(host.close)
        host.write_view()[:] = random.integers(0, 256, host.nbytes).astype(np.uint8)
        requests.append(Request(index, stream, 1, "key", None, 0, 1, _Frame(host), lambda _: None))
    return requests


def _feed(
    lanes: list[Pipeline],
    listener: _Listener,
    requests: list[list[Request]],
    count: int,
    after: Callable[[], int] = lambda: 0,
) -> int:
    """Send so many batches, to each lane its own requests; return by how much `after` rose meanwhile."""
    before = after()
    for number in range(count):
        index = listener.take()
        slot_index = lanes[index].try_reserve()
        if slot_index is None:
            raise RuntimeError("a credit without a slot")
        own = requests[index]
        lanes[index].submit(Batch(number, index, slot_index, own, len(own), len(own), CLOCK.now_ns()))
    return after() - before


def summarise(batches: list[BatchEvent], rows: int, cpu_ns: float, instances: int) -> dict[str, Any]:
    """Return what the batches say, in the order in which they ended."""
    first, last = batches[0], batches[-1]
    span_ns = last.execute_end_ns - first.execute_end_ns
    executes = np.asarray([b.execute_end_ns - b.execute_start_ns for b in batches[1:]])
    latencies_ms = np.asarray([b.download_end_ns - b.formed_ns for b in batches]) / 1e6
    return {
        "rows_per_s": (len(batches) - 1) * rows * 1e9 / span_ns,
        "p50_ms": float(np.quantile(latencies_ms, 0.5)),
        "p99_ms": float(np.quantile(latencies_ms, 0.99)),
        "execute_ms": float(np.median(executes)) / 1e6,
        "h2d_ms": float(np.median([b.upload_end_ns - b.upload_start_ns for b in batches])) / 1e6,
        "d2h_ms": float(np.median([b.download_end_ns - b.download_start_ns for b in batches])) / 1e6,
        "idle_share": float(max(0.0, 1 - executes.sum() / span_ns)) if instances == 1 else None,
        "overlap_share": overlap(batches),
        "host_cpu_ms_per_batch": cpu_ns / 1e6,
        "batches": len(batches),
    }


def overlap(batches: list[BatchEvent]) -> float:
    """Return which share of all copying happened while some batch was executing."""
    executions = sorted((b.execute_start_ns, b.execute_end_ns) for b in batches)
    copies = [(b.upload_start_ns, b.upload_end_ns) for b in batches]
    copies += [(b.download_start_ns, b.download_end_ns) for b in batches]
    starts = np.asarray([start for start, _ in executions])
    ends = np.maximum.accumulate(np.asarray([end for _, end in executions]))
    starts[1:] = np.maximum(starts[1:], ends[:-1])  # of several instances: time counts once
    ends = np.maximum(starts, ends)
    copied = covered = 0
    for start, end in copies:
        low, high = np.searchsorted(ends, start), np.searchsorted(starts, end)
        covered += int(np.clip(np.minimum(ends[low:high], end) - np.maximum(starts[low:high], start), 0, None).sum())
        copied += max(0, end - start)
    return covered / max(1, copied)
