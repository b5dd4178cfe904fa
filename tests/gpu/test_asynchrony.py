"""Operations that overlap, calls that return at once, and waits that do not spin."""

import statistics
import sys
import threading
import time
from contextlib import contextmanager, nullcontext

import pytest

from forebay_server.engines.clock import MonotonicClock
from forebay_server.service.tuning import SWITCH_INTERVAL_S
from tests.gpu.workload import open_workload, torch
from tests.support.rig import BoundSlot

CLOCK = MonotonicClock()
LONG_MS = 100


def hold(stream, milliseconds):
    """Keep a device stream busy for about so long."""
    cycles = int(milliseconds * 1.75e6)  # an H100 runs at up to 1.98 GHz
    with torch.cuda.stream(torch.cuda.ExternalStream(stream.handle)):
        torch.cuda._sleep(cycles)


@contextmanager
def busy_thread():
    """Another thread that never lets go of the interpreter's lock by itself, as often as it has to in the server."""
    is_over = threading.Event()

    def spin():
        while not is_over.is_set():
            sum(range(1000))

    thread, interval_s = threading.Thread(target=spin), sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        sys.setswitchinterval(interval_s)


def bandwidth(rig, copy, nbytes, repeats=8):
    """Return GB/s of `copy(stream)` by device events."""
    stream, first, last = rig.stream(), rig.event(), rig.event()
    copy(stream)
    stream.record(first)
    for _ in range(repeats):
        copy(stream)
    stream.record(last)
    last.sync()
    return repeats * nbytes / last.elapsed_ns(first)


def test_pinned_memory_copies_at_the_bus_speed(rig, measured):
    nbytes = 64 << 20
    host, device = rig.host(nbytes), rig.on_device(nbytes)
    up = bandwidth(rig, lambda stream: stream.copy_h2d(device, host, nbytes), nbytes)
    down = bandwidth(rig, lambda stream: stream.copy_d2h(host, device, nbytes), nbytes)
    measured(f"h2d {up:.1f} GB/s, d2h {down:.1f} GB/s")
    assert min(up, down) > 1


def test_what_an_enqueue_costs_the_host(rig, measured):
    host, device, stream, event = rig.host(1 << 20), rig.on_device(1 << 20), rig.stream(), rig.event()

    def cost_us(call, repeats=2000):
        call()
        stream.sync()
        started_ns = CLOCK.now_ns()
        for index in range(repeats):
            call()
            if index % 200 == 199:
                stream.sync()
        return (CLOCK.now_ns() - started_ns) / repeats / 1000

    costs = {
        f"copy {size >> 10} KiB": cost_us(lambda n=size: stream.copy_h2d(device, host, n)) for size in (4096, 65536)
    }
    costs["record"] = cost_us(lambda: stream.record(event))
    costs["wait"] = cost_us(lambda: stream.wait(event))
    source = bytes(1 << 20)
    view = host.write_view()
    for size in (16384, 65536, 262144):
        costs[f"memcpy {size >> 10} KiB"] = cost_us(lambda n=size: view.data.__setitem__(slice(0, n), source[:n]))
    measured(", ".join(f"{name} {value:.1f} us" for name, value in costs.items()))


@pytest.mark.parametrize("is_busy", [False, True])
def test_many_uploads_in_one_call_cost_the_host_less_than_one_call_each(rig, measured, is_busy):
    rows, nbytes = 32, 65536
    frames, device, stream = [rig.host(nbytes) for _ in range(rows)], rig.on_device(rows * nbytes), rig.stream()
    if rig.device.batched_copy is None:
        pytest.skip("the driver or the binding knows single copies only")
    pieces = [(frame, 0, nbytes) for frame in frames]
    ways = {"each": lambda: [stream.gather_h2d(device, [piece]) for piece in pieces]}
    ways["one call"] = lambda: stream.gather_h2d(device, pieces)
    took_us = {name: [] for name in ways}
    with busy_thread() if is_busy else nullcontext():
        for _ in range(50):
            for name, way in ways.items():
                started_ns = CLOCK.now_ns()
                way()
                took_us[name].append((CLOCK.now_ns() - started_ns) / 1000)
                stream.sync()
    medians = {name: statistics.median(values) for name, values in took_us.items()}
    neighbour = "next to a busy thread" if is_busy else "alone"
    measured(f"{rows} uploads {neighbour}: " + ", ".join(f"{name} {us:.0f} us" for name, us in medians.items()))
    assert medians["one call"] < medians["each"]


def test_nothing_that_the_pipeline_enqueues_waits_for_running_work(rig, tmp_path, measured):
    engine = open_workload(rig, tmp_path)
    slots = [BoundSlot(rig, engine, index) for index in range(2)]
    engine.warm_up((8,), slots[0].compute)
    compute, uploaded, executed = slots[0].compute, rig.event(), rig.event()
    host, slot = slots[0].host_in[0], slots[0]
    hold(compute, LONG_MS)
    started_ns = CLOCK.now_ns()
    for _ in range(20):
        slot.h2d.copy_h2d(slot.buffers.inputs[0], host, host.nbytes)
        slot.h2d.record(uploaded)
        compute.wait(uploaded)
        engine.enqueue(0, 8, compute)
        compute.record(executed)
        slot.d2h.wait(executed)
        slot.d2h.copy_d2h(slot.host_out[0], engine.outputs(0, 8)[0], slot.host_out[0].nbytes)
    took_ms = (CLOCK.now_ns() - started_ns) / 1e6
    was_done = executed.is_done
    slot.d2h.sync()
    measured(f"20 batches enqueued in {took_ms:.1f} ms behind a kernel of {LONG_MS} ms")
    assert not was_done
    assert took_ms < LONG_MS / 2


def test_the_upload_of_the_next_batch_runs_under_the_execution_of_this_one(rig, measured):
    nbytes = 64 << 20
    host, device = rig.host(nbytes), rig.on_device(nbytes)
    h2d, compute = rig.stream("h2d"), rig.stream("compute")
    begun, copied, executed = rig.event(), rig.event(), rig.event()
    compute.record(begun)
    hold(compute, LONG_MS)
    compute.record(executed)
    h2d.copy_h2d(device, host, nbytes)
    h2d.record(copied)
    copied.sync()
    was_running = not executed.is_done
    executed.sync()
    copied_ms, executed_ms = copied.elapsed_ns(begun) / 1e6, executed.elapsed_ns(begun) / 1e6
    measured(f"64 MiB copied {copied_ms:.1f} ms after a kernel of {executed_ms:.1f} ms began")
    assert was_running
    assert copied_ms < executed_ms / 2


def test_waiting_for_an_event_does_not_spin(rig, measured):
    stream, event = rig.stream(), rig.event()
    hold(stream, LONG_MS)
    stream.record(event)
    cpu_before, started_ns = time.thread_time_ns(), CLOCK.now_ns()
    event.sync()
    cpu_ms, took_ms = (time.thread_time_ns() - cpu_before) / 1e6, (CLOCK.now_ns() - started_ns) / 1e6
    measured(f"{cpu_ms:.2f} ms of CPU in {took_ms:.1f} ms of waiting")
    assert cpu_ms < took_ms / 5


@pytest.mark.parametrize("cuda_graphs", ["on", "off"])
def test_what_an_execution_costs_the_host(rig, tmp_path, measured, cuda_graphs):
    engine = open_workload(rig, tmp_path, options={"cuda_graphs": cuda_graphs}, width=8)
    slot = BoundSlot(rig, engine, 0)
    engine.warm_up((1,), slot.compute)
    repeats = 200
    started_ns = CLOCK.now_ns()
    for _ in range(repeats):
        engine.enqueue(0, 1, slot.compute)
    took_us = (CLOCK.now_ns() - started_ns) / repeats / 1000
    slot.compute.sync()
    whole_us = (CLOCK.now_ns() - started_ns) / repeats / 1000
    measured(f"enqueue {took_us:.1f} us, whole {whole_us:.1f} us a batch of 1")
