"""The effect of a model's priority on a device that arbitrates between its streams."""

from hypothesis import given
from hypothesis import strategies as st

from forebay_server.engines.device import StreamPriority
from forebay_server.service.pipeline.model_priority import ModelPriority

FIRST, NORMAL, SECOND, LAST = ModelPriority(-1), ModelPriority(), ModelPriority(0, 2), ModelPriority(1)


@given(st.lists(st.builds(ModelPriority, st.integers(-1, 1), st.integers(1, 9)), min_size=2, max_size=2))
def test_the_order_of_models_is_never_reversed_on_a_device(pair):
    urgencies = list(StreamPriority)
    first, second = sorted(pair)
    assert urgencies.index(first.of_device_stream) >= urgencies.index(second.of_device_stream)


def test_a_model_that_says_nothing_is_normal():
    assert NORMAL.of_device_stream is StreamPriority.NORMAL
    assert FIRST.of_device_stream is StreamPriority.HIGH
    assert {SECOND.of_device_stream, LAST.of_device_stream} == {StreamPriority.LOW}
