"""JPEG files as cameras send them: a whole picture is taken as every decoder shows it, and a part of one is refused."""

import contextlib

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.frames.decode.jpeg import decode_jpeg
from forebay_server.service.frontend.frames.decode.jpeg_layout import end_of_data, mend, read_head
from forebay_server.service.pictures.picture_input import PictureInput
from tests.support import jpegs

MAX_PIXELS = 1 << 20
FULL = PictureInput(160, 96, "BGR")
SMALL = PictureInput(jpegs.WIDTH // 3, jpegs.HEIGHT // 3, "RGB", jpeg_scale="fast")


def decode(file, image=FULL):
    return decode_jpeg(memoryview(file), image, MAX_PIXELS)[0]


def by_opencv(file):
    """OpenCV's decoder is built of another copy of libjpeg-turbo, and prints its warnings on standard error."""
    return cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize("name", jpegs.OTHER_KINDS)
def test_every_kind_of_jpeg_has_the_pixels_of_opencv(name):
    file = jpegs.OTHER_KINDS[name]
    difference = np.abs(decode(file).astype(int) - by_opencv(file))
    assert difference.max() <= (1 if name == "CMYK" else 0)


def test_sampling_of_441_is_taken():
    """simplejpeg decodes it but has no name for it, which was an error here."""
    file = jpegs.with_sampling(jpegs.OTHER_KINDS["4:1:1"], 0x14)
    assert np.array_equal(decode(file), by_opencv(file))


@pytest.mark.parametrize("image", [FULL, SMALL], ids=["full", "scaled"])
@pytest.mark.parametrize("name", jpegs.UNTOUCHED)
def test_an_oddity_beside_the_picture_changes_no_pixel(name, image):
    odd, right = jpegs.UNTOUCHED[name]
    assert np.array_equal(decode(odd, image), decode(right, image))
    assert np.abs(decode(right).astype(int) - by_opencv(right)).max() <= 1


@pytest.mark.parametrize("name", jpegs.LOST_STRIPS)
def test_a_lost_restart_marker_costs_a_strip_and_not_the_picture(name):
    file = jpegs.LOST_STRIPS[name]
    pixels = decode(file)
    assert np.array_equal(pixels, by_opencv(file))
    whole = decode(jpegs.TWENTY_RESTARTS if "nineteen" in name else jpegs.RESTARTS)
    assert np.array_equal(pixels[:14], whole[:14]), "the rows before it are there"
    assert not np.array_equal(pixels, whole)


@pytest.mark.parametrize("image", [FULL, SMALL], ids=["full", "scaled"])
@pytest.mark.parametrize("name", jpegs.TRUNCATED)
def test_a_part_of_a_picture_is_refused_and_the_message_says_that_it_is_truncated(name, image):
    with pytest.raises(InvalidRequestError, match="JPEG is truncated"):
        decode(jpegs.TRUNCATED[name], image)


@pytest.mark.parametrize("name", jpegs.REFUSED)
def test_what_cannot_be_decoded_is_refused_with_its_cause(name):
    file, words = jpegs.REFUSED[name]
    with pytest.raises(InvalidRequestError, match=words) as refused:
        decode(file)
    assert "truncated" not in refused.value.message
    assert "tj" not in refused.value.message


@pytest.mark.parametrize("name", ["BASELINE", "RESTARTS", "WEBCAM", "PROGRESSIVE"])
@pytest.mark.parametrize("ending", [b"", jpegs.END], ids=["cut", "cut and ended"])
def test_a_file_cut_anywhere_is_whole_or_refused(name, ending):
    """The data may be there without an end. Of a progressive file, the first scans with an end are a picture too."""
    file = getattr(jpegs, name)
    whole = decode(file)
    taken = []
    for end in range(len(file)):
        try:
            pixels = decode(file[:end] + ending)
        except InvalidRequestError:
            continue
        taken.append(end)
        if name != "PROGRESSIVE":
            assert np.array_equal(pixels, whole), end
    if name != "PROGRESSIVE":
        assert min(taken) >= len(file) - 4
        assert len(file) - 1 in taken
    elif ending:
        assert {file[end : end + 2].strip(b"\xff")[:1] for end in taken} == {b"\xc4", b"\xda", b"\xd9"}, "at a marker"
    else:
        assert taken == [], "without its end a progressive file may lack a scan"


@given(st.data())
@example(None)
def test_mending_makes_a_header_that_needs_none(data):
    names = list(jpegs.UNTOUCHED)
    for name in names if data is None else [data.draw(st.sampled_from(names))]:
        odd, _ = jpegs.UNTOUCHED[name]
        head = read_head(odd)
        mended = mend(odd, head)
        assert not read_head(mended).is_odd
        assert mended[read_head(mended).data :] == odd[head.data :]


def test_a_right_header_is_left_alone():
    for name, file in jpegs.OTHER_KINDS.items():
        assert not read_head(file).is_odd, name


FILLERS = (
    b"\xff\x02",
    b"\xff\x00",
    b"\xff\xff",
    b"\xff\xd0",
    b"\xff\xfe\0\x02",
    b"\xff\xd8",
    b"\xff\xda\0\x08\x01\x01\x00",
)


class Counting(bytes):
    """Bytes that know how often Python looked at some of them."""

    looks = 0

    def __getitem__(self, key):
        self.looks += 1
        return super().__getitem__(key)


@pytest.mark.parametrize("filler", FILLERS)
@pytest.mark.parametrize("name", ["BASELINE", "PROGRESSIVE"])
def test_a_file_full_of_markers_costs_few_steps_in_python(filler, name):
    filled = getattr(jpegs, name)[:-2] + filler * 100_000 + jpegs.END
    for file in (Counting(filled), Counting(filled[:2] + filler * 100_000)):
        with contextlib.suppress(InvalidRequestError):
            end_of_data(file, read_head(file))
        assert file.looks < 20_000
