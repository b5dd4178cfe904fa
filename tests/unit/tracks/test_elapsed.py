"""The time between two captures, by a clock that may be wrong."""

import pytest

from forebay_server.service.tracks.elapsed import LONGEST_NS, elapsed_ns, usual_interval_ns, within_range

S = 10**9


@pytest.mark.parametrize(
    ("last_ns", "capture_ns", "passed_ns"),
    [
        (None, 5 * S, 0),
        (5 * S, 5 * S + 40, 40),
        (5 * S, 5 * S, 0),
        (5 * S, 2 * S, 33),  # set back: the usual interval
        (5 * S, 5 * S + 86_400 * S, LONGEST_NS),
        (-(2**63), 2**63 - 1, LONGEST_NS),
    ],
)
def test_time_that_passed(last_ns, capture_ns, passed_ns):
    assert elapsed_ns(last_ns, capture_ns, usual_ns=33) == passed_ns


@pytest.mark.parametrize(
    ("last_ns", "capture_ns", "usual_ns"),
    [(None, S, 33), (S, S + 40, 40), (S, S, 33), (S, S - 5, 33), (0, 86_400 * S, S)],
)
def test_the_usual_interval_is_the_last_one_in_order(last_ns, capture_ns, usual_ns):
    assert usual_interval_ns(last_ns, capture_ns, 33) == usual_ns


@pytest.mark.parametrize(("given", "taken"), [(-(2**70), -(2**63)), (2**70, 2**63 - 1), (-4, -4)])
def test_a_time_beyond_64_bits_is_the_nearest_within(given, taken):
    assert within_range(given) == taken
