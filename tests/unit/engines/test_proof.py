"""The proof that outputs are written: accepted and refused models."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from forebay_server.engines import open_device
from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.errors import ExecutionError, ModelFileError
from forebay_server.engines.proof import PATTERNS
from tests.support import models, passing_models
from tests.support.rig import BoundSlot, random_rows, rig_of

ROWS = 4


@pytest.fixture
def rig():
    with rig_of(open_device("cpu", clock=MonotonicClock())) as rig:
        yield rig


@pytest.fixture
def bound(rig, tmp_path):
    """An engine and its one slot."""

    def bind(model, max_batch_size=ROWS):
        path = models.save(model, tmp_path / "model.onnx")
        engine = rig.open_engine("onnxruntime", path, max_batch_size=max_batch_size)
        return engine, BoundSlot(rig, engine, 0)

    return bind


def test_patterns_differ_in_pairs_so_that_no_value_shows_two():
    assert len(set(PATTERNS)) == len(PATTERNS) >= 6


@pytest.mark.parametrize("model", [passing_models.echo(), passing_models.echo_beside()])
def test_an_output_that_nobody_writes_stops_the_warm_up(bound, model):
    engine, slot = bound(model)
    engine._copied = ()  # as if the names gave no information
    with pytest.raises((ModelFileError, ExecutionError), match=r"not written by the model|elsewhere than where"):
        engine.warm_up((ROWS,), slot.compute)


def test_a_size_that_was_not_proven_before_is_proven_by_its_first_batch(bound):
    engine, slot = bound(passing_models.echo_beside())
    engine._copied = ()
    inputs = [random_rows(spec, 2, 0) for spec in engine.specs.inputs]
    for _ in range(2):
        with pytest.raises(ExecutionError, match="elsewhere than where it was bound"):
            slot.run(inputs)


def test_constants_that_look_like_the_patterns_are_served(bound):
    values = np.tile(np.array(PATTERNS, np.uint8), (2, 3))
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["w"], ["c"])]
    shape = values.shape
    outputs = [models.tensor(name, shape, TensorProto.UINT8) for name in "yc"]
    given = [models.tensor("x", shape, TensorProto.UINT8)]
    model = models.build(nodes, given, outputs, [numpy_helper.from_array(values, "w")])
    engine, slot = bound(model, max_batch_size=0)
    engine.warm_up((1,), slot.compute)
    np.testing.assert_array_equal(slot.run([values])[1], values)


def test_random_outputs_are_served(bound):
    node = helper.make_node("RandomUniformLike", ["x"], ["y"], dtype=TensorProto.FLOAT, low=-1.0, high=1.0)
    model = models.build([node], [models.tensor("x", ("batch", 1000))], [models.tensor("y", ("batch", 1000))])
    engine, slot = bound(model)
    engine.warm_up((1, 2, ROWS), slot.compute)
    assert np.ptp(slot.run([np.zeros((ROWS, 1000), np.float32)])[0]) > 1
