"""Points go into a model's picture and back, and the sizes are those of the programs that models are trained with."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.pictures.geometry import placement_of
from forebay_server.service.pictures.picture_input import PictureInput

SIDES = st.integers(1, 5000)
RESIZES = ("stretch", "letterbox", "center_crop", "crop_pad")


@st.composite
def pictures(draw):
    resize = draw(st.sampled_from(RESIZES))
    resize_to = draw(st.none() | st.integers(1, 600)) if resize == "center_crop" else None
    pad_at = draw(st.sampled_from(["center", "bottom_right"]))
    sides = draw(st.tuples(st.integers(1, 1500), st.integers(1, 1500)))
    return PictureInput(*sides, "RGB", resize=resize, pad_at=pad_at, resize_to=resize_to)


@given(pictures(), st.tuples(SIDES, SIDES))
def test_points_come_back_to_where_they_were(picture, frame_size):
    placement = placement_of(picture, frame_size)
    points = np.array([[[0, 0], frame_size], [[0.25, 7.5], [frame_size[0] / 2, frame_size[1] / 3]]])
    back = placement.to_frame(placement.to_model(points))
    assert back.shape == points.shape
    assert np.allclose(back, points, rtol=1e-9, atol=1e-6)


@given(pictures(), st.tuples(SIDES, SIDES))
def test_the_frame_lies_as_its_placement_says(picture, frame_size):
    placement = placement_of(picture, frame_size)
    corners = placement.to_model(np.array([[0, 0], frame_size]))
    assert tuple(corners[0]) == (placement.left, placement.top)
    far = np.array([placement.left + placement.resized[0], placement.top + placement.resized[1]])
    assert np.all(np.abs(corners[1] - far) <= 1.0), "sides are rounded to whole pixels, and to one at least"


@given(st.tuples(st.integers(1, 1500), st.integers(1, 1500)), st.tuples(SIDES, SIDES))
def test_a_letterboxed_frame_is_whole_and_as_large_as_fits(sides, frame_size):
    placement = placement_of(PictureInput(*sides, "RGB", resize="letterbox"), frame_size)
    right = sides[0] - placement.left - placement.resized[0]
    bottom = sides[1] - placement.top - placement.resized[1]
    assert min(placement.left, placement.top, right, bottom) >= 0
    assert right - placement.left in {0, 1}, "an odd pixel is at the right"
    assert bottom - placement.top in {0, 1}
    assert placement.resized[0] == sides[0] or placement.resized[1] == sides[1]


@pytest.mark.parametrize(
    ("frame_size", "resized", "offset"),
    [
        ((1280, 720), (640, 360), (0, 140)),
        ((810, 1080), (480, 640), (80, 0)),
        ((1000, 360), (640, 230), (0, 205)),
        ((639, 427), (640, 428), (0, 106)),
        ((333, 500), (426, 640), (107, 0)),
        ((64, 64), (640, 640), (0, 0)),
        ((640, 7), (640, 7), (0, 316)),
        ((5000, 1), (640, 1), (0, 319)),
    ],
)
def test_a_letterbox_is_that_of_ultralytics(frame_size, resized, offset):
    width, height = frame_size
    ratio = min(640 / height, 640 / width)
    unpadded = round(width * ratio), max(1, round(height * ratio))
    rest = (640 - unpadded[0]) / 2, (640 - unpadded[1]) / 2
    placement = placement_of(PictureInput(640, 640, "RGB", resize="letterbox"), frame_size)
    assert placement.resized == resized == unpadded
    assert (placement.left, placement.top) == offset == (round(rest[0] - 0.1), round(rest[1] - 0.1))
    assert (placement.scale_x, placement.scale_y) == (unpadded[0] / width, unpadded[1] / height)


def test_padding_at_the_bottom_right_leaves_the_frame_at_the_origin():
    picture = PictureInput(640, 640, "BGR", resize="letterbox", pad_at="bottom_right")
    placement = placement_of(picture, (1280, 720))
    assert (placement.left, placement.top, placement.resized) == (0, 0, (640, 360))


@pytest.mark.parametrize(
    ("frame_size", "resized", "cut"),
    [
        ((1280, 720), (455, 256), (116, 16)),
        ((720, 1280), (256, 455), (16, 116)),
        ((256, 256), (256, 256), (16, 16)),
        ((500, 333), (384, 256), (80, 16)),
        ((333, 501), (256, 385), (16, 80)),
    ],
)
def test_a_centre_crop_is_that_of_torchvision(frame_size, resized, cut):
    shorter, longer = min(frame_size), max(frame_size)
    assert math.floor(256 * longer / shorter) == max(resized)
    assert tuple(round((side - 224) / 2) for side in resized) == cut
    placement = placement_of(PictureInput(224, 224, "RGB", resize="center_crop", resize_to=256), frame_size)
    assert (placement.resized, (-placement.left, -placement.top)) == (resized, cut)


def test_a_centre_crop_without_a_size_covers_the_picture():
    placement = placement_of(PictureInput(320, 160, "RGB", resize="center_crop"), (100, 100))
    assert (placement.resized, placement.left, placement.top) == ((320, 320), 0, -80)


def test_crop_pad_leaves_pixels_as_they_are():
    placement = placement_of(PictureInput(100, 100, "RGB", resize="crop_pad"), (161, 41))
    assert (placement.scale_x, placement.left, placement.top) == (1.0, -30, 29)


def test_stretching_changes_each_side_by_itself():
    placement = placement_of(PictureInput(320, 320, "RGB"), (1280, 640))
    assert (placement.scale_x, placement.scale_y) == (0.25, 0.5)
    assert placement.to_frame(np.array([320, 320])).tolist() == [1280, 640]
