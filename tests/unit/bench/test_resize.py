"""The candidates of the resize comparison compute the same function: their times may be compared."""

import pytest

from forebay_server.bench.resize import LIBRARIES, measure

SIZES = [((64, 48), (96, 96)), ((97, 53), (32, 41)), ((320, 180), (80, 80))]


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_every_library_agrees_with_opencv_to_within_1(before, after):
    found = measure(before, after, rounds=1)
    assert {"OpenCV, `INTER_LINEAR`, one thread", "numpy, two gathers in integers"} <= found.keys() <= LIBRARIES.keys()
    assert {name: difference for name, (_, difference) in found.items() if difference > 1} == {}
    assert all(milliseconds > 0 for milliseconds, _ in found.values())
