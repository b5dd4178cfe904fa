"""The time of a stream: the client's stamps where they are plausible, else the arrivals."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.frontend.frames.stream_time import MOST_BEHIND_NS, StreamTime

MS = 1_000_000


def steps_ms(stamps_us, arrivals_ms):
    time = StreamTime()
    times = [time.read(stamp, arrival * MS) for stamp, arrival in zip(stamps_us, arrivals_ms, strict=True)]
    return [round((after - before) / MS) for before, after in itertools.pairwise(times)]


@pytest.mark.parametrize(
    ("stamps_us", "arrivals_ms", "steps"),
    [
        ([5_000_000, 5_033_000, 5_066_000], [0, 40, 60], [33, 33]),  # jitter of the network
        ([0, 1_000_000, 2_000_000], [7, 7, 7], [1000, 1000]),  # a burst after a stall
        ([0, 33_000], [0, 9_000], [33]),  # the stall itself
        ([0, 0, 0], [0, 30, 70], [30, 40]),  # a client that stamps nothing
        ([9_000_000, 1_000, 34_000], [0, 30, 60], [30, 33]),  # a clock that was set back
        ([0, 3_600_000_000, 3_600_033_000], [0, 30, 60], [30, 33]),  # set forward
        ([0, 33_000_000, 66_000_000], [0, 33, 66], [33, 33]),  # nanoseconds
        ([0, 33, 66], [0, 33, 66], [33, 33]),  # milliseconds
    ],
)
def test_a_step_is_the_stamps_if_plausible_else_the_arrivals(stamps_us, arrivals_ms, steps):
    assert steps_ms(stamps_us, arrivals_ms) == steps


def test_plausible_stamps_are_the_time_so_that_another_server_goes_on():
    time = StreamTime()
    assert time.read(1_700_000_000_000_000, 5) == 1_700_000_000_000_000_000
    assert time.read(1_700_000_000_033_000, 40 * MS) == 1_700_000_000_033_000_000


@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**62)), max_size=20))
def test_the_time_never_goes_back_nor_runs_far_ahead_of_arrivals(frames):
    frames = [(stamp, arrival) for (stamp, _), arrival in zip(frames, sorted(a for _, a in frames), strict=True)]
    time = StreamTime()
    times = [time.read(stamp, arrival) for stamp, arrival in frames]
    for (before, after), ((_, first), (_, second)) in zip(
        itertools.pairwise(times), itertools.pairwise(frames), strict=True
    ):
        assert 0 <= after - before <= second - first + MOST_BEHIND_NS
