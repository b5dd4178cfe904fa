"""Backend options as text: checked, with the right value in the message."""

import pytest

from forebay_server.engines.errors import ModelFileError
from forebay_server.engines.options import OptionReader


def reader(**options):
    return OptionReader("test", options, ("count", "wait_ms", "shape", "mode"))


def test_values_are_read_and_defaults_kept():
    given = reader(count="3", wait_ms="1.5", shape="3,4", mode="fast")
    assert given.integer("count", 1) == 3
    assert given.milliseconds("wait_ms", 0) == 1.5
    assert given.shape("shape") == (3, 4)
    assert given.text("mode", "slow", ("slow", "fast")) == "fast"
    empty = reader()
    assert empty.integer("count", 1) == 1
    assert empty.milliseconds("wait_ms", 2) == 2
    assert empty.shape("shape") is None
    assert empty.text("mode", "slow", ("slow", "fast")) == "slow"


@pytest.mark.parametrize(
    ("options", "read", "message"),
    [
        ({"count": "x"}, lambda given: given.integer("count", 1), "count is 'x', but must be a whole number"),
        ({"count": "-1"}, lambda given: given.integer("count", 1), "at least 0"),
        ({"wait_ms": "soon"}, lambda given: given.milliseconds("wait_ms", 0), "milliseconds"),
        ({"count": "3000000000"}, lambda given: given.integer("count", 1), "at most 2147483647"),
        ({"count": "9"}, lambda given: given.integer("count", 1, maximum=8), "at most 8"),
        ({"count": "9" * 5000}, lambda given: given.integer("count", 1), rf"count is '{'9' * 64}\.\.\.', but"),
        ({"wait_ms": "nan"}, lambda given: given.milliseconds("wait_ms", 0), "from 0 to 600000"),
        ({"wait_ms": "-1"}, lambda given: given.milliseconds("wait_ms", 0), "from 0 to 600000"),
        ({"wait_ms": "1e9"}, lambda given: given.milliseconds("wait_ms", 0), "from 0 to 600000"),
        ({"shape": "3x4"}, lambda given: given.shape("shape"), "3,224,224"),
        ({"shape": "3,0"}, lambda given: given.shape("shape"), "at least 1"),
        ({"mode": "fats"}, lambda given: given.text("mode", "slow", ("slow", "fast")), "one of slow, fast"),
    ],
)
def test_a_value_that_cannot_be_read_says_what_it_must_be(options, read, message):
    with pytest.raises(ModelFileError, match=message):
        read(reader(**options))


def test_an_unknown_option_names_the_nearest_or_all():
    with pytest.raises(ModelFileError, match="did you mean 'count'"):
        reader(coutn="1")
    with pytest.raises(ModelFileError, match="known are count, mode, shape, wait_ms"):
        reader(zzz="1")
