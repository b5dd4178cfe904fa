"""A stream that floods the server with small frames leaves ordinary cameras their latency."""

import pytest

from forebay_server.bench.floods import FLOODS, measure_flood


@pytest.mark.parametrize("options", FLOODS.values(), ids=FLOODS)
def test_a_flood_of_small_frames_at_most_triples_the_p99_of_ten_cameras(options):
    result = measure_flood(options, rounds=3, seconds=2.5)
    assert result.ratio <= 3.0, result
