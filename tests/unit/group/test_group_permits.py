"""A front-end process has its part of the permits, more while others leave some, and never more than its buffers."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.errors import OverloadedError
from forebay_server.service.group.group_permits import GroupPermits
from forebay_server.service.group.shared_counts import PermitCounts
from forebay_server.service.pipeline.shares import Share
from tests.support.clock import ManualClock
from tests.support.guard import HANG_GUARD_S


def group(front_ends, permits):
    counts = PermitCounts(memoryview(bytearray(PermitCounts.BYTES)), front_ends)
    slots = min(permits, -(-2 * permits // front_ends))
    processes = [GroupPermits(counts, i, front_ends, permits, slots, ManualClock()) for i in range(front_ends)]
    return processes, counts, slots


def take_all(permits, share):
    taken = 0
    while True:
        try:
            permits.take(share)
        except OverloadedError:
            return taken
        taken += 1


def test_a_process_that_is_alone_gets_all_its_buffers():
    (first, *_), _, slots = group(4, 64)
    assert take_all(first, Share()) == slots == 32


def test_a_process_whose_neighbours_are_busy_gets_its_part_all_the_same():
    (first, second, third, fourth), _, _ = group(4, 64)
    assert [take_all(each, Share()) for each in (first, second, third, fourth)] == [32, 32, 16, 16]


def test_what_one_gives_back_the_others_may_have_at_their_next_take():
    (first, second, third, _), _, _ = group(4, 64)
    camera, other = Share(), Share()
    assert take_all(first, camera) + take_all(second, Share()) == 64
    assert take_all(third, other) == 16
    for _ in range(32):
        first.give_back(camera)
    assert take_all(third, other) == 16


def test_streams_of_a_process_share_what_it_may_have_now():
    (first, second, third, _), _, _ = group(4, 64)
    greedy, camera = Share(), Share()
    assert [take_all(first, greedy), take_all(second, Share()), take_all(third, Share())] == [32, 32, 16]
    with pytest.raises(OverloadedError):
        first.take(camera)
    for _ in range(17):
        first.give_back(greedy)
    assert take_all(first, camera) == 1, "it may have 16 now, of which it has 15"
    with pytest.raises(OverloadedError):
        first.take(greedy)


def test_a_successor_begins_with_none():
    (first, _), counts, _ = group(2, 8)
    take_all(first, Share())
    GroupPermits(counts, 0, 2, 8, 8, ManualClock())
    assert counts.read(0) == 0


EVENTS = st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=200)


@given(st.integers(1, 4), st.integers(1, 24), EVENTS)
def test_no_order_of_events_exceeds_the_buffers_or_denies_a_process_its_part(front_ends, permits, events):
    processes, counts, slots = group(front_ends, permits)
    held = [[] for _ in processes]
    shares = [Share() for _ in processes]
    for number, is_take in events:
        index = number % front_ends
        if is_take:
            others = sum(len(each) for each in held) - len(held[index])
            allowed = min(slots, max(1, permits // front_ends, permits - others))
            try:
                held[index].append(processes[index].take(shares[index]))
                assert len(held[index]) <= allowed
            except OverloadedError:
                assert len(held[index]) >= allowed
        elif held[index]:
            processes[index].give_back(held[index].pop())
        assert [counts.read(i) for i in range(front_ends)] == [len(each) for each in held]


class PausingCounts(PermitCounts):
    """The first write of a count pauses in the thread that a test chose, until the test lets it go on."""

    slow_thread = None

    def __init__(self, memory, front_ends):
        super().__init__(memory, front_ends)
        self.pauses, self.may_go_on = threading.Event(), threading.Event()

    def write(self, front_end, count):
        if threading.current_thread() is self.slow_thread:
            self.pauses.set()
            self.may_go_on.wait(HANG_GUARD_S)
        super().write(front_end, count)


def test_the_count_that_others_read_is_that_of_the_last_return():
    """A count that is written late stays while its process is idle, and keeps permits from the others."""
    counts = PausingCounts(memoryview(bytearray(PermitCounts.BYTES)), 2)
    permits = GroupPermits(counts, 0, 2, 8, 8, ManualClock())
    held = [permits.take() for _ in range(2)]
    slow, quick = (threading.Thread(target=permits.give_back, args=(share,)) for share in held)
    counts.slow_thread = slow
    slow.start()
    counts.pauses.wait(HANG_GUARD_S)
    quick.start()
    if not permits._lock.locked():  # else it waits for the slow one
        quick.join()
    counts.may_go_on.set()
    slow.join()
    quick.join()
    assert counts.read(0) == permits.taken_count == 0
