"""Several instances and several models on one GPU, each with its own streams; the runner and the profile on CUDA."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from forebay_server.engines.build.runner import ModelRunner
from forebay_server.engines.clock import MonotonicClock
from tests.gpu.workload import open_workload, pictures, write
from tests.support.rig import BoundSlot

CLOCK = MonotonicClock()
ROWS, BATCHES = 4, 200


def test_instances_and_models_run_at_the_same_time_and_do_not_disturb_each_other(rig, tmp_path, measured):
    engines = []
    for index, width in enumerate((16, 16, 32)):
        folder = tmp_path / str(index)
        folder.mkdir()
        engines.append(open_workload(rig, folder, max_batch_size=ROWS, width=width))
    slots = [BoundSlot(rig, engine, 0) for engine in engines]
    for engine, slot in zip(engines, slots, strict=True):
        engine.warm_up((ROWS,), slot.compute)
    wanted = [slot.run([pictures(ROWS, seed)])[0] for seed, slot in enumerate(slots)]
    np.testing.assert_array_equal(slots[1].run([pictures(ROWS, 0)])[0], wanted[0])

    def work(seed, slot):
        rig.device.attach_thread()
        values = pictures(ROWS, seed)
        return all(np.array_equal(slot.run([values])[0], wanted[seed]) for _ in range(BATCHES))

    def rate(chosen):
        started_ns = CLOCK.now_ns()
        with ThreadPoolExecutor(len(chosen)) as pool:
            assert all(pool.map(lambda seed: work(seed, slots[seed]), chosen))
        return len(chosen) * BATCHES * ROWS * 1e9 / (CLOCK.now_ns() - started_ns)

    measured(f"one {rate([0]):.0f}/s, two instances {rate([0, 1]):.0f}/s, and another model {rate([0, 1, 2]):.0f}/s")


def test_a_model_loads_and_captures_while_another_serves(rig, tmp_path, measured):
    engine = open_workload(rig, tmp_path, max_batch_size=ROWS, width=16)
    slot = BoundSlot(rig, engine, 0)
    engine.warm_up((ROWS,), slot.compute)
    values = pictures(ROWS)
    wanted = slot.run([values])[0]
    is_over = []

    def serve():
        rig.device.attach_thread()
        longest_ns = 0
        while not is_over:
            started_ns = CLOCK.now_ns()
            np.testing.assert_array_equal(slot.run([values])[0], wanted)
            longest_ns = max(longest_ns, CLOCK.now_ns() - started_ns)
        return longest_ns

    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(serve)
        try:
            other = open_workload(rig, tmp_path, max_batch_size=ROWS, width=32)
            other_slot = BoundSlot(rig, other, 0)
            other.warm_up((1, 2, ROWS), other_slot.compute)
            other_slot.run([values])
        finally:
            is_over.append(True)
        longest_ms = serving.result(timeout=60) / 1e6
    measured(f"graphs {len(other._slots[0].graphs)}; longest batch meanwhile {longest_ms:.0f} ms")
    assert len(other._slots[0].graphs) == 3


def test_stages_are_timed_and_a_trace_is_written(tmp_path, measured):
    from forebay_server.engines.pytorch.profiling import write_trace

    values = pictures(8)
    with ModelRunner(write(tmp_path, width=32), "cuda") as runner:
        runner.warm_up((8,))
        times = [runner.run([values])[1] for _ in range(20)][-1]
        rows = write_trace(lambda: runner.run([values]), 5, tmp_path / "trace.json")
    measured(
        f"h2d {times.h2d_ns / 1000:.0f}, execute {times.execute_ns / 1000:.0f}, d2h {times.d2h_ns / 1000:.0f} us; "
        f"slowest: {rows[0][0][:40]} {rows[0][1]:.0f} us"
    )
    assert min(times.h2d_ns, times.execute_ns, times.d2h_ns) > 0
    assert (tmp_path / "trace.json").stat().st_size > 1000
