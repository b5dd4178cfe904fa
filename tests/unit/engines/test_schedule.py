"""The simulated device's time: costs, overlap, hold and release."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.engines.simulated.schedule import Operation, Point, Schedule


def test_operations_of_a_lane_follow_each_other():
    schedule = Schedule()
    queue = schedule.queue("a")
    first = schedule.enqueue(queue, "x", 10, now_ns=100)
    second = schedule.enqueue(queue, "y", 5, now_ns=103)
    assert (first.done_ns, second.done_ns) == (110, 115)
    assert list(schedule.history) == [Operation("a", "x", 100, 110), Operation("a", "y", 110, 115)]


def test_operations_of_two_lanes_overlap_unless_one_waits_for_the_other():
    schedule = Schedule()
    a, b = schedule.queue("a"), schedule.queue("b")
    first = schedule.enqueue(a, "x", 10, now_ns=0)
    assert schedule.enqueue(b, "y", 4, now_ns=0).done_ns == 4
    assert schedule.enqueue(b, "z", 4, now_ns=0, after=first).done_ns == 14


def test_an_idle_lane_starts_when_the_work_comes():
    schedule = Schedule()
    queue = schedule.queue("a")
    schedule.enqueue(queue, "x", 10, now_ns=0)
    assert schedule.enqueue(queue, "y", 10, now_ns=50).done_ns == 60


def test_a_held_lane_and_all_that_waits_for_it_have_no_end_until_release():
    schedule = Schedule()
    a, b = schedule.queue("a"), schedule.queue("b")
    schedule.hold(a)
    held = schedule.enqueue(a, "x", 10, now_ns=0)
    waiting = schedule.enqueue(b, "y", 1, now_ns=0, after=held)
    behind = schedule.enqueue(b, "z", 1, now_ns=0)
    assert (held.done_ns, waiting.done_ns, behind.done_ns) == (None, None, None)
    schedule.release(a, now_ns=500)
    assert (held.done_ns, waiting.done_ns, behind.done_ns) == (510, 511, 512)


def test_releasing_a_lane_that_is_not_held_changes_nothing():
    schedule = Schedule()
    queue = schedule.queue("a")
    schedule.release(queue, now_ns=500)
    assert schedule.enqueue(queue, "x", 1, now_ns=0).done_ns == 1


def test_work_that_costs_nothing_leaves_no_history():
    schedule = Schedule()
    schedule.enqueue(schedule.queue("a"), "record", 0, now_ns=5)
    assert not schedule.history


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["enqueue", "enqueue", "hold", "release"]),
        st.integers(0, 2),
        st.integers(0, 20),
        st.integers(0, 30),
    ),
    max_size=40,
)


@given(STEPS)
def test_once_all_is_released_every_end_is_the_earliest_that_its_causes_allow(steps):
    schedule = Schedule()
    queues = [schedule.queue(str(number)) for number in range(3)]
    ends: list[tuple[int, int, int, Point | None, Point]] = []
    now_ns = 0
    for verb, number, cost_ns, back in steps:
        now_ns += 3
        if verb == "enqueue":
            after = ends[-back][4] if 0 < back <= len(ends) else None
            end = schedule.enqueue(queues[number], "x", cost_ns, now_ns, after)
            ends.append((number, cost_ns, now_ns, after, end))
        else:
            getattr(schedule, verb)(queues[number], *([now_ns] if verb == "release" else []))
    for queue in queues:
        schedule.release(queue, now_ns)
    free_ns = [0, 0, 0]
    for number, cost_ns, enqueued_ns, after, end in ends:
        earliest_ns = max(free_ns[number], enqueued_ns, after.done_ns if after else 0)
        assert end.done_ns is not None
        assert end.done_ns >= earliest_ns + cost_ns
        if not any(verb == "hold" for verb, *_ in steps):
            assert end.done_ns == earliest_ns + cost_ns
        free_ns[number] = end.done_ns


@pytest.mark.parametrize("queues", [1, 3])
def test_history_is_bounded(queues):
    schedule = Schedule()
    made = [schedule.queue(str(number)) for number in range(queues)]
    for step in range(6000):
        schedule.enqueue(made[step % queues], "x", 1, now_ns=0)
    assert len(schedule.history) == schedule.history.maxlen


def test_a_queue_that_is_removed_leaves_another_of_its_name_at_work():
    schedule = Schedule()
    first, second = schedule.queue("video"), schedule.queue("video")
    schedule.remove(second)
    assert schedule.enqueue(first, "copy", 5, 10).done_ns == 15
