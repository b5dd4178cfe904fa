"""Counts of one process, sent as changes and added elsewhere: nothing is lost or counted twice."""

from dataclasses import replace
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.errors import Outcome
from forebay_server.service.journal.count_changes import add, change
from forebay_server.service.journal.statistics import Counts, Successes, VersionStatistics
from forebay_server.service.request import Completion, Timeline
from tests.support.clock import ManualClock
from tests.support.requests import frame_request

outcomes = st.sampled_from([Outcome.EXPIRED, Outcome.CANCELLED, Outcome.FAILED, Outcome.INVALID])
events = st.one_of(
    st.tuples(st.just("refused"), outcomes, st.integers(1, 5)),
    st.tuples(st.just("succeeded"), st.integers(1, 9), st.integers(1, 100)),
    st.tuples(st.just("batch"), st.integers(1, 4), st.integers(1, 100)),
    st.tuples(st.just("told"), st.none(), st.none()),
)


def happen(statistics, kind, what, count):
    if kind == "refused":
        statistics.add_refusals(what, count, 10 * count)
    elif kind == "succeeded":
        statistics.add_successes(Successes(what, count, count, count, count, count))
    else:
        request = frame_request(1, None, arrival_ns=1)
        request.timeline = Timeline(received_ns=1, formed_ns=2, h2d_ns=count, execute_ns=count, d2h_ns=count)
        statistics.observe([Completion(request, None, ()) for _ in range(what)])


@given(st.lists(events, max_size=20), st.lists(events, max_size=6))
def test_the_sum_of_all_changes_is_the_whole(elsewhere, here):
    theirs, ours, both = (VersionStatistics(ManualClock()) for _ in range(3))
    told = Counts()
    for event in (*elsewhere, ("told", None, None)):
        if event[0] != "told":
            happen(theirs, *event)
            happen(both, *event)
            continue
        counts = theirs.snapshot()
        changed = change(counts, told)
        if changed is not None:
            ours.add(partial(add, more=changed))
        told = counts
    for event in here:
        if event[0] != "told":
            happen(ours, *event)
            happen(both, *event)
    found, expected = (replace(each.snapshot(), last_inference_ms=0) for each in (ours, both))
    assert found == expected


def test_nothing_new_is_no_change():
    statistics = VersionStatistics(ManualClock())
    happen(statistics, "batch", 2, 7)
    assert change(statistics.snapshot(), statistics.snapshot()) is None
