import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.results.rotated_suppression import BLOCK, distances, gaussians_of, suppress_rotated
from tests.support.detection_oracle import probabilistic_iou
from tests.support.head_families import Item

seeds = st.integers(0, 2**32 - 1)


def random_boxes(rng, count):
    boxes = np.concatenate([rng.uniform(0, 100, (count, 2)), rng.uniform(1, 60, (count, 2))], axis=1)
    return boxes.astype(np.float32), rng.uniform(-4, 4, count).astype(np.float32)


def items_of(boxes, angles):
    return [Item(1.0, 0, tuple(map(float, box)), angle=float(angle)) for box, angle in zip(boxes, angles, strict=True)]


@given(seeds)
def test_the_overlap_is_that_of_the_paper(seed):
    boxes, angles = random_boxes(np.random.default_rng(seed), 2)
    gaussians = gaussians_of(boxes, angles)
    ours = 1 - np.sqrt(1 - np.exp(-distances(gaussians[:, :1], gaussians[:, 1:])))
    assert ours[0] == pytest.approx(probabilistic_iou(*items_of(boxes, angles)), abs=1e-6)


@given(seeds, st.integers(0, 3 * BLOCK), st.floats(0.01, 0.99), st.integers(1, 200))
def test_boxes_are_kept_greedily_within_their_class(seed, count, threshold, limit):
    rng = np.random.default_rng(seed)
    boxes, angles = random_boxes(rng, count)
    class_ids = rng.integers(0, 3, count).astype(np.int32)
    gaussians = gaussians_of(boxes, angles)
    kept = []
    for index in range(count):
        rivals = [other for other in kept if class_ids[other] == class_ids[index]]
        apart = distances(gaussians[:, rivals], np.repeat(gaussians[:, [index]], len(rivals), axis=1))
        if all(1 - math.sqrt(max(0.0, 1 - math.exp(-each))) <= threshold for each in apart):
            kept.append(index)
    assert suppress_rotated(boxes, angles, class_ids, threshold, limit).tolist() == kept[:limit]


@given(seeds)
def test_the_same_box_turned_by_half_a_circle_is_the_same_box(seed):
    boxes, angles = random_boxes(np.random.default_rng(seed), 1)
    twice, turned = np.repeat(boxes, 2, axis=0), np.array([angles[0], angles[0] + math.pi], np.float32)
    assert suppress_rotated(twice, turned, np.zeros(2, np.int32), 0.95, 10).tolist() == [0]


def test_a_threshold_of_zero_keeps_boxes_that_are_far_apart():
    boxes = np.array([(0, 0, 10, 5), (500, 0, 10, 5), (2, 0, 10, 5)], np.float32)
    assert suppress_rotated(boxes, np.zeros(3, np.float32), np.zeros(3, np.int32), 0.0, 10).tolist() == [0, 1]


def test_a_threshold_of_one_keeps_all():
    boxes = np.array([(0, 0, 10, 5)] * 3, np.float32)
    angles = np.array([0, 0.1, 0.2], np.float32)
    assert suppress_rotated(boxes, angles, np.zeros(3, np.int32), 1.0, 10).tolist() == [0, 1, 2]


def test_crossed_thin_boxes_do_not_suppress_each_other():
    boxes = np.array([(50, 50, 80, 2)] * 2, np.float32)
    angles = np.array([math.pi / 4, -math.pi / 4], np.float32)
    assert suppress_rotated(boxes, angles, np.zeros(2, np.int32), 0.5, 10).tolist() == [0, 1]
