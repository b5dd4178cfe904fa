import json
from itertools import pairwise

import pytest

from forebay_server.service.errors import Outcome
from forebay_server.service.observe.timeline import strip, trace_chunks
from tests.support.observing import MS, SECOND, Observed, check_format, lanes


def trace(observed, seconds=5.0):
    return json.loads("".join(trace_chunks(observed.observer, seconds, observed.clock.now_ns())))


def busy_pipeline():
    observed = Observed()
    record = observed.open('camera \N{PILE OF POO}\n"quoted"')
    for index in range(20):  # a batch every 8 ms, of 10 ms from upload to readable
        observed.batch(8 * index, batch_id=index + 1)
        observed.clock.advance(8 * MS)
        observed.frame(record)
    observed.frame(record, outcome=Outcome.SUPERSEDED)
    observed.tick()
    return observed


def test_a_trace_follows_the_format():
    document = trace(busy_pipeline())
    check_format(document)
    assert document["displayTimeUnit"] == "ms"


def test_three_lanes_of_successive_batches_overlap():
    slices = lanes(trace(busy_pipeline()))
    assert set(slices) == {"h2d", "execute", "d2h"}
    for index in range(1, 19):
        h2d, execute, d2h = (slices[stage] for stage in ("h2d", "execute", "d2h"))
        assert h2d[index + 1][0] < execute[index][1], "the next upload begins while this batch executes"
        assert d2h[index - 1][1] > execute[index][0], "the last download goes on while this batch executes"


def test_slices_of_one_thread_never_overlap():
    observed = Observed()
    for index in range(10):  # as if the d2h thread had been late: executions seem to overlap
        observed.batch(5 * index, batch_id=index, execute_ms=8)
    observed.tick()
    for stage in lanes(trace(observed)).values():
        assert all(before[1] <= after[0] for before, after in pairwise(stage))


def test_only_the_seconds_asked_for_are_told():
    observed = busy_pipeline()
    observed.tick(30_000)
    assert lanes(trace(observed, 5.0)) == {}
    assert len(lanes(trace(observed, 60.0))["execute"]) == 20


def test_an_empty_server_has_a_valid_trace():
    check_format(trace(Observed()))


@pytest.mark.parametrize("limit", [5, 100])
def test_strip_tells_the_latest_batches_in_microseconds(limit):
    observed = busy_pipeline()
    rows = strip(observed.observer, 1000 * SECOND, limit)
    assert len(rows) == min(limit, 20)
    assert rows[-1] == [0, 4, 152_000, 153_000, 153_000, 161_000, 161_000, 162_000]
