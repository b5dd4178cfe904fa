import math
from dataclasses import astuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_server.service.errors import Outcome
from forebay_server.service.journal.events import FrameEvent, StreamRecord
from forebay_server.service.observe.frames import (
    BUILT,
    FOUND,
    OK,
    OUTCOME,
    OUTCOMES,
    SIDE_BITS,
    SIZE,
    STREAM,
    FrameRing,
    durations_us,
    read_events,
)
from forebay_server.service.observe.histograms import BOUNDS_S, Histograms, grouped_quantiles, quantiles
from forebay_server.service.request import Timeline

RECORD = StreamRecord("camera", "detector", "1", "frames", uid=7, index=3)
steps = st.integers(0, 50_000_000)


@st.composite
def timelines(draw):
    """Timelines as the service stamps them: times rise, some were never reached."""
    instants = [10**12 + draw(steps)]
    for _ in range(5):
        instants.append(instants[-1] + draw(steps))
    reached = draw(st.integers(0, 4))
    middle = [instant if index < reached else 0 for index, instant in enumerate(instants[1:5])]
    return Timeline(instants[0], *middle, instants[5], draw(steps), draw(steps), draw(steps))


@given(st.lists(timelines(), min_size=1, max_size=8))
@settings(max_examples=60)
def test_durations_are_those_of_the_timeline(times):
    rows = read_events([FrameEvent(RECORD, timeline, None, None) for timeline in times])
    assert durations_us(rows).T.tolist() == [list(astuple(timeline.durations_us())) for timeline in times]


def test_columns_hold_what_the_event_says():
    rows = read_events(
        [
            FrameEvent(RECORD, Timeline(built_ns=5), None, None, 9, None, (1280, 720), 3),
            FrameEvent(RECORD, Timeline(), Outcome.EXPIRED, 4),
        ]
    )
    assert rows[OUTCOME].tolist() == [OK, OUTCOMES.index(Outcome.EXPIRED)]
    assert rows[STREAM].tolist() == [3, 3]
    assert rows[BUILT].tolist() == [5, 0]
    assert rows[SIZE].tolist() == [1280 << SIDE_BITS | 720, 0]
    assert rows[FOUND].tolist() == [3, -1]


def test_no_events_are_no_rows():
    assert read_events([]).shape[1] == 0


@given(st.lists(st.integers(0, 12), max_size=20))
@settings(max_examples=40)
def test_ring_keeps_the_latest(sizes):
    ring = FrameRing(10)
    added = []
    for size in sizes:
        rows = read_events([FrameEvent(RECORD, Timeline(built_ns=len(added) + i + 1), None, None) for i in range(size)])
        added += rows[BUILT].tolist()
        ring.add(rows)
    assert ring.latest()[BUILT].tolist() == added[-10:]
    assert ring.latest(3)[BUILT].tolist() == added[-10:][-3:]
    for since in range(len(added) + 2):
        assert ring.since(since)[BUILT].tolist() == [built for built in added[-10:] if built >= since]
        assert ring.since(since, 2)[BUILT].tolist() == [built for built in added[-10:] if built >= since][-2:]


def test_ring_forgets_places():
    ring = FrameRing(4)
    ring.add(read_events([FrameEvent(RECORD, Timeline(), None, None)]))
    ring.forget([3])
    assert ring.latest()[STREAM].tolist() == [-1]


def test_histogram_counts_by_bucket():
    histograms = Histograms(2)
    histograms.add(np.array([[500, 501, 99_000_000], [1, 2, 3]]))
    first, second = histograms.snapshot(0), histograms.snapshot(1)
    assert first.counts[0] == 1  # a duration on a bound belongs below it
    assert first.counts[1] == 1
    assert first.counts[len(BOUNDS_S)] == 1
    assert (first.count, second.count) == (3, 3)
    assert second.sum_s == 6e-6


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 100) | st.integers(0, 2**42 - 1)), max_size=30))
@settings(max_examples=40)
def test_grouped_quantiles_are_nearest_rank(pairs):
    groups = np.array([group for group, _ in pairs], np.int64)
    found = grouped_quantiles(groups, np.array([value for _, value in pairs], np.int64), (0.5, 0.99))
    for group in set(groups.tolist()):
        values = sorted(value for g, value in pairs if g == group)
        assert found[group] == tuple(values[int(np.ceil(q * len(values))) - 1] for q in (0.5, 0.99))
    assert set(found) == set(groups.tolist())


def test_grouped_quantiles_of_durations_that_cannot_be_are_the_least_and_the_most():
    found = grouped_quantiles(np.array([5, 2**20]), np.array([-1, 2**62]), (0.5,))
    assert found == {5: (0,), 2**20: (2**42 - 1,)}


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=50), st.floats(0, 1))
def test_quantiles_are_nearest_rank(values, q):
    assert quantiles(np.array(values), (q,)) == [sorted(values)[max(0, math.ceil(q * len(values)) - 1)]]
