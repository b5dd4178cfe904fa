"""The best classes of a row, as clients read them."""

import numpy as np
import pytest

from forebay_server.service.frontend.open_inference.tensors import top_classes

LABELS = ("cat", "dog")


@pytest.mark.parametrize(
    ("row", "texts"),
    [
        (np.array([0.25, 0.5, 0.25], np.float32), [b"0.500000:1:dog", b"0.250000:0:cat", b"0.250000:2"]),
        (np.array([1, 3, 2], np.int32), [b"3:1:dog", b"2:2", b"1:0:cat"]),
        (np.array([7, 7, 0], np.uint8), [b"7:0:cat", b"7:1:dog", b"0:2"]),
        (np.array([2**62, 2**62 + 1, -5], np.int64), [b"4611686018427387905:1:dog", b"4611686018427387904:0:cat"]),
        (np.array([2**64 - 1, 0], np.uint64), [b"18446744073709551615:0:cat", b"0:1:dog"]),
        (np.array([-(2**63), 0], np.int64), [b"0:1:dog", b"-9223372036854775808:0:cat"]),
        (np.array([np.nan, 1.0], np.float16), [b"1.000000:1:dog", b"nan:0:cat"]),
    ],
)
def test_scores_are_told_as_their_type_is(row, texts):
    assert top_classes(row, len(texts), LABELS) == texts


def test_there_are_no_more_classes_than_elements():
    assert top_classes(np.array([1.0]), 5, ()) == [b"1.000000:0"]
