"""The kernel's numbers, on the CPU: its source is compiled as C++ and compared with the CPU's way of decoding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_server.engines.cuda import picture_kernel as kernel
from forebay_server.engines.pictures import JpegFile, Nv12Planes
from forebay_server.engines.simulated.sampling import converted, picture_of
from forebay_server.service.pictures.on_device import form_of, row_of
from forebay_server.service.pictures.picture_input import PictureInput, Values
from tests.support.device_pictures import (
    FORMS,
    differences,
    in_bytes,
    pixels_of,
    planes_of,
    row_of_pixels,
    row_of_planes,
)
from tests.support.picture_kernel import has_compiler, launch

pytestmark = pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
SIZES = [(320, 240), (97, 61), (40, 30), (33, 140)]
MATRICES = [(6, (0.299, 0.114)), (1, (0.2126, 0.0722))]


def by_kernel(source, pixels, picture):
    """One row that the kernel makes; `pixels` are those of the source, interleaved, or both planes."""
    form, row = form_of(picture), row_of(picture, source, 0)
    target = np.full(picture.shape, 77, picture.dtype)
    records = np.array([kernel.picture_record(row, pixels.ctypes.data, target.ctypes.data)], kernel.PICTURE)
    launch(records, kernel.form_record(form, form.table.ctypes.data))
    return target


def file_of(pixels):
    """A source of pixels that are decoded already."""
    return JpegFile(None, 0, 0, (pixels.shape[1], pixels.shape[0]))


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("size", SIZES)
def test_pictures_are_those_of_the_cpu(name, size):
    picture, pixels = FORMS[name], pixels_of(*size)
    colours = np.ascontiguousarray(pixels[..., ::-1])
    found, expected = by_kernel(file_of(colours), colours, picture), row_of_pixels(pixels, picture)
    mean, largest = differences(found, expected, picture)
    assert mean < 0.02
    assert largest < 1.1


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("matrix", "shares"), MATRICES)
@pytest.mark.parametrize("is_full_range", [False, True])
def test_planes_become_the_colours_of_the_cpu(name, size, matrix, shares, is_full_range):
    picture = FORMS[name]
    luma, chroma = planes_of(*size)
    both = np.concatenate([luma.reshape(-1), chroma.reshape(-1)])
    source = Nv12Planes(None, 0, luma.nbytes, luma.shape[1], size, shares, is_full_range)
    found = by_kernel(source, both, picture)
    expected = row_of_planes(luma, chroma, size, picture, matrix=matrix, is_full_range=is_full_range)
    mean, _ = differences(found, expected, picture)
    assert mean < 2.0  # the CPU converts before it enlarges, and clips there


@st.composite
def forms(draw):
    dtype = draw(st.sampled_from(["uint8", "float16", "float32"]))
    numbers = {} if dtype == "uint8" else {"scale": 1 / 255, "mean": (0.5,), "std": (0.25,)}
    return PictureInput(
        draw(st.integers(1, 40)),
        draw(st.integers(1, 40)),
        draw(st.sampled_from(["RGB", "BGR", "GRAY"])),
        draw(st.sampled_from(["stretch", "letterbox", "center_crop", "crop_pad"])),
        pad_value=draw(st.integers(0, 255)),
        pad_at=draw(st.sampled_from(["center", "bottom_right"])),
        interpolation=draw(st.sampled_from(["opencv", "bilinear", "bicubic"])),
        values=Values(draw(st.sampled_from(["NHWC", "NCHW"])), dtype, **numbers),
    )


@settings(deadline=None)
@given(picture=forms(), size=st.tuples(st.integers(1, 64), st.integers(1, 64)), seed=st.integers(0, 99))
def test_the_simulated_device_has_the_same_arithmetic(picture, size, seed):
    colours = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    source = file_of(colours)
    found = by_kernel(source, colours, picture)
    expected = picture_of(row_of(picture, source, 0), form_of(picture), colours)
    assert np.abs(in_bytes(found, picture) - in_bytes(expected, picture)).max() < 1.1


@settings(deadline=None)
@given(picture=forms(), size=st.tuples(st.integers(1, 64), st.integers(1, 64)), seed=st.integers(0, 99))
def test_the_simulated_device_converts_as_the_kernel(picture, size, seed):
    size = max(4, size[0]), max(4, size[1])
    luma, chroma = planes_of(*size, seed)
    both = np.concatenate([luma.reshape(-1), chroma.reshape(-1)])
    source = Nv12Planes(None, 0, luma.nbytes, luma.shape[1], size, (0.299, 0.114), is_full_range=False)
    found = by_kernel(source, both, picture)
    half_width = (size[0] + 1) // 2
    row, colours = converted(
        row_of(picture, source, 0),
        source,
        luma[:, : size[0]],
        chroma[:, : 2 * half_width].reshape(len(chroma), half_width, 2),
    )
    expected = picture_of(row, form_of(picture), colours)
    assert np.abs(in_bytes(found, picture) - in_bytes(expected, picture)).max() < 1.1
