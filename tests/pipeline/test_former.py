"""The former's thread on strict fake lanes and a clock that only the test moves."""

import pytest

from forebay_server.service.errors import DeadlineExpiredError, InvariantError, RequestCancelledError, SupersededError
from forebay_server.service.request import Delivery
from tests.support.batching import MS, FormerRig, StrictLane, request, stream
from tests.support.clock import ManualClock
from tests.support.guard import HANG_GUARD_S


@pytest.fixture
def clock():
    return ManualClock()


def test_lone_request_leaves_at_once_on_an_idle_executor(clock):
    with FormerRig(clock) as rig:
        lone = request(clock.now_ns())
        rig.former.arrive(lone)
        (batch,) = rig.lanes[0].wait_for_batches(1)
    assert list(batch.requests) == [lone]
    assert batch.formed_ns == lone.arrival_ns == lone.timeline.formed_ns


def test_requests_that_arrive_together_leave_in_one_batch(clock):
    with FormerRig(clock) as rig:
        together = [request(clock.now_ns()) for _ in range(5)]
        rig.former.arrive_all(together)
        (batch,) = rig.lanes[0].wait_for_batches(1)
    assert list(batch.requests) == together


def test_requests_that_arrive_together_after_the_end_are_all_answered(clock):
    with FormerRig(clock) as rig:
        rig.former.stop()
        late = [request(clock.now_ns()) for _ in range(3)]
        rig.former.arrive_all(late)
        completions = rig.sink.wait_for(3)
    assert [completion.request for completion in completions] == late
    assert all(isinstance(completion.error, RequestCancelledError) for completion in completions)
    assert [each.frame.releases for each in late] == [1, 1, 1]


def test_other_processes_learn_what_admission_has_to_know(clock):
    published = []
    with FormerRig(clock, on_feasibility=published.append) as rig:
        rig.former.arrive(request(clock.now_ns()))
        (batch,) = rig.lanes[0].wait_for_batches(1)
        clock.advance(5 * MS)
        rig.finish(batch)
    assert published[-1] == rig.former.feasibility
    assert published[-1].least_service_ns > 0


def test_second_batch_is_bound_when_its_upload_must_start_and_not_before(clock):
    with FormerRig(clock) as rig:
        rig.former.arrive(request(clock.now_ns()))
        (first,) = rig.lanes[0].wait_for_batches(1)
        late = request(clock.now_ns())
        rig.former.arrive(late)
        cost = rig.cost
        due_ns = int(first.formed_ns + cost.h2d_ns(1) + cost.mean_ns(1) - cost.h2d_ns(1)) - 200_000
        clock.wait_for_sleeper(due_ns)
        assert len(rig.lanes[0].batches) == 1
        clock.advance(due_ns - clock.now_ns())
        second = rig.lanes[0].wait_for_batches(2)[1]
    assert list(second.requests) == [late]
    assert second.formed_ns == due_ns == second.bind_by_ns


def test_frame_that_cannot_be_in_time_ends_expired_before_it_reaches_the_engine(clock):
    with FormerRig(clock) as rig:
        hopeless = request(clock.now_ns(), budget_ms=1)
        rig.former.arrive(hopeless)
        (completion,) = rig.sink.wait_for(1)
    assert isinstance(completion.error, DeadlineExpiredError)
    assert completion.request is hopeless
    assert hopeless.frame.releases == 1
    assert hopeless.timeline.built_ns == clock.now_ns()
    assert rig.lanes[0].slots == ["FREE"] * 4


def test_frame_expires_by_timer_while_every_lane_is_full(clock):
    lane = StrictLane(slot_count=1)
    with FormerRig(clock, lanes=[lane]) as rig:
        rig.former.arrive(request(clock.now_ns()))
        lane.wait_for_batches(1)
        waiting = request(clock.now_ns(), budget_ms=20)
        rig.former.arrive(waiting)
        lost_ns = int(waiting.deadline_ns - rig.cost.least_service_ns()) + 1
        clock.wait_for_sleeper(lost_ns)
        clock.advance(lost_ns - clock.now_ns())
        (completion,) = rig.sink.wait_for(1)
    assert isinstance(completion.error, DeadlineExpiredError)


def test_newer_frame_of_a_latest_stream_takes_the_place_of_the_waiting_one(clock):
    camera = stream(delivery=Delivery.LATEST)
    with FormerRig(clock, lanes=[StrictLane(slot_count=1)]) as rig:
        frames = [request(clock.now_ns(), on=camera) for _ in range(3)]
        for frame in frames:
            rig.former.arrive(frame)
            if frame is frames[0]:
                rig.lanes[0].wait_for_batches(1)
        (completion,) = rig.sink.wait_for(1)
        rig.former.cancel([frames[2]])
        rig.sink.wait_for(2)
    assert completion.request is frames[1]
    assert isinstance(completion.error, SupersededError)


def test_cancelled_request_gives_its_place_up(clock):
    with FormerRig(clock, lanes=[StrictLane(slot_count=1)]) as rig:
        rig.former.arrive(request(clock.now_ns()))
        rig.lanes[0].wait_for_batches(1)
        gone = request(clock.now_ns())
        rig.former.arrive(gone)
        rig.former.cancel([gone])
        (completion,) = rig.sink.wait_for(1)
        assert rig.former.statistics().pending_requests == 0
    assert isinstance(completion.error, RequestCancelledError)
    assert gone.frame.releases == 1


def test_statistics_have_the_delivery_that_deadlines_count_with_the_results_in_front(clock):
    with FormerRig(clock) as rig:
        time = rig.former.egress_time
        time.observe(1, 1)
        time.mean_ns, time.interval_ns = MS, 9 * MS
        rig.former.arrive(request(clock.now_ns()))
        (batch,) = rig.lanes[0].wait_for_batches(1)
        batch.requests[0].timeline.readable_ns = clock.now_ns()
        rig.finish(batch, d2h_ns=1000)
        rig.former.arrive(request(clock.now_ns()))
        rig.lanes[0].wait_for_batches(2)
        assert MS < rig.former.statistics().egress_ns <= 10 * MS


def test_drain_refuses_newcomers_and_returns_when_nothing_is_pending(clock):
    with FormerRig(clock) as rig:
        rig.former.arrive(request(clock.now_ns()))
        assert rig.former.drain()
        assert len(rig.lanes[0].batches) == 1
        rig.former.arrive(request(clock.now_ns()))
        (completion,) = rig.sink.wait_for(1)
    assert isinstance(completion.error, RequestCancelledError)


def test_stop_ends_what_is_pending_and_gives_reserved_slots_back(clock):
    with FormerRig(clock) as rig:
        rig.former.arrive(request(clock.now_ns()))
        (first,) = rig.lanes[0].wait_for_batches(1)
        late = request(clock.now_ns())
        rig.former.arrive(late)
    assert [c.request for c in rig.sink.completions] == [late]
    assert rig.lanes[0].slots.count("FREE") == 3
    rig.finish(first)
    rig.former.arrive(request(clock.now_ns()))
    assert len(rig.sink.completions) == 2


def test_error_in_the_thread_is_reported_and_ends_everything_pending(clock):
    class BrokenLane(StrictLane):
        def submit(self, batch):
            raise ZeroDivisionError("a bug")

    rig = FormerRig(clock, lanes=[BrokenLane(slot_count=1)])
    rig.former.start()
    rig.former.arrive(request(clock.now_ns()))
    assert rig.former.join(HANG_GUARD_S)
    assert [type(error) for error in rig.errors] == [ZeroDivisionError]
    assert rig.former.drain()
    rig.former.arrive(request(clock.now_ns()))
    assert isinstance(rig.sink.wait_for(1)[-1].error, RequestCancelledError | InvariantError)


def test_earliest_free_lane_takes_the_batch(clock):
    with FormerRig(clock, lanes=[StrictLane(0), StrictLane(1)]) as rig:
        rig.former.arrive(request(clock.now_ns()))
        rig.lanes[0].wait_for_batches(1)
        rig.former.arrive(request(clock.now_ns()))
        rig.lanes[1].wait_for_batches(1)
    assert [len(lane.batches) for lane in rig.lanes] == [1, 1]
