import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.errors import CorruptResultError
from forebay_server.service.results.detections import decode_detections
from forebay_server.service.results.heads.boxes_scores import BoxesScoresHead
from forebay_server.service.results.heads.candidates import MAX_CANDIDATES
from forebay_server.service.results.options import ResultOptions
from forebay_server.service.results.suppression import suppress
from forebay_server.service.results.task import DetectionTask

AS_THE_MODEL_SAYS = ResultOptions()
TASK = DetectionTask(labels=("person", "car"), score_threshold=0.4, iou_threshold=0.5, max_results=100)
LEFT = (0.0, 0.0, 0.2, 0.2)
LEFT_TOO = (0.0, 0.0, 0.2, 0.19)
RIGHT = (0.5, 0.5, 0.7, 0.9)


def outputs(*rows, dtype=np.float32):
    """Each row: box, score, class."""
    boxes = np.array([row[0] for row in rows], dtype).reshape(-1, 4)
    return boxes, np.array([row[1] for row in rows], dtype), np.array([row[2] for row in rows], np.int32)


def decode(arrays, options=AS_THE_MODEL_SAYS, task=TASK, size=(200, 100)):
    return decode_detections(arrays, task, options, size, None)


def test_detections_come_by_falling_score_with_labels_and_pixels():
    found = decode(outputs((LEFT, 0.5, 1), (RIGHT, 0.9, 0)))
    assert [(item.label, item.class_id) for item in found] == [("person", 0), ("car", 1)]
    assert found[0].score == pytest.approx(0.9)
    assert found[0].box == pytest.approx(RIGHT)
    assert found[0].box_pixels == pytest.approx((100, 50, 140, 90))


def test_scores_below_the_threshold_are_left_out_and_equal_ones_are_kept():
    arrays = outputs((LEFT, 0.5, 0), (RIGHT, 0.49, 0))
    assert len(decode(arrays, ResultOptions(score_threshold=0.5))) == 1
    assert len(decode(arrays, ResultOptions(score_threshold=0.0))) == 2
    assert decode(arrays, ResultOptions(score_threshold=0.6)) == ()


def test_overlapping_boxes_of_one_class_leave_the_best():
    found = decode(outputs((LEFT_TOO, 0.6, 0), (LEFT, 0.7, 0)))
    assert [item.score for item in found] == pytest.approx([0.7])


def test_overlapping_boxes_of_different_classes_both_stay():
    assert len(decode(outputs((LEFT, 0.6, 0), (LEFT, 0.7, 1)))) == 2


def test_the_iou_threshold_of_the_stream_counts():
    arrays = outputs((LEFT, 0.7, 0), (LEFT_TOO, 0.6, 0))
    assert len(decode(arrays, ResultOptions(iou_threshold=0.99))) == 2


def test_equal_scores_keep_the_order_of_the_model():
    found = decode(outputs((RIGHT, 0.5, 1), (LEFT, 0.5, 0)))
    assert [item.class_id for item in found] == [1, 0]


def test_boxes_are_clipped_to_the_frame_and_those_outside_are_left_out():
    found = decode(
        outputs(((-0.5, 0.5, 0.5, 1.5), 0.9, 0), ((1.2, 0.1, 1.4, 0.3), 0.8, 0), ((0.4, 0.4, 0.2, 0.6), 0.7, 0))
    )
    assert [item.box for item in found] == [pytest.approx((0.0, 0.5, 0.5, 1.0))]
    assert found[0].box_pixels == pytest.approx((0, 50, 100, 100))


def test_at_most_max_results_are_kept():
    rows = [((i / 10, 0.0, i / 10 + 0.05, 0.1), 0.9 - i / 100, 0) for i in range(9)]
    assert [round(item.score, 2) for item in decode(outputs(*rows), ResultOptions(max_results=3))] == [0.9, 0.89, 0.88]


def test_a_class_without_a_label_is_called_by_its_number():
    assert decode(outputs((LEFT, 0.9, 7)))[0].label == "7"


def test_without_class_ids_everything_is_the_first_class():
    task = DetectionTask(labels=("face",), head=BoxesScoresHead(class_ids_output=None))
    boxes, scores, _ = outputs((LEFT, 0.9, 0), (LEFT_TOO, 0.8, 1))
    assert [item.label for item in decode((boxes, scores), task=task)] == ["face"]


def test_a_leading_dimension_of_one_frame_makes_no_difference():
    arrays = outputs((LEFT, 0.9, 0), (RIGHT, 0.8, 1))
    assert decode(tuple(array[None] for array in arrays)) == decode(arrays)


def test_no_candidates_make_an_empty_result():
    assert decode((np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))) == ()


def test_a_threshold_of_zero_is_bounded_by_the_best_candidates():
    count = 3 * MAX_CANDIDATES
    boxes = np.tile(np.array([[0, 0, 1e-3, 1e-3]], np.float32), (count, 1)) * np.arange(1, count + 1)[:, None] / count
    class_ids = np.arange(count, dtype=np.int32)
    found = decode(
        (boxes, np.linspace(0, 1, count, dtype=np.float32), class_ids),
        ResultOptions(score_threshold=0.0, max_results=10_000),
    )
    assert len(found) == MAX_CANDIDATES
    assert found[0].class_id == count - 1


GOOD = outputs((LEFT, 0.9, 0), (RIGHT, 0.8, 1))
NAN = float("nan")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ((), "gave 0 outputs"),
        (GOOD[:2], "class ids should be number 3"),
        ((GOOD[0][:1], GOOD[1], GOOD[2]), "not 4 numbers for each of 2 scores"),
        ((GOOD[0][:, :3], GOOD[1], GOOD[2]), "not 4 numbers"),
        ((GOOD[0], GOOD[1], GOOD[2][:1]), "1 class ids for 2 scores"),
        ((GOOD[0], np.stack([GOOD[1]] * 2), GOOD[2]), "shape [2, 2]"),
        ((GOOD[0], np.float32(0.5).reshape(()), GOOD[2]), "shape []"),
        (outputs((LEFT, NAN, 0)), "scores hold values that are not finite"),
        (outputs((LEFT, float("inf"), 0)), "scores hold values that are not finite"),
        (outputs(((0, 0, NAN, 1), 0.9, 0)), "boxes hold values that are not finite"),
        (outputs((LEFT, 0.9, -1)), "class ids hold negative"),
    ],
)
def test_outputs_that_cannot_be_right_are_corrupt(arrays, words):
    with pytest.raises(CorruptResultError) as caught:
        decode(arrays)
    assert words in caught.value.message


def test_a_nan_in_a_box_that_nobody_asked_for_does_no_harm():
    assert len(decode(outputs((LEFT, 0.9, 0), ((NAN, 0, 1, 1), 0.1, 0)))) == 1


def oracle(boxes, class_ids, threshold, limit):
    """Greedy suppression, a pair at a time, in exact arithmetic on the grid of the examples."""
    kept = []
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        for j in kept:
            u0, v0, u1, v1 = boxes[j]
            common = max(0, min(x1, u1) - max(x0, u0)) * max(0, min(y1, v1) - max(y0, v0))
            union = (x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - common
            if class_ids[i] == class_ids[j] and 4 * common > threshold * union:
                break
        else:
            kept.append(i)
    return kept[:limit]


grid_boxes = st.lists(
    st.tuples(st.integers(-40, 12), st.integers(-40, 12), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2)),
    max_size=200,
)


@given(grid_boxes, st.integers(0, 4), st.integers(1, 300))
def test_suppression_agrees_with_the_oracle(rows, quarters, limit):
    boxes = [(x, y, x + width, y + height) for x, y, width, height, _ in rows]
    class_ids = np.array([row[4] for row in rows], np.int32)
    kept = suppress(np.array(boxes, np.float64).reshape(-1, 4), class_ids, quarters / 4, limit)
    assert kept.tolist() == oracle(boxes, class_ids, quarters, limit)


@pytest.mark.parametrize("far", [1e3, 3e38])
def test_a_box_far_outside_does_not_confuse_the_others(far):
    left, right, outside = (0.1, 0.1, 0.2, 0.2), (0.5, 0.5, 0.6, 0.6), (0.0, 0.0, far, far)
    boxes = np.array([left, left, right, outside], np.float32)
    assert suppress(boxes, np.array([79, 79, 79, 3], np.int32), 0.5, 10).tolist() == [0, 2, 3]


def test_a_box_beyond_the_left_edge_does_not_suppress_one_of_another_class():
    boxes = np.array([(-3, -3, 1, 1), (-5, -5, 0.9, 0.9)], np.float32)
    assert suppress(boxes, np.array([0, 1], np.int32), 0.3, 10).tolist() == [0, 1]


@given(
    st.lists(
        st.tuples(st.tuples(*[st.floats(-1, 2, width=32)] * 4), st.floats(0, 1, width=32), st.integers(0, 5)),
        max_size=80,
    ),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(1, 50),
)
def test_every_result_is_sorted_limited_inside_the_frame_and_above_the_threshold(rows, score, iou, limit):
    found = decode(outputs(*rows), ResultOptions(score, iou, limit))
    assert len(found) <= limit
    assert [item.score for item in found] == sorted((item.score for item in found), reverse=True)
    for item in found:
        assert item.score >= np.float32(score)
        assert 0 <= item.box.x_min < item.box.x_max <= 1
        assert 0 <= item.box.y_min < item.box.y_max <= 1
