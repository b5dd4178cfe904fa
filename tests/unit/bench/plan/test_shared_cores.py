"""Threads that share cores: nothing is faster than alone, and no work is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.bench.plan.shared_cores import SharedCores

jobs = st.lists(
    st.tuples(st.integers(0, 10_000), st.integers(1, 10_000), st.integers(1, 4)), min_size=1, max_size=20
).map(sorted)


def run(cores, arrivals):
    """Run jobs `(at_ns, work_ns, strands)`; return when each ended, and the cores' account."""
    shared, ends, position = SharedCores(cores), {}, 0
    while position < len(arrivals) or shared.next_end_ns() is not None:
        due = [arrivals[position][0]] if position < len(arrivals) else []
        due += [at_ns] if (at_ns := shared.next_end_ns()) is not None else []
        now_ns = min(due)
        shared.advance(now_ns)
        while shared.end_due():
            pass
        while position < len(arrivals) and arrivals[position][0] <= now_ns:
            _, work_ns, strands = arrivals[position]
            shared.begin(work_ns, lambda at_ns, index=position: ends.__setitem__(index, at_ns), strands)
            position += 1
    return [ends[index] for index in range(len(arrivals))], shared


def test_a_job_alone_takes_its_work():
    assert run(1.0, [(5, 100, 1)])[0] == [105]


def test_two_jobs_on_one_core_take_twice_as_long():
    assert run(1.0, [(0, 100, 1), (0, 100, 1)])[0] == [200, 200]


def test_two_jobs_on_two_cores_do_not_notice_each_other():
    assert run(2.0, [(0, 100, 1), (0, 100, 1)])[0] == [100, 100]


def test_a_short_job_slows_a_long_one_down_only_while_it_lasts():
    assert run(1.0, [(0, 100, 1), (0, 10, 1)])[0] == [110, 20]


def test_a_job_of_several_strands_takes_as_many_cores():
    assert run(2.0, [(0, 100, 2), (0, 100, 1)])[0] == [150, 150]


@given(jobs, st.integers(1, 4))
def test_nothing_is_faster_than_alone_and_all_work_is_done(arrivals, cores):
    ends, shared = run(float(cores), arrivals)
    for (at_ns, work_ns, _), end_ns in zip(arrivals, ends, strict=True):
        assert end_ns >= at_ns + work_ns - 1
    work_ns = sum(work_ns * strands for _, work_ns, strands in arrivals)
    assert shared.busy_ns == pytest.approx(work_ns, abs=10 * len(arrivals))
    assert shared.busy_ns <= (max(ends) - arrivals[0][0]) * cores + 10 * len(arrivals)


@given(jobs, st.integers(1, 3))
def test_more_cores_end_nothing_later(arrivals, cores):
    few, _ = run(float(cores), arrivals)
    more, _ = run(float(cores + 1), arrivals)
    assert all(late <= early + len(arrivals) for early, late in zip(few, more, strict=True))


def test_slower_cores_take_longer_and_are_as_busy():
    shared, ends = SharedCores(1.0), []
    shared.begin(100, ends.append)
    shared.advance(50)
    shared.set_speed(0.5)
    assert shared.next_end_ns() == 150
    shared.advance(150)
    assert shared.end_due()
    assert ends == [150]
    assert shared.busy_ns == 150
