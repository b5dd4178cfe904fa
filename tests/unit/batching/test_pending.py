"""The pending queue: order, latest-wins, groups, queue policies; and that no request is ever lost."""

import threading
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.batching.constants import MAX_IDLE_STREAMS
from forebay_server.service.batching.endings import Reason
from forebay_server.service.batching.pending import PendingQueue
from forebay_server.service.batching.policy import _earliest_deadline_ns, _hopeless
from forebay_server.service.batching.settings import BatchingSettings, QueuePolicy, TimeoutAction
from forebay_server.service.request import Delivery
from tests.support.batching import MS, client, request, stream


def queue_of(*requests, now_ns=0, **options):
    pending = PendingQueue(BatchingSettings(32, **options), 9.4 * MS)
    ended = [ending for one in requests for ending in pending.push(one, now_ns)]
    return pending, ended


def order(pending):
    """Ids by group, in order."""
    return {key: [item.id for item in group.queue] for key, group in sorted(pending.groups.items(), key=str)}


def only_order(pending):
    (ids,) = order(pending).values()
    return ids


def test_earliest_deadline_is_first():
    late, soon = request(budget_ms=50), request(budget_ms=20)
    pending, _ = queue_of(late, soon)
    assert only_order(pending) == [soon.id, late.id]


def test_frames_of_a_stream_keep_their_order_whatever_their_deadlines():
    camera = stream()
    first, second, third = (request(on=camera, budget_ms=ms) for ms in (50, 10, 30))
    other = request(budget_ms=20)
    pending, _ = queue_of(first, second, third, other)
    assert only_order(pending) == [first.id, second.id, other.id, third.id]


def test_independent_calls_of_one_client_overtake_each_other():
    caller = client()
    patient, urgent = request(0, None, on=caller), request(0, 10, on=caller)
    other = request(0, 20)
    pending, _ = queue_of(patient, urgent, other)
    assert only_order(pending) == [urgent.id, other.id, patient.id]


def test_independent_calls_of_one_client_never_hold_each_other():
    caller = client()
    requests = [request(on=caller, key="small"), request(on=caller, key="large"), request(on=caller, key="small")]
    pending, _ = queue_of(*requests)
    assert not pending.blocked()
    assert sorted(map(len, order(pending).values())) == [1, 2]


def test_independent_calls_of_one_client_have_one_share():
    caller = client()
    pending, _ = queue_of(*(request(on=caller, budget_ms=budget_ms) for budget_ms in (None, 10, 20)))
    assert pending.streams == 1
    (group,) = pending.groups.values()
    shares = {id(item.entry.stream.share): item.entry.stream.share for item in group.queue}
    assert len(shares) == 1
    pending.take([item.id for item in group.queue], 0)
    assert [share.served for share in shares.values()] == [3.0]


def test_timeouts_of_what_has_left_do_not_add_up():
    pending, _ = queue_of(request(0, None, timeout_ms=5))  # keeps the top: those behind it are not looked at
    for _ in range(1_000):
        far = request(0, None, timeout_ms=10**9)
        pending.push(far, 0)
        pending.take([far.id], 0)
    assert len(pending.timeouts) < 100
    assert pending.timeouts.next_ns == 5 * MS


def test_independent_call_that_is_delayed_moves_alone():
    caller = client()
    policy = QueuePolicy(TimeoutAction.DELAY, default_timeout_us=5_000)
    first, second = request(0, None, on=caller), request(3 * MS, None, on=caller)
    pending, _ = queue_of(first, second, default_queue_policy=policy)
    pending.time_out(5 * MS)
    assert only_order(pending) == [second.id, first.id]


def test_stream_falls_back_when_its_urgent_frame_is_gone():
    camera = stream()
    first, urgent = request(on=camera, budget_ms=50), request(on=camera, budget_ms=10)
    other = request(budget_ms=20)
    pending, _ = queue_of(first, urgent, other)
    pending.discard(urgent.id)
    assert only_order(pending) == [other.id, first.id]


def test_request_without_deadline_stands_behind_frames_but_not_for_ever():
    patient = request(0, None)
    frame, much_later = request(0, 33), request(2_000 * MS, 33)
    pending, _ = queue_of(patient, frame, much_later)
    assert only_order(pending) == [frame.id, patient.id, much_later.id]


def test_distant_deadline_is_no_worse_than_none():
    distant, much_later, soon = request(0, 60_000), request(2_000 * MS, 33), request(0, 900)
    pending, _ = queue_of(distant, much_later, soon)
    assert only_order(pending) == [soon.id, distant.id, much_later.id]


def test_requests_of_another_batch_key_wait_in_another_group():
    small, large = request(key="small"), request(key="large")
    pending, _ = queue_of(small, large)
    assert sorted(map(len, order(pending).values())) == [1, 1]


def test_frame_behind_one_of_another_batch_key_is_held_until_that_is_gone():
    camera = stream()
    first, second = request(on=camera, key="small"), request(on=camera, key="large")
    pending, _ = queue_of(first, second)
    assert only_order(pending) == [first.id]
    assert [entry.id for entry in pending.blocked()] == [second.id]
    pending.take([first.id], 0)
    assert only_order(pending) == [second.id]
    assert not pending.blocked()


def test_latest_stream_keeps_the_newest_frame_only():
    camera = stream(delivery=Delivery.LATEST)
    frames = [request(on=camera) for _ in range(3)]
    pending, ended = queue_of(*frames)
    assert only_order(pending) == [frames[2].id]
    assert ended == [(frames[0], Reason.SUPERSEDED), (frames[1], Reason.SUPERSEDED)]


def test_full_level_refuses_the_newcomer_only():
    policy = QueuePolicy(max_queue_size=2)
    requests = [request() for _ in range(3)]
    pending, ended = queue_of(*requests, default_queue_policy=policy)
    assert len(pending) == 2
    assert ended == [(requests[2], Reason.QUEUE_FULL)]


def test_newer_frame_replaces_the_waiting_one_even_when_the_level_is_full():
    camera = stream(delivery=Delivery.LATEST)
    old, new = request(on=camera), request(on=camera)
    pending, ended = queue_of(old, new, default_queue_policy=QueuePolicy(max_queue_size=1))
    assert ended == [(old, Reason.SUPERSEDED)]
    assert only_order(pending) == [new.id]


def test_queue_size_is_counted_per_level():
    settings = {
        "priority_levels": 2,
        "default_priority_level": 2,
        "default_queue_policy": QueuePolicy(max_queue_size=1),
    }
    pending, ended = queue_of(request(priority=1), request(priority=2), request(priority=1), **settings)
    assert len(pending) == 2
    assert [reason for _, reason in ended] == [Reason.QUEUE_FULL]


def test_levels_that_clients_think_of_leave_nothing_behind():
    pending, _ = queue_of(priority_levels=2**64 - 1, default_priority_level=1)
    for priority in range(1, 2**64, 2**56):
        one = request(priority=priority)
        pending.push(one, 0)
        pending.take([one.id], 0)
    assert (pending._level_counts, pending.groups) == ({}, {})


def test_request_larger_than_any_batch_is_refused():
    giant = request(rows=33)
    pending, ended = queue_of(giant)
    assert ended == [(giant, Reason.TOO_LARGE)]
    assert not len(pending)


def test_queue_timeout_rejects():
    short, long = request(timeout_ms=5), request(timeout_ms=9)
    pending, _ = queue_of(short, long)
    assert pending.timeouts.next_ns == 5 * MS
    assert pending.time_out(5 * MS) == [(short, Reason.TIMED_OUT)]
    assert only_order(pending) == [long.id]


def test_queue_timeout_under_delay_moves_behind_everything_unexpired():
    policy = QueuePolicy(TimeoutAction.DELAY, default_timeout_us=5_000)
    first, second = request(0, 20), request(3 * MS, 40)
    pending, _ = queue_of(first, second, default_queue_policy=policy)
    assert not pending.time_out(5 * MS)
    assert only_order(pending) == [second.id, first.id]


def test_shorter_of_default_and_wished_timeout_counts():
    policy = QueuePolicy(default_timeout_us=10_000)
    pending, _ = queue_of(request(timeout_ms=50), request(timeout_ms=2), default_queue_policy=policy)
    assert [reason for _, reason in pending.time_out(2 * MS)] == [Reason.TIMED_OUT]
    assert len(pending.time_out(10 * MS)) == 1


def test_absurdly_long_timeout_is_an_instant_that_a_clock_can_wait_for():
    pending, _ = queue_of(request(timeout_ms=(2**63 - 1) // 1000))
    assert pending.timeouts.next_ns / 1e9 < threading.TIMEOUT_MAX


def test_timeout_of_a_request_that_left_is_forgotten():
    gone = request(timeout_ms=5)
    pending, _ = queue_of(gone, request(timeout_ms=7))
    pending.take([gone.id], 0)
    assert pending.timeouts.next_ns == 7 * MS


def test_silent_streams_are_forgotten():
    pending, _ = queue_of()
    for index in range(100):
        one = request(index * MS)
        pending.push(one, index * MS)
        pending.take([one.id], index * MS)
    assert pending.streams == 100
    assert pending.waiting_streams == 0
    pending.push(request(10**12), 10**12)
    assert pending.streams == 1
    assert pending.waiting_streams == 1


@st.composite
def operations(draw):
    return draw(
        st.lists(
            st.one_of(
                st.tuples(
                    st.just("push"),
                    st.integers(0, 4),  # stream; 4 is a client with independent calls
                    st.sampled_from(["a", "b"]),  # batch key
                    st.sampled_from([None, 1, 5, 33, 2_000]),  # budget
                    st.integers(0, 3),  # priority
                    st.sampled_from([None, 2]),  # timeout
                ),
                st.tuples(st.just("take"), st.integers(0, 50)),
                st.tuples(st.just("discard"), st.integers(0, 50)),
                st.tuples(st.just("time"), st.integers(0, 4)),
            ),
            max_size=60,
        )
    )


@given(operations(), st.sampled_from(TimeoutAction))
def test_nothing_is_lost_and_streams_keep_their_order_whatever_happens(steps, action):
    settings = BatchingSettings(
        4, priority_levels=2, default_priority_level=2, default_queue_policy=QueuePolicy(action, 3_000)
    )
    pending = PendingQueue(settings, 9.4 * MS)
    streams = [stream(str(n), Delivery.LATEST if n == 3 else Delivery.EVERY) for n in range(4)] + [client()]
    here, now_ns = {}, 0
    for kind, *args in steps:
        if kind == "push":
            index, key, budget_ms, priority, timeout_ms = args
            one = request(now_ns, budget_ms, on=streams[index], key=key, priority=priority, timeout_ms=timeout_ms)
            here[one.id] = one
            for ended, _ in pending.push(one, now_ns):
                del here[ended.id]
        elif kind == "time":
            now_ns += args[0] * MS
            for ended, _ in pending.time_out(now_ns):
                del here[ended.id]
        elif here:
            free = [item.id for group in pending.groups.values() for item in group.queue]
            ids = sorted(free) if kind == "take" else sorted(here)
            chosen = ids[args[0] % len(ids)]
            if kind == "take":
                pending.take([chosen], now_ns)
            else:
                pending.discard(chosen)
            del here[chosen]
        check(pending, here)
        lost = {one.id for one in here.values() if one.deadline_ns is not None and one.deadline_ns < now_ns + 6 * MS}
        assert set(_hopeless(pending, now_ns + 6 * MS)) == lost


def check(pending, here):
    placed = {}
    for group in pending.groups.values():
        assert group.queue == sorted(group.queue)
        assert group.rows == sum(item.entry.rows for item in group.queue) > 0
        assert group.unlimited_entries == sum(item.entry.request.deadline_ns is None for item in group.queue)
        assert group.early_entries == sum(item.order_key < item.entry.deadline_ns for item in group.queue)
        assert group.delayed_entries == sum(item.order_key > item.entry.deadline_ns for item in group.queue)
        assert _earliest_deadline_ns(group) == min(item.entry.deadline_ns for item in group.queue)
        last = {}
        for item in group.queue:
            assert item.entry.request.batch_key == group.batch_key
            placed[item.id] = item.id
            if item.entry.ordered_stream is not None:
                assert last.get(item.entry.ordered_stream, -1) < item.id, "a stream's frames are out of order"
                last[item.entry.ordered_stream] = item.id
    held = {entry.id for entry in pending.blocked()}
    assert pending.blocked_entries == len(held)
    waiting = Counter(one.stream for one in here.values())
    assert {key: state.entries for key, state in pending._streams.by_key.items() if state.entries} == waiting
    assert all(bool(state.waiting) == (state.key.is_ordered and state.entries > 0) for state in pending._streams)
    assert set(placed) | held == set(here)
    assert not set(placed) & held
    for group in pending.groups.values():
        for item in group.queue:
            if item.entry.ordered_stream is None:
                assert item.entry.order_key == item.entry.own_key
                continue
            before = [r for r in here.values() if r.stream is item.entry.request.stream and r.id < item.id]
            assert all(r.batch_key == group.batch_key for r in before), "overtakes one of another group"


def test_streams_that_come_and_go_are_remembered_up_to_a_limit_and_the_latest_longest():
    pending, _ = queue_of()
    camera, waiting = stream(), request()
    pending.push(waiting, 0)
    for now_ns in range(3 * MAX_IDLE_STREAMS):
        passing = [request(), *([request(on=camera)] if now_ns % 100 == 0 else [])]
        for each in passing:
            pending.push(each, now_ns)
            pending.discard(each.id)
        assert pending.streams <= MAX_IDLE_STREAMS + 2 * len(pending) + 1
    assert camera in pending._streams.by_key
    assert pending.streams > MAX_IDLE_STREAMS // 3
    assert waiting.id in pending
