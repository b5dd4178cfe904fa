import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.errors import CorruptResultError
from forebay_server.service.results.classes import Classification, decode_classes
from forebay_server.service.results.detection import Detection
from forebay_server.service.results.options import ResultOptions
from forebay_server.service.results.result import make_result
from forebay_server.service.results.task import ClassificationTask, DetectionTask

TASK = ClassificationTask(labels=("cat", "dog", "cow"), max_results=2)


def scores(*values, dtype=np.float32):
    return (np.array(values, dtype),)


def test_the_best_classes_come_first():
    found = decode_classes(scores(0.25, -3, 8), TASK, ResultOptions())
    assert found == (Classification("cow", 2, 8.0), Classification("cat", 0, 0.25))


def test_equal_scores_come_by_rising_class():
    assert [item.class_id for item in decode_classes(scores(1, 2, 2, 1), TASK, ResultOptions(max_results=4))] == [
        1,
        2,
        0,
        3,
    ]


def test_the_threshold_of_the_stream_leaves_classes_out():
    assert [item.label for item in decode_classes(scores(0.1, 0.9, 0.5), TASK, ResultOptions(0.5))] == ["dog", "cow"]


def test_a_class_without_a_label_is_called_by_its_number():
    assert decode_classes(scores(0, 0, 0, 1), TASK, ResultOptions(max_results=1))[0].label == "3"


def test_half_precision_scores_are_ranked_like_any_others():
    assert decode_classes(scores(1, 3, 2, dtype=np.float16), TASK, ResultOptions(max_results=1))[0].label == "dog"


@pytest.mark.parametrize(
    "arrays", [(), scores(1, float("nan")), scores(float("-inf")), (np.zeros((2, 3), np.float32),)]
)
def test_scores_that_cannot_be_right_are_corrupt(arrays):
    with pytest.raises(CorruptResultError):
        decode_classes(arrays, TASK, ResultOptions())


@given(st.lists(st.floats(-1e6, 1e6, width=32), max_size=50), st.integers(1, 60))
def test_the_result_is_the_head_of_a_full_sort(values, limit):
    found = decode_classes(scores(*values), TASK, ResultOptions(max_results=limit))
    full = sorted(range(len(values)), key=lambda i: (-values[i], i))
    assert [item.class_id for item in found] == full[:limit]


def test_the_task_decides_what_a_result_is():
    boxes = (np.array([[0, 0, 1, 1]], np.float32), np.array([0.9], np.float32), np.array([0]))
    assert isinstance(make_result(DetectionTask(("a",)), boxes, ResultOptions(), (4, 4))[0], Detection)
    assert isinstance(make_result(TASK, scores(1, 2), ResultOptions(), (4, 4))[0], Classification)


@given(st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=30), st.sampled_from((np.float32, np.float64)))
def test_softmax_makes_shares_of_logits(values, dtype):
    task = ClassificationTask((), max_results=30, activation="softmax")
    found = decode_classes(scores(*values, dtype=dtype), task, ResultOptions())
    exponentials = [math.exp(value) for value in values]
    by_class = sorted(found, key=lambda item: item.class_id)
    assert [item.score for item in by_class] == pytest.approx([each / sum(exponentials) for each in exponentials])


def test_softmax_of_halves_and_of_large_logits_is_finite():
    task = ClassificationTask((), activation="softmax", score_threshold=0.5)
    assert decode_classes(scores(6e4, 1, dtype=np.float16), task, ResultOptions()) == (Classification("0", 0, 1.0),)
    assert decode_classes(scores(3e38, -3e38), task, ResultOptions()) == (Classification("0", 0, 1.0),)


def test_the_sigmoid_scores_each_class_alone():
    task = ClassificationTask((), activation="sigmoid", score_threshold=0.5)
    found = decode_classes(scores(-1000, 0, 2), task, ResultOptions())
    assert [(item.class_id, item.score) for item in found] == [(2, pytest.approx(1 / (1 + math.exp(-2)))), (1, 0.5)]


def test_a_threshold_applies_to_the_score_and_not_to_the_logit():
    task = ClassificationTask((), activation="softmax")
    assert decode_classes(scores(5, 5, 5), task, ResultOptions(0.4)) == ()


@pytest.mark.parametrize("activation", ["none", "softmax", "sigmoid"])
def test_no_classes_make_an_empty_result(activation):
    assert decode_classes(scores(), ClassificationTask((), activation=activation), ResultOptions()) == ()
