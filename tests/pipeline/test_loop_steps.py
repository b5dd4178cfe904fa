"""The event loop forms and runs batches that take no time; the former's thread does the work that needs a timer.

The loop is the test's own thread: callbacks of `step_when_idle` run when the test runs them.
"""

from forebay_server.service.batching.constants import LONG_RUNS, LONG_STEP_NS, REST_NS
from forebay_server.service.errors import DeadlineExpiredError, InvariantError, RequestCancelledError
from tests.support.batching import FormerRig, StrictLane, cost_model, request
from tests.support.clock import ManualClock
from tests.support.guard import HANG_GUARD_S

INLINE_NS = 200_000
UPLOAD_NS = 150_000


class ThroughLane(StrictLane):
    """Runs every batch to its end inside `submit`, as `Pipeline` does with short ones."""

    def __init__(self, takes_ns=0):
        super().__init__()
        self.takes_ns = takes_ns
        self.clock = self.former = None
        self.on_batch = lambda: None

    def submit(self, batch):
        super().submit(batch)
        self.on_batch()
        self.clock.advance(self.takes_ns)
        self.former.compute_ended(batch, self.clock.now_ns(), 1, 1)
        self.free(batch)
        self.former.slot_freed(self.index, batch.slot_index, 1)
        return True


class LoopRig(FormerRig):
    """A former whose steps the test takes as the event loop would."""

    def __init__(self, lane, beta_ms=0.001, inline_ns=INLINE_NS):
        self.asked = {}
        cost = cost_model(8, alpha_ms=0.001, beta_ms=beta_ms)
        super().__init__(
            ManualClock(), cost=cost, lanes=[lane], step_when_idle=lambda step: self.asked.update({step: None}),
            inline_ns=inline_ns,
        )  # fmt: skip
        lane.clock, lane.former = self.clock, self.former

    def idle(self):
        """The loop has read everything."""
        asked, self.asked = self.asked, {}
        for step in asked:
            step()


class TwoWays(ThroughLane):
    """Runs quick batches at once, and hands the others over, which takes longer. Tells which it did."""

    handed_over_ns = 300_000

    def __init__(self, takes_ns):
        super().__init__(takes_ns)
        self.inline = []

    def submit(self, batch):
        StrictLane.submit(self, batch)
        takes_ns = self.takes_ns if batch.is_quick else self.handed_over_ns
        self.clock.advance(takes_ns)
        self.former.compute_ended(batch, self.clock.now_ns(), UPLOAD_NS, takes_ns)
        self.free(batch)
        self.former.slot_freed(self.index, batch.slot_index, 1)
        self.inline.append(batch.is_quick)
        return batch.is_quick


def arrived(rig, count, **options):
    requests = [request(rig.clock.now_ns(), None, **options) for _ in range(count)]
    for each in requests:
        rig.former.arrive_on_loop(each)
    return requests


def test_what_was_read_before_the_loop_is_idle_goes_in_one_batch():
    with LoopRig(ThroughLane()) as rig:
        requests = arrived(rig, 5)
        assert rig.former._core.counters.steps == 0
        assert rig.lanes[0].batches == []
        rig.idle()
        (batch,) = rig.lanes[0].batches
        assert list(batch.requests) == requests
        assert rig.former.statistics().in_flight == 0
        assert rig.asked == {}


def test_a_model_that_takes_longer_than_a_hand_over_is_left_to_the_thread():
    with LoopRig(ThroughLane(), beta_ms=0.2) as rig:
        arrived(rig, 1)
        assert rig.asked == {}
        rig.lanes[0].wait_for_batches(1)


def test_the_thread_wakes_for_an_instant_that_a_step_on_the_loop_asked_for():
    with LoopRig(StrictLane(slot_count=1)) as rig:
        arrived(rig, 1)
        rig.idle()
        assert len(rig.lanes[0].batches) == 1
        waiting = request(rig.clock.now_ns(), budget_ms=20)
        rig.former.arrive_on_loop(waiting)
        rig.idle()
        lost_ns = int(waiting.deadline_ns - rig.cost.least_service_ns()) + 1
        rig.clock.wait_for_sleeper(lost_ns)
        rig.clock.advance(lost_ns - rig.clock.now_ns())
        (completion,) = rig.sink.wait_for(1)
    assert isinstance(completion.error, DeadlineExpiredError)


def test_requests_of_loop_and_workers_keep_their_order():
    with LoopRig(ThroughLane()) as rig:
        with rig.former._step_lock:  # the thread is in the middle of a step
            mine = arrived(rig, 2)
            other = request(rig.clock.now_ns(), None)
            rig.former.arrive(other)
            rig.idle()  # cannot have the step lock, and does not wait for it
            assert rig.lanes[0].batches == []
        (batch,) = rig.lanes[0].wait_for_batches(1)
        assert list(batch.requests) == [*mine, other]


def test_steps_that_turn_out_long_go_back_to_the_thread_and_are_tried_again():
    with LoopRig(ThroughLane(takes_ns=LONG_STEP_NS)) as rig:
        for number in range(LONG_RUNS):
            arrived(rig, 1)
            assert rig.asked
            rig.idle()
            assert len(rig.lanes[0].batches) == number + 1
        arrived(rig, 1)
        assert rig.asked == {}
        rig.lanes[0].wait_for_batches(LONG_RUNS + 1)
        rig.clock.advance(REST_NS)
        arrived(rig, 1)
        assert rig.asked


def test_a_disturbance_that_made_a_quick_model_slow_keeps_it_off_the_loop_for_a_second_at_most():
    """Batches that are handed over take longer, so that the estimate never says again that they are quick."""
    lane = TwoWays(takes_ns=21_000)
    with LoopRig(lane, beta_ms=0.02) as rig:

        def run(seconds):
            """The part of the batches that ran on the loop; one comes every 5 ms."""
            before = len(lane.inline)
            for count in range(before + 1, before + 1 + int(seconds * 200)):
                arrived(rig, 1)
                rig.idle()
                rig.lanes[0].wait_for_batches(count)
                with rig.former._step_lock:
                    pass  # the step that formed it is over
                rig.clock.advance(5_000_000)
            return sum(lane.inline[before:]) / (len(lane.inline) - before)

        assert run(0.2) == 1.0
        lane.takes_ns = 500_000
        assert run(0.5) < 0.1
        lane.takes_ns = 21_000
        run(REST_NS / 1e9)
        assert run(0.2) == 1.0


def test_what_arrives_after_the_end_is_cancelled_and_a_late_step_does_nothing():
    with LoopRig(ThroughLane()) as rig:
        arrived(rig, 1)
        rig.former.stop()
        assert rig.former.join(HANG_GUARD_S)
        rig.idle()
        arrived(rig, 1)
        (completion,) = rig.sink.completions[-1:]
        assert isinstance(completion.error, RequestCancelledError)
        assert len(rig.lanes[0].batches) + len(rig.sink.completions) == 2


def test_a_bug_in_a_step_on_the_loop_is_fatal_once_and_ends_what_is_pending():
    lane = ThroughLane()
    rig = LoopRig(lane)
    bug = RuntimeError("our bug")

    def fail():
        raise bug

    lane.on_batch = fail
    with rig:
        requests = arrived(rig, 9)  # one more than a batch
        rig.idle()
        assert rig.former.join(HANG_GUARD_S)
        rig.idle()
        assert rig.errors == [bug]
        rig.errors.clear()
    assert [type(completion.error) for completion in rig.sink.completions] == [InvariantError]
    assert rig.sink.completions[0].request is requests[-1]
