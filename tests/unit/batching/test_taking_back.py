"""A batch that is bound and not started counts as waiting: its requests' timeouts and deadlines go on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.batching.settings import BatchingSettings, QueuePolicy, TimeoutAction
from forebay_server.service.batching.taking_back import LOOK_AGAIN_NS
from forebay_server.service.errors import Outcome
from forebay_server.service.request import Delivery
from tests.support.batching import MS, CoreRig, StrictLane, client, cost_model, stream

BOUND_BY_MS = 100.0  # the batch in front is predicted to take this long, so that the next one is bound before


def overrunning(settings=None, *, largest=4, slots=4):
    """A rig whose only lane executes a batch that takes much longer than predicted; bound batches do not start."""
    rig = CoreRig(
        settings or BatchingSettings(largest),
        cost_model(largest, alpha_ms=BOUND_BY_MS),
        [StrictLane(0, slots, is_late=True)],
    )
    rig.arrive(None)
    assert rig.lanes[0].start(rig.batches[0])
    return rig


def bound(rig):
    """Let time pass until the next batch is bound; return its requests."""
    (batch,) = rig.advance(BOUND_BY_MS)
    return list(batch.requests)


def test_queue_timeout_reaches_a_request_that_is_bound():
    rig = overrunning()
    short = rig.arrive(None, timeout_ms=200)
    assert bound(rig) == [short]
    rig.advance_to(short.arrival_ns + 200 * MS - 1)
    assert rig.ended() == {}
    rig.advance_to(short.arrival_ns + 200 * MS)
    assert rig.ended() == {short: Outcome.EXPIRED}
    rig.assert_quiet_after_all()


def test_deadline_reaches_a_request_that_is_bound():
    rig = overrunning()
    frame = rig.arrive(400)
    assert bound(rig) == [frame]
    lost_ns = int(frame.deadline_ns - rig.cost.least_service_ns()) + 1
    rig.advance_to(lost_ns - 1)
    assert rig.ended() == {}
    rig.advance_to(lost_ns)
    assert rig.ended() == {frame: Outcome.EXPIRED}
    rig.assert_quiet_after_all()


def test_the_others_of_the_batch_are_bound_anew_with_whoever_has_come():
    rig = overrunning()
    short, patient = rig.arrive(None, timeout_ms=200), rig.arrive(None)
    assert bound(rig) == [short, patient]
    rig.advance(150)
    newcomer = rig.arrive(None)
    assert rig.ended() == {short: Outcome.EXPIRED}
    (again,) = rig.finish(rig.running[0])
    assert list(again.requests) == [patient, newcomer]
    rig.assert_quiet_after_all()


def test_what_has_started_is_answered_late_but_answered():
    rig = overrunning()
    frame = rig.arrive(400, timeout_ms=200)
    bound(rig)
    assert rig.lanes[0].start(rig.batches[1])
    rig.advance(10_000)
    assert rig.ended() == {}
    rig.assert_quiet_after_all()
    assert list(rig.batches[1].requests) == [frame]


def test_a_batch_whose_upload_reads_its_requests_is_taken_back_a_moment_later():
    rig = overrunning()
    short = rig.arrive(None, timeout_ms=200)
    bound(rig)
    assert rig.batches[1].claim.hold()
    rig.advance_to(short.arrival_ns + 200 * MS)
    assert rig.ended() == {}
    assert rig.wake_ns == rig.now_ns + LOOK_AGAIN_NS
    rig.batches[1].claim.let_go()
    rig.advance_to(rig.wake_ns)
    assert rig.ended() == {short: Outcome.EXPIRED}


def test_cancelled_request_of_a_batch_that_is_taken_back_ends_cancelled():
    rig = overrunning()
    short, gone = rig.arrive(None, timeout_ms=200), rig.arrive(None)
    bound(rig)
    gone.is_cancelled = True
    rig.advance(200)
    assert rig.ended() == {short: Outcome.EXPIRED, gone: Outcome.CANCELLED}


def test_nothing_is_taken_back_while_the_former_drains():
    rig = overrunning()
    short = rig.arrive(None, timeout_ms=200)
    bound(rig)
    rig.core.is_draining = True
    rig.advance(1_000)
    assert rig.ended() == {}
    rig.assert_quiet_after_all()
    assert list(rig.batches[1].requests) == [short]


def test_timeout_under_delay_leaves_a_bound_request_where_it_is():
    policy = QueuePolicy(TimeoutAction.DELAY, default_timeout_us=200_000)
    rig = overrunning(BatchingSettings(4, default_queue_policy=policy))
    late = rig.arrive(None)
    assert bound(rig) == [late]
    rig.advance(1_000)
    assert list(rig.batches[1].requests) == [late]


def test_frames_of_a_stream_keep_their_order_when_their_batch_is_taken_back():
    camera = stream()
    rig = overrunning(BatchingSettings(2), largest=2)
    frames = [rig.arrive(budget_ms, on=camera) for budget_ms in (None, 400, None, None)]
    assert bound(rig) == frames[:2]
    rig.advance(400)
    assert rig.ended() == {frames[1]: Outcome.EXPIRED}
    rig.assert_quiet_after_all()
    executed = [request for batch in rig.batches[1:] for request in batch.requests]
    assert executed == [frames[0], *frames[2:]]


def test_frame_of_another_shape_waits_again_for_the_one_before_it():
    camera = stream()
    rig = overrunning()
    first, short = rig.arrive(None, on=camera, key="small"), rig.arrive(None, key="small", timeout_ms=200)
    assert bound(rig) == [first, short]
    second = rig.arrive(None, on=camera, key="large")
    rig.advance(150)
    assert rig.ended() == {short: Outcome.EXPIRED}
    assert [entry.request for entry in rig.core.pending.blocked()] == [second]
    rig.assert_quiet_after_all()


def test_newer_frame_of_a_latest_stream_replaces_one_that_was_taken_back():
    camera = stream(delivery=Delivery.LATEST)
    rig = overrunning()
    old, short = rig.arrive(None, on=camera), rig.arrive(None, timeout_ms=200)
    assert bound(rig) == [old, short]
    new = rig.arrive(None, on=camera)
    rig.advance(150)
    assert rig.ended() == {short: Outcome.EXPIRED, old: Outcome.SUPERSEDED}
    rig.assert_quiet_after_all()
    assert list(rig.batches[-1].requests) == [new]


def test_frames_of_a_stream_keep_their_order_when_batches_of_two_lanes_are_taken_back():
    camera = stream()
    lanes = [StrictLane(index, is_late=True) for index in range(2)]
    rig = CoreRig(BatchingSettings(2), cost_model(2, alpha_ms=BOUND_BY_MS), lanes)
    for _ in lanes:
        rig.arrive(None)
        rig.advance(1)
    for running in rig.batches:
        assert rig.lanes[running.lane_index].start(running)
    first, second = (
        [rig.arrive(None, on=camera), rig.arrive(None, timeout_ms=300)],
        [rig.arrive(None, on=camera, step=False), rig.arrive(None, timeout_ms=300, step=False)],
    )
    rig.advance(BOUND_BY_MS)
    assert [list(batch.requests) for batch in rig.batches[2:]] == [first, second]
    rig.advance(300)
    assert rig.ended() == {first[1]: Outcome.EXPIRED, second[1]: Outcome.EXPIRED}
    (line,) = [state.waiting for state in rig.core.pending._streams.by_key.values() if state.key is camera]
    assert [entry.request for entry in line] == [first[0], second[0]]
    rig.assert_quiet_after_all()


def test_what_was_taken_back_does_not_count_as_served():
    caller = client()
    rig = overrunning()
    rig.arrive(None, on=caller)
    rig.arrive(None, timeout_ms=200)
    bound(rig)
    share = rig.core.pending._streams.by_key[caller].share
    assert share.served == pytest.approx(1.0)
    rig.advance(150)
    assert share.served == pytest.approx(0.0, abs=0.05)


def test_what_waits_in_a_lane_counts_against_max_queue_size():
    rig = overrunning(BatchingSettings(4, default_queue_policy=QueuePolicy(max_queue_size=2)))
    rig.arrive(None)
    bound(rig)
    fits, refused = rig.arrive(None), rig.arrive(None)
    assert rig.ended() == {refused: Outcome.OVERLOADED}
    assert rig.core.lanes.waiting() == list(rig.batches[1].requests)
    assert fits.id in rig.core.pending


def test_what_runs_does_not_wait_and_what_is_behind_it_does():
    rig = overrunning()
    assert rig.core.lanes.waiting() == []
    behind = rig.arrive(None)
    bound(rig)
    assert rig.lanes[0].start(rig.batches[1])  # its upload has begun, behind a batch that runs
    assert rig.core.lanes.waiting() == [behind]
    rig.finish(rig.batches[0])
    assert rig.core.lanes.waiting() == []


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("arrive"), st.integers(0, 4), st.sampled_from([None, 5, 33, 250]), st.sampled_from([None, 40])
        ),
        st.tuples(st.just("time"), st.integers(1, 60), st.none(), st.none()),
        st.tuples(st.just("start"), st.integers(0, 3), st.none(), st.none()),
        st.tuples(st.just("finish"), st.integers(0, 3), st.none(), st.none()),
        st.tuples(st.just("upload"), st.integers(0, 3), st.booleans(), st.none()),
        st.tuples(st.just("cancel"), st.integers(0, 40), st.none(), st.none()),
    ),
    max_size=50,
)


class Play:
    """Random events on lanes that start their batches in order."""

    def __init__(self, depth, lanes):
        self.rig = CoreRig(
            BatchingSettings(2, depth=depth),
            cost_model(2, alpha_ms=20.0),
            [StrictLane(index, is_late=True) for index in range(lanes)],
        )
        self.streams = [stream("a"), stream("b"), stream("c", Delivery.LATEST), client("d"), client("e")]
        self.uploading = {}

    def first_of_a_lane(self, number, batches):
        firsts = {batch.lane_index: batch for batch in reversed(list(batches))}
        return firsts[sorted(firsts)[number % len(firsts)]] if firsts else None

    def arrive(self, number, budget_ms, timeout_ms):
        self.rig.arrive(budget_ms, on=self.streams[number], timeout_ms=timeout_ms, key=number % 2)

    def time(self, number, *_):
        self.rig.advance(number)

    def start(self, number, *_):
        waiting = (b for b in self.rig.running if b.requests and not b.claim.is_started)
        first = self.first_of_a_lane(number, waiting)
        if first is not None and first.id not in self.uploading:
            assert self.rig.lanes[first.lane_index].start(first)

    def finish(self, number, *_):
        first = self.first_of_a_lane(number, self.rig.running)
        if first is not None and first.id not in self.uploading:
            self.rig.finish(first)

    def upload(self, number, *_):
        if not self.rig.running:
            return
        batch = self.rig.running[number % len(self.rig.running)]
        if batch.id in self.uploading:
            self.uploading.pop(batch.id).claim.let_go()
        elif not batch.claim.is_started and batch.claim.hold():
            self.uploading[batch.id] = batch

    def cancel(self, number, *_):
        if self.rig.arrived:
            one = self.rig.arrived[number % len(self.rig.arrived)]
            one.is_cancelled = True
            self.rig.core.cancel([one], self.rig.now_ns)
            self.rig.step()

    def check(self):
        """The waiting requests of a stream are in order of arrival."""
        for one in self.rig.core.pending._streams.by_key.values():
            ids = [entry.id for entry in one.waiting]
            assert ids == sorted(ids)

    def end(self):
        for batch in self.uploading.values():
            batch.claim.let_go()
        self.rig.assert_quiet_after_all()


@given(steps, st.integers(1, 3), st.integers(1, 3))
def test_everything_ends_once_and_in_order_whatever_is_taken_back(moves, depth, lanes):
    play = Play(depth, lanes)
    for kind, *arguments in moves:
        getattr(play, kind)(*arguments)
        play.check()
    play.end()
    for one in play.streams if lanes == 1 else ():
        executed = [r.id for batch in play.rig.batches for r in batch.requests if r.stream is one]
        assert executed == sorted(executed) or not one.is_ordered
