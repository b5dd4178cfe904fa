"""The simulated engine beyond the contract: its cost, its failures, its declared accesses, its options."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.engines import open_device
from forebay_server.engines.engine_simulated import checksum
from forebay_server.engines.errors import ExecutionError, MisuseError, ModelFileError, RaceError
from tests.support.clock import ManualClock
from tests.support.rig import BoundSlot, Rig
from tests.support.virtual_clock import VirtualClock


def open_simulated(clock, kind="cpu", limit=None, **options):
    rig = Rig(open_device(kind, clock=clock))
    options = {"input_bytes": "64", **{key: str(value) for key, value in options.items()}}
    return rig, rig.open_engine("simulated", None, options=options, max_batch_size=limit, clock=clock)


def test_on_the_cpu_it_blocks_for_alpha_plus_beta_per_row():
    clock = ManualClock()
    rig, engine = open_simulated(clock, alpha_ms=3, beta_ms=0.5)
    slot = BoundSlot(rig, engine, 0)
    with ThreadPoolExecutor(1) as pool:
        enqueued = pool.submit(engine.enqueue, 0, 4, slot.compute)
        clock.wait_for_sleeper(clock.now_ns() + 5_000_000)
        assert not enqueued.done()
        clock.advance(5_000_000)
        enqueued.result()


def test_on_the_simulated_device_it_costs_device_time_and_never_blocks():
    clock = VirtualClock()
    rig, engine = open_simulated(clock, "simulated", alpha_ms=3, beta_ms=0.5)
    slot = BoundSlot(rig, engine, 0)
    slot.compute.record(slot.uploaded)
    started_ns = clock.now_ns()
    engine.enqueue(0, 4, slot.compute)
    slot.compute.record(slot.executed)
    assert clock.now_ns() == started_ns
    slot.executed.sync()
    assert slot.executed.elapsed_ns(slot.uploaded) == 5_000_000


def test_its_executions_on_two_streams_must_be_ordered():
    rig, engine = open_simulated(VirtualClock(), "simulated")
    slots = [BoundSlot(rig, engine, index) for index in range(2)]
    engine.enqueue(0, 1, slots[0].compute)
    with pytest.raises(RaceError, match="activation memory"):
        engine.enqueue(1, 1, slots[1].compute)


def test_two_instances_do_not_share_activation_memory():
    clock = VirtualClock()
    rig, first = open_simulated(clock, "simulated")
    second = rig.open_engine("simulated", None, clock=clock)
    slots = [BoundSlot(rig, engine, 0) for engine in (first, second)]
    first.enqueue(0, 1, slots[0].compute)
    second.enqueue(0, 1, slots[1].compute)


def test_it_declares_only_the_rows_of_the_batch():
    rig, engine = open_simulated(VirtualClock(), "simulated", limit=4)
    slot = BoundSlot(rig, engine, 0)
    engine.enqueue(0, 2, slot.compute)
    slot.h2d.copy_h2d(slot.buffers.inputs[0], slot.host_in[0], 128, dst_offset=128)
    with pytest.raises(RaceError):
        slot.h2d.copy_h2d(slot.buffers.inputs[0], slot.host_in[0], 64, dst_offset=64)


def test_every_so_many_th_execution_fails():
    rig, engine = open_simulated(VirtualClock(), fail_every=3)
    slot = BoundSlot(rig, engine, 0)
    outcomes = []
    for _ in range(6):
        try:
            engine.enqueue(0, 1, slot.compute)
            outcomes.append("ok")
        except ExecutionError:
            outcomes.append("failed")
    assert outcomes == ["ok", "ok", "failed"] * 2


def test_a_free_engine_never_looks_at_the_clock():
    class BrokenClock(VirtualClock):
        def now_ns(self):
            raise AssertionError

    rig, engine = open_simulated(BrokenClock())
    slot = BoundSlot(rig, engine, 0)
    engine.enqueue(0, 1, slot.compute)


def test_jitter_is_bounded_and_repeats_with_its_seed():
    def costs(seed):
        clock = VirtualClock()
        rig, engine = open_simulated(clock, alpha_ms=1, jitter_ms=0.5, jitter_seed=seed)
        slot = BoundSlot(rig, engine, 0)
        for _ in range(20):
            started_ns = clock.now_ns()
            engine.enqueue(0, 1, slot.compute)
            yield clock.now_ns() - started_ns

    first = list(costs(1))
    assert first == list(costs(1))
    assert first != list(costs(2))
    assert all(1_000_000 <= cost_ns < 1_500_000 for cost_ns in first)


@given(st.binary(min_size=1, max_size=200), st.integers(0, 199), st.integers(1, 255))
def test_the_checksum_depends_on_every_byte(data, position, change):
    position %= len(data)
    rows = np.frombuffer(data + data, np.uint8).reshape(2, -1).copy()
    rows[1, position] ^= change
    sums = np.zeros(2, np.uint64)
    checksum(rows, sums)
    assert sums[0] != sums[1]


@pytest.mark.parametrize(
    ("options", "limit", "shape", "dtype", "output", "rows"),
    [
        ({}, None, (64,), np.uint8, ("checksum", (1,)), 32),
        ({"input_shape": "3,4", "output": "copy"}, None, (3, 4), np.uint8, ("output", (3, 4)), 32),
        ({"datatype": "FP32"}, 8, (16,), np.float32, ("checksum", (1,)), 8),
        ({"max_batch_size": 5}, None, (64,), np.uint8, ("checksum", (1,)), 5),
        ({"max_batch_size": 5}, 6, (64,), np.uint8, ("checksum", (1,)), 6),
    ],
)
def test_options_shape_the_specs(options, limit, shape, dtype, output, rows):
    _, engine = open_simulated(VirtualClock(), limit=limit, **options)
    specs = engine.specs
    assert (specs.inputs[0].shape, specs.inputs[0].dtype) == (shape, np.dtype(dtype))
    assert (specs.outputs[0].name, specs.outputs[0].shape) == output
    assert specs.max_batch_size == rows
    assert specs.has_batch_dimension


def test_a_model_without_a_batch_dimension_has_batches_of_one():
    _, engine = open_simulated(VirtualClock(), limit=0)
    assert (engine.specs.max_batch_size, engine.specs.has_batch_dimension) == (1, False)


def test_bytes_that_are_no_whole_number_of_elements_are_refused():
    with pytest.raises(ModelFileError, match="input_bytes 63"):
        open_simulated(VirtualClock(), input_bytes=63, datatype="FP32")


def test_a_buffer_that_is_too_small_is_refused():
    rig, engine = open_simulated(VirtualClock(), limit=2)
    slot = BoundSlot(rig, engine, 0)
    small = type(slot.buffers)(1, (rig.on_device(127),), slot.buffers.outputs)
    with pytest.raises(MisuseError, match="'input' needs 128 bytes"):
        engine.bind(small)
