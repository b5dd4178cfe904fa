"""Optimization profiles from batch sizes."""

import pytest

from forebay_server.engines.build.profiles import Rows, default_rows, parse_rows, shapes_of
from forebay_server.engines.errors import ModelFileError


def test_a_lone_row_has_a_profile_of_its_own():
    assert default_rows(16) == (Rows(1, 1, 1), Rows(1, 16, 16))
    assert default_rows(1) == (Rows(1, 1, 1),)


def test_profiles_are_read_from_text():
    assert parse_rows("1:1:1,2:8:32") == (Rows(1, 1, 1), Rows(2, 8, 32))


@pytest.mark.parametrize("text", ["", "1:2", "a:b:c", "4:2:8", "0:1:2", "1:2:1"])
def test_malformed_profiles_are_refused(text):
    with pytest.raises(ModelFileError):
        parse_rows(text)


def test_shapes_follow_from_rows_and_fixed_inputs_have_none():
    shapes = shapes_of(Rows(1, 4, 8), {"image": (-1, 3, 5), "scale": (2,)})
    assert shapes == {"image": [[1, 3, 5], [4, 3, 5], [8, 3, 5]]}


def test_other_dimensions_may_not_vary():
    with pytest.raises(ModelFileError, match="only the first dimension"):
        shapes_of(Rows(1, 1, 1), {"image": (-1, 3, -1)})


def test_a_max_batch_below_one_is_refused():
    with pytest.raises(ModelFileError):
        default_rows(0)
