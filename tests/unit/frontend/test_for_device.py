"""Which JPEG files go to a device: plain and whole ones alone."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.frames.decode.for_device import file_for_device
from forebay_server.service.frontend.frames.decode.jpeg import decode_jpeg
from forebay_server.service.pictures.device_picture import DecodedBy, FilePicture, FilePlace
from forebay_server.service.pictures.picture_input import PictureInput
from tests.support.jpegs import ADOBE, BASELINE, HEIGHT, OTHER_KINDS, PROGRESSIVE, RESTARTS, WIDTH

PLACE = FilePlace(64, 1 << 20, WIDTH * HEIGHT)
MOST = 1 << 24


def judged(file, place=PLACE, most=MOST):
    return file_for_device(memoryview(file), place, most)


def with_segment(file, segment):
    return file[:2] + segment + file[2:]


@pytest.mark.parametrize("kind", ["4:4:4", "4:2:2", "4:2:0", "4:4:0", "grey", "restart intervals"])
def test_plain_files_go_to_the_device_whole(kind):
    file = OTHER_KINDS[kind]
    assert judged(file) == FilePicture(PLACE.offset, len(file), (WIDTH, HEIGHT))


@pytest.mark.parametrize("kind", ["4:1:1", "CMYK", "progressive", "a scan for each component", "arithmetic"])
def test_other_kinds_are_the_cpus(kind):
    assert judged(OTHER_KINDS[kind]) is DecodedBy.HOST_HEADER


def test_bytes_behind_the_end_are_left_out():
    assert judged(BASELINE + bytes(500)) == FilePicture(PLACE.offset, len(BASELINE), (WIDTH, HEIGHT))


@pytest.mark.parametrize("cut", [1, 2, 3, 40, 500])
def test_a_file_that_is_cut_is_the_cpus(cut):
    assert judged(BASELINE[:-cut]) is DecodedBy.HOST_END


def test_a_cut_file_with_another_picture_behind_it_is_the_cpus():
    """A stream of MJPEG that lost some bytes: the payload ends with an end marker, but not with that of its picture."""
    assert judged(BASELINE[:-300] + PROGRESSIVE + b"x") is DecodedBy.HOST_END


def test_a_cut_file_that_ends_with_the_end_of_another_picture_is_the_cpus():
    assert judged(BASELINE[:-300] + BASELINE) is DecodedBy.HOST_END


def test_a_second_picture_behind_a_whole_one_is_left_out():
    assert judged(BASELINE + PROGRESSIVE) == FilePicture(PLACE.offset, len(BASELINE), (WIDTH, HEIGHT))


def test_components_called_rgb_are_the_cpus_behind_an_avi1_marker():
    start = BASELINE.index(b"\xff\xc0") + 10
    named = bytearray(BASELINE[:6] + b"AVI1\0" + BASELINE[11:])
    named[start : start + 9 : 3] = b"RGB"
    scan = named.index(b"\xff\xda") + 5
    named[scan : scan + 6 : 2] = b"RGB"
    assert judged(bytes(named)) is DecodedBy.HOST_HEADER


def test_a_file_without_its_last_restart_interval_is_the_cpus():
    last = RESTARTS.rindex(b"\xff\xd2") if b"\xff\xd2" in RESTARTS else RESTARTS.rindex(b"\xff\xd1")
    assert judged(RESTARTS[:last] + b"\xff\xd9") is DecodedBy.HOST_END


def test_colours_that_are_no_luma_and_chroma_are_the_cpus():
    without_jfif = BASELINE[:2] + BASELINE[20:]
    assert BASELINE[2:4] == b"\xff\xe0"
    assert isinstance(judged(without_jfif), FilePicture)
    assert judged(with_segment(without_jfif, ADOBE)) is DecodedBy.HOST_HEADER  # its transform is 0: RGB
    frame = bytearray(without_jfif)
    start = frame.index(b"\xff\xc0") + 10
    frame[start : start + 9 : 3] = b"RGB"
    scan = frame.index(b"\xff\xda") + 5
    frame[scan : scan + 6 : 2] = b"RGB"
    assert judged(bytes(frame)) is DecodedBy.HOST_HEADER


def test_limits_hold():
    assert judged(BASELINE, FilePlace(0, 1 << 20, WIDTH * HEIGHT - 1)) is DecodedBy.HOST_PIXELS
    assert judged(BASELINE, most=WIDTH * HEIGHT - 1) is DecodedBy.HOST_PIXELS
    assert judged(BASELINE, FilePlace(0, len(BASELINE) - 1, MOST)) is DecodedBy.HOST_BYTES
    empty = bytearray(BASELINE)
    struct.pack_into(">H", empty, BASELINE.index(b"\xff\xc0") + 5, 0)
    assert judged(bytes(empty)) is DecodedBy.HOST_PIXELS


@given(cut=st.integers(0, len(BASELINE)), extra=st.binary(max_size=20))
def test_a_part_of_a_file_never_goes_to_the_device(cut, extra):
    found = judged(BASELINE[:cut] + extra)
    if isinstance(found, FilePicture):
        assert found.nbytes == len(BASELINE)
        assert (BASELINE[:cut] + extra)[: found.nbytes] == BASELINE


@given(file=st.binary(max_size=300))
def test_junk_is_the_cpus_which_refuses_it(file):
    assert isinstance(judged(b"\xff\xd8" + file), DecodedBy)
    with pytest.raises(InvalidRequestError):
        decode_jpeg(b"\xff\xd8" + file, PictureInput(8, 8, "RGB"), MOST)
