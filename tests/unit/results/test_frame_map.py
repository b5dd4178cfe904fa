import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.results.frame_map import FrameMap

sides = st.integers(1, 4000)
RESIZES = ("stretch", "letterbox", "center_crop", "crop_pad")


def map_of(resize, width, height):
    return FrameMap(width, height, PictureInput(64, 48, "RGB", resize=resize))


@given(sides, sides, st.sampled_from(RESIZES), st.integers(0, 2**32 - 1))
def test_boxes_in_pixels_and_in_unit_form_are_the_same_boxes(width, height, resize, seed):
    where = map_of(resize, width, height)
    boxes = np.random.default_rng(seed).uniform(-10, 80, (5, 4)).astype(np.float32)
    in_pixels = where.fractions(boxes, is_unit=False)
    in_units = where.fractions(boxes / np.array([64, 48, 64, 48], np.float32), is_unit=True)
    assert in_pixels == pytest.approx(in_units, rel=1e-3, abs=1e-3)
    points = where.placement.to_frame(boxes.reshape(5, 2, 2)) / (width, height)
    assert in_pixels == pytest.approx(points.reshape(5, 4), rel=1e-3, abs=1e-3)


@given(sides, sides, st.sampled_from(RESIZES), st.floats(-4, 4), st.floats(1, 40), st.floats(1, 40))
def test_a_rotated_box_keeps_its_center_its_area_and_the_direction_of_its_width(
    width, height, resize, angle, wide, high
):
    where = map_of(resize, width, height)
    place = where.placement
    boxes, angles = np.array([[20.0, 30.0, wide, high]]), np.array([angle])
    cx, cy, across, down, turned = where.rotated(boxes, angles)[0]
    assert (cx, cy) == pytest.approx(tuple(place.to_frame(np.array([20.0, 30.0]))))
    assert across * down * place.scale_x * place.scale_y == pytest.approx(wide * high)
    if resize != "stretch":  # the sides' rounding turns nothing
        assert (turned, across) == pytest.approx((angle, wide / place.scale_x))
        return
    tip = place.to_frame(boxes[0, :2] + wide / 2 * np.array([math.cos(angle), math.sin(angle)]))
    assert (cx + across / 2 * math.cos(turned), cy + across / 2 * math.sin(turned)) == pytest.approx(
        tuple(tip), abs=1e-6
    )


def test_points_are_clipped_to_the_frame():
    points = map_of("letterbox", 100, 100).points(np.array([[0.0, 24.0], [32.0, 60.0], [8.0, 0.0]]))
    assert points == pytest.approx(np.array([[0, 50], [50, 100], [0, 0]]))
