"""The two tables of encodings: layouts agree with themselves, and no part of the project lacks an encoding."""

import math
import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.client.keywords import StreamKeywords
from forebay.client.options import Encoding
from forebay.encodings import LAYOUTS, VALUES, Layout
from forebay_server.loadtest.target import Encoding as LoadEncoding
from forebay_server.service.frontend.frames.decode.pictures import ENCODINGS
from forebay_server.service.frontend.frames.video.request import CODECS
from tests.support.repository import ROOT

SIDES = st.integers(1, 300)
DECODED = {*ENCODINGS, *CODECS}


def known_words(text, start, end):
    """The words of encodings in a part of a text."""
    return set(re.findall(r"\w+", text[text.index(start) : text.index(end)])) & set(VALUES)


@pytest.mark.parametrize(
    ("layout", "shape", "words"),
    [
        (LAYOUTS[VALUES["bgr8"]], (4, 6, 3), "(height, width, 3)"),
        (LAYOUTS[VALUES["nv12"]], (6, 6), "(height * 3 / 2, width)"),
        (LAYOUTS[VALUES["mono8"]], (4, 6), "(height, width)"),
    ],
)
def test_the_array_of_a_picture_of_6_x_4(layout, shape, words):
    assert (layout.shape(6, 4), layout.nbytes(6, 4), str(layout)) == (shape, math.prod(shape), words)


@given(st.sampled_from(list(LAYOUTS.values())), SIDES, SIDES)
def test_a_size_is_possible_or_has_a_fault_and_comes_back_from_its_array(layout, width, height):
    if layout.fault(width, height):
        assert width % layout.block[0] or height % layout.block[1]
        return
    assert layout.size(layout.shape(width, height)) == (width, height)
    assert layout.nbytes(width, height) == math.prod(layout.shape(width, height))


@pytest.mark.parametrize("shape", [(), (4,), (4, 6), (4, 6, 3, 1), (4, 6, 4)])
def test_an_array_of_another_shape_holds_no_picture(shape):
    assert LAYOUTS[VALUES["rgb8"]].size(shape) is None
    assert Layout(channels=1, block=(2, 2), rows=3).size((4, 6)) is None


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("the server's decoders", {word for word, value in VALUES.items() if value in DECODED} | {"tensor"}),
        ("Encoding in forebay/client/options.py", set(get_args(Encoding))),
        ("the docstring in forebay/client/keywords.py", known_words(StreamKeywords.__doc__, "encoding: of", "height:")),
        ("Encoding in loadtest/target.py", {encoding.value for encoding in LoadEncoding}),
        ("docs/client.md", known_words((ROOT / "docs/client.md").read_text(), "## Encodings", "## Options")),
    ],
)
def test_no_place_lacks_an_encoding_of_the_wire(place, words):
    assert words == set(VALUES), place
