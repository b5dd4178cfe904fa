"""The engine contract (engines/engine.py), run against every engine and device. To add one, add an EngineCase."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from forebay_server.engines import open_device
from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.engine import Engine
from forebay_server.engines.errors import BackendUnavailableError, MisuseError, ModelFileError
from tests.support import models, passing_models
from tests.support.dirt import PATTERNS
from tests.support.rig import BoundSlot, Rig, random_rows, rig_of

Oracle = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


@dataclass(frozen=True)
class EngineCase:
    """One engine on one device with one model, and the expected outputs of that model.

    `write_model` writes the model file into a folder and returns its path, or None for an engine without a file.
    """

    name: str
    backend: str
    device: str
    oracle: Oracle
    write_model: Callable[[Path], Path | None] = lambda _: None
    options: dict[str, str] = field(default_factory=dict)
    max_batch_size: int | None = 4
    tolerance: float = 0.0
    is_gpu: bool = False

    def open(self, rig: Rig, folder: Path) -> Engine:
        """Write the model into `folder` and open it."""
        model_path = self.write_model(folder)
        return rig.open_engine(self.backend, model_path, options=self.options, max_batch_size=self.max_batch_size)

    @property
    def param(self):
        return pytest.param(self, id=self.name, marks=[pytest.mark.gpu] if self.is_gpu else [])


def onnx_case(name: str, model: onnx.ModelProto, **settings) -> EngineCase:
    return EngineCase(
        name=f"onnxruntime-cpu-{name}",
        backend="onnxruntime",
        device="cpu",
        oracle=lambda inputs: models.reference(model, inputs),
        write_model=lambda folder: models.save(model, folder / "model.onnx"),
        **settings,
    )


def xor_of_words(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The simulated engine's checksum, spelled out."""
    sums = []
    for row in inputs[0]:
        data = row.tobytes()
        data += bytes(-len(data) % 8)
        total = 0
        for position in range(0, len(data), 8):
            total ^= int.from_bytes(data[position : position + 8], "little")
        sums.append(total)
    return [np.array(sums, np.uint64).reshape(-1, 1)]


def simulated_cases(device: str) -> list[EngineCase]:
    def case(name, oracle, **options):
        options = {"alpha_ms": "0.01", "beta_ms": "0.01", **options}
        return EngineCase(f"simulated-{device}-{name}", "simulated", device, oracle, options=options)

    return [
        case("checksum", xor_of_words, input_shape="3,16,16"),
        case("checksum-odd", xor_of_words, input_bytes="1237"),
        case("checksum-tiny", xor_of_words, input_bytes="3"),
        case("copy", list, input_shape="5,7", datatype="FP32", output="copy"),
    ]


CASES = [
    onnx_case("identity", models.identity()),
    onnx_case("identity-fp16", models.identity(("n", 3, 2), onnx.TensorProto.FLOAT16)),
    onnx_case("identity-int64", models.identity(("n", 5), onnx.TensorProto.INT64)),
    onnx_case("identity-bool", models.identity(("n", 9), onnx.TensorProto.BOOL)),
    onnx_case("add-sub", models.add_sub()),
    onnx_case("conv", models.conv_net(), max_batch_size=8, tolerance=1e-5),
    onnx_case("conv-two-threads", models.conv_net(), options={"intra_op_threads": "2"}, tolerance=1e-5),
    onnx_case("fixed-batch-1", models.conv_net(1), max_batch_size=None, tolerance=1e-5),
    onnx_case("no-batch", models.add_sub((4, 3)), max_batch_size=0),
    onnx_case("fixed-batch-4", models.conv_net(4), tolerance=1e-5),
    *(onnx_case(f"{name}-fixed-batch", passing_models.of_shape(4, 4)[name]) for name in passing_models.ROW_BY_ROW),
    *(onnx_case(name, model) for name, model in passing_models.with_batch().items()),
    *(onnx_case(f"{name}-no-batch", model, max_batch_size=0) for name, model in passing_models.of_shape(2, 4).items()),
    *simulated_cases("cpu"),
    *simulated_cases("simulated"),
]


@pytest.fixture(params=[case.param for case in CASES])
def case(request):
    return request.param


@pytest.fixture
def rig(case):
    try:
        device = open_device(case.device, clock=MonotonicClock())
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    with rig_of(device) as rig:
        yield rig


@pytest.fixture
def engine(case, rig, tmp_path):
    try:
        return case.open(rig, tmp_path)
    except BackendUnavailableError as error:
        pytest.skip(str(error))


def all_sizes(engine):
    return tuple(range(1, engine.specs.max_batch_size + 1))


def random_inputs(engine, batch_size, seed):
    rows = batch_size if engine.specs.has_batch_dimension else None
    return [random_rows(spec, rows, seed + position) for position, spec in enumerate(engine.specs.inputs)]


def warmed_up_slot(rig, engine, index=0):
    slot = BoundSlot(rig, engine, index)
    engine.warm_up(all_sizes(engine), slot.compute)
    slot.compute.sync()
    return slot


def assert_agree(case, outputs, expected):
    for output, wanted in zip(outputs, expected, strict=True):
        assert output.dtype == wanted.dtype
        assert output.shape == wanted.shape
        np.testing.assert_allclose(output, wanted, rtol=case.tolerance, atol=case.tolerance)


def test_outputs_equal_the_oracle_at_every_batch_size(case, rig, engine):
    slot = warmed_up_slot(rig, engine)
    for batch_size in (*all_sizes(engine), *reversed(all_sizes(engine))):
        inputs = random_inputs(engine, batch_size, seed=batch_size)
        assert_agree(case, slot.run(inputs), case.oracle(inputs))


def test_slots_do_not_disturb_each_other(case, rig, engine):
    slots = [BoundSlot(rig, engine, index) for index in range(3)]
    engine.warm_up(all_sizes(engine), slots[0].compute)
    slots[0].compute.sync()
    inputs = [random_inputs(engine, engine.specs.max_batch_size, seed=100 * slot.index) for slot in slots]
    outputs = [slot.run(values) for slot, values in zip(slots, inputs, strict=True)]
    for values, results in zip(inputs, outputs, strict=True):
        assert_agree(case, results, case.oracle(values))


def test_the_outputs_of_a_slot_stay_until_it_runs_again_whatever_other_slots_run(case, rig, engine):
    """While d2h copies one slot's outputs, the compute stream runs the next slot's batch."""
    slots = [BoundSlot(rig, engine, index) for index in range(3)]
    engine.warm_up(all_sizes(engine), slots[0].compute)
    slots[0].compute.sync()
    sizes = sorted({1, engine.specs.max_batch_size})
    for kept, size in itertools.product(slots, sizes):
        inputs = random_inputs(engine, size, seed=10 * kept.index + size)
        kept.begin(inputs)
        kept.compute.sync()
        for other, other_size in itertools.product(slots, sizes):
            if other is not kept:
                other.begin(random_inputs(engine, other_size, seed=77))
                other.compute.sync()
                other.end(other_size)
        assert_agree(case, kept.end(size), case.oracle(inputs))


@pytest.mark.parametrize("dirt", PATTERNS)
def test_nothing_that_lay_in_memory_is_in_an_answer(case, rig, engine, dirt):
    """Outputs and the inputs beyond the batch are dirtied before each execution, by graph or not."""
    slots = [BoundSlot(rig, engine, index) for index in range(2)]
    engine.warm_up(all_sizes(engine)[::2], slots[0].compute)
    slots[0].compute.sync()
    for batch_size in (*all_sizes(engine), *reversed(all_sizes(engine))):
        for slot in slots:
            inputs = random_inputs(engine, batch_size, seed=batch_size)
            assert_agree(case, slot.run(inputs, dirt), case.oracle(inputs))


def test_a_size_that_was_not_warmed_up_still_runs(case, rig, engine):
    slot = BoundSlot(rig, engine, 0)
    engine.warm_up((1,), slot.compute)
    slot.compute.sync()
    inputs = random_inputs(engine, engine.specs.max_batch_size, seed=5)
    assert_agree(case, slot.run(inputs), case.oracle(inputs))


def test_specs_are_complete_and_constant(engine):
    specs = engine.specs
    assert specs == engine.specs
    assert specs.max_batch_size >= 1
    assert specs.inputs
    assert specs.outputs
    assert all(spec.is_fixed and spec.row_bytes > 0 for spec in (*specs.inputs, *specs.outputs))


def test_there_is_one_output_buffer_per_output_and_it_is_large_enough(rig, engine):
    warmed_up_slot(rig, engine)
    buffers = engine.outputs(0, 1)
    assert len(buffers) == len(engine.specs.outputs)
    for spec, buffer in zip(engine.specs.outputs, buffers, strict=True):
        assert buffer.nbytes >= spec.row_bytes


def test_a_batch_size_outside_the_limits_is_refused(rig, engine):
    slot = warmed_up_slot(rig, engine)
    for batch_size in (-1, 0, engine.specs.max_batch_size + 1):
        with pytest.raises(MisuseError):
            engine.enqueue(0, batch_size, slot.compute)


def test_a_slot_that_is_not_bound_is_refused(rig, engine):
    slot = warmed_up_slot(rig, engine)
    with pytest.raises(MisuseError):
        engine.enqueue(1, 1, slot.compute)


def test_a_slot_is_bound_once(rig, engine):
    slot = warmed_up_slot(rig, engine)
    with pytest.raises(MisuseError):
        engine.bind(slot.buffers)


def test_closing_twice_is_closing_once_and_ends_all_use(rig, engine):
    slot = warmed_up_slot(rig, engine)
    engine.close()
    engine.close()
    with pytest.raises(MisuseError):
        engine.enqueue(0, 1, slot.compute)


def test_an_unknown_option_is_refused_by_name(case, rig, tmp_path):
    with pytest.raises(ModelFileError, match="no_such_option"):
        replace(case, options={"no_such_option": "1"}).open(rig, tmp_path)
