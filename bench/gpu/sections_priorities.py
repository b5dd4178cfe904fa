"""The section on priorities: a small model while another one keeps the GPU busy, on the device alone and served."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, TypeAlias

import numpy as np

from forebay_server.bench.gpu.devices import open_bench_device
from forebay_server.bench.gpu.lane import Setup, warm_engine
from forebay_server.bench.gpu.loads import (
    CLIENT_START_S,
    Load,
    ServedModel,
    cameras_load,
    requests_load,
    write_payloads,
)
from forebay_server.bench.gpu.numbers import middle
from forebay_server.bench.gpu.plan import Plan
from forebay_server.bench.gpu.server import SIDES, ServedNetwork, gpu_server
from forebay_server.engines.device import Device, StreamPriority

Facts: TypeAlias = dict[str, Any]
CAMERAS, BULK = "cameras", "bulk"
ARRANGEMENTS = {
    "one priority": ("", ""),
    "cameras PRIORITY_MAX": ("PRIORITY_MAX", ""),
    "cameras PRIORITY_MAX, bulk PRIORITY_MIN": ("PRIORITY_MAX", "PRIORITY_MIN"),
}
"""Priorities of the cameras' model and of the other."""
_ON_DEVICE = {"": StreamPriority.NORMAL, "PRIORITY_MAX": StreamPriority.HIGH, "PRIORITY_MIN": StreamPriority.LOW}
EXECUTIONS = 200
PAUSE_S = 0.003


def priorities(plan: Plan) -> Iterator[Facts]:
    """One row of the detector beside batches of another network, without a server; then eight cameras, served."""
    rows, bulk_network = plan.batch_sizes[-1], plan.networks[-1]
    yield {"way": "device", "arrangement": "alone"} | _on_device(plan, StreamPriority.NORMAL, None)
    for name, (of_cameras, of_bulk) in ARRANGEMENTS.items():
        found = _on_device(plan, _ON_DEVICE[of_cameras], _ON_DEVICE[of_bulk])
        yield {"way": "device", "arrangement": name} | found
    payloads = write_payloads(plan)
    crowd = min(8, plan.cameras[-1])
    for name, (of_cameras, of_bulk) in ARRANGEMENTS.items():
        models = {
            CAMERAS: ServedNetwork(plan.detector, rows, priority=of_cameras),
            BULK: ServedNetwork(bulk_network, rows, priority=of_bulk),
        }
        with gpu_server(plan, models) as server, ThreadPoolExecutor(1) as pool:
            cameras = cameras_load(ServedModel([server], CAMERAS, payloads[plan.detector]), 1, crowd, "every")
            bulk = requests_load(ServedModel([server], BULK, payloads[bulk_network]), 2, 2, rows, SIDES[bulk_network])
            facts: Facts = {"way": "served", "cameras": crowd}
            cameras(CLIENT_START_S)  # the first batches of every size pay for caches
            bulk(CLIENT_START_S)
            if name == next(iter(ARRANGEMENTS)):
                runs = [cameras(plan.camera_seconds) for _ in range(plan.repeats)]
                yield facts | {"arrangement": "alone", "of_cameras": middle(runs)}
            both = [_beside(pool, cameras, bulk, plan.camera_seconds) for _ in range(plan.repeats)]
            seen, moved = (middle(list(runs)) for runs in zip(*both, strict=True))
            yield facts | {"arrangement": name, "of_cameras": seen, "of_bulk": moved}


def _beside(pool: ThreadPoolExecutor, cameras: Load, bulk: Load, seconds: float) -> tuple[Facts, Facts]:
    """Run the cameras while the other load goes on, which begins before them and ends after them."""
    running = pool.submit(bulk, seconds + 2 * CLIENT_START_S)
    return cameras(seconds), running.result()


def _on_device(plan: Plan, of_one: StreamPriority, of_bulk: StreamPriority | None) -> Facts:
    """Return how long single rows take, by device events, while two batches of the other network are always queued."""
    detector, network = plan.detector, plan.networks[-1]
    with ExitStack() as stack:
        device = open_bench_device(plan.device, is_pinned=True)
        stack.callback(device.close)
        stream = device.create_stream("one", priority=of_one)
        stack.callback(stream.close)
        engine = warm_engine(Setup(detector, plan.path(detector), plan.device, 1), device, stream, stack)
        before, after = device.create_event(), device.create_event()
        stack.callback(before.close)
        stack.callback(after.close)
        if of_bulk is not None:
            setup = Setup(network, plan.path(network), plan.device, plan.batch_sizes[-1])
            stack.enter_context(_Bulk(setup, device, of_bulk))
        taken_ms, wait = [], threading.Event()
        for _ in range(EXECUTIONS):
            wait.wait(PAUSE_S)
            stream.record(before)
            engine.enqueue(0, 1, stream)
            stream.record(after)
            after.sync()
            taken_ms.append(after.elapsed_ns(before) / 1e6)
    p50_ms, p99_ms = np.quantile(taken_ms[EXECUTIONS // 10 :], (0.5, 0.99))
    return {"of_cameras": {"p50_ms": float(p50_ms), "p99_ms": float(p99_ms)}}


class _Bulk:
    """A thread that keeps two batches of a network on a device stream of its own."""

    def __init__(self, setup: Setup, device: Device, priority: StreamPriority) -> None:
        self._setup, self._device, self._priority = setup, device, priority
        self._is_warm, self._is_over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="bulk")

    def __enter__(self) -> "_Bulk":
        self._thread.start()
        self._is_warm.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        device = self._device
        device.attach_thread()
        with ExitStack() as stack:
            stack.callback(self._is_warm.set)  # so that no thread waits for ever after a failure
            stream = device.create_stream("bulk", priority=self._priority)
            stack.callback(stream.close)
            engine = warm_engine(self._setup, device, stream, stack)
            ended = [device.create_event() for _ in range(2)]
            for event in ended:
                stack.callback(event.close)
                stream.record(event)
            self._is_warm.set()
            while not self._is_over.is_set():
                for event in ended:
                    event.sync()
                    engine.enqueue(0, self._setup.rows, stream)
                    stream.record(event)
            stream.sync()
