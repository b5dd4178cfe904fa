"""Lanes of different priority on the CPU, with all their threads, on a clock that moves only when it is told to."""

import threading
import time
from contextlib import contextmanager
from itertools import count

import pytest

from forebay_server.engines import open_engine
from forebay_server.engines.device_host import HostDevice
from forebay_server.service.errors import BatchFailedError
from forebay_server.service.pipeline.arena import FrameArena
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.pipeline.pipeline import Pipeline
from forebay_server.service.pipeline.slots import SlotState
from forebay_server.service.pipeline.turns import MAX_WAIT_NS, ModelPriority, Turns
from forebay_server.service.request import Batch
from tests.support.clock import ManualClock
from tests.support.guard import HANG_GUARD_S
from tests.support.real_server import simulated
from tests.support.requests import frame_request
from tests.support.version import workshop_of

MS = 1_000_000
ROW_BYTES = 8
FIRST, NORMAL, LAST = ModelPriority(-1), ModelPriority(), ModelPriority(1)


class TurnsClock(ManualClock):
    """Tells the test when a lane waits for its turn; its own time is the other clock's."""

    def __init__(self, clock):
        super().__init__()
        self._clock = clock
        self._waits = threading.Semaphore(0)

    def now_ns(self):
        return self._clock.now_ns()

    def wait(self, condition, until_ns):
        self._waits.release()  # the condition's lock is held until the wait has begun
        super().wait(condition, until_ns)

    def wait_for_a_lane(self):
        assert self._waits.acquire(timeout=HANG_GUARD_S)


class Lanes:
    """One-instance lanes that share `cores`; every execution takes as long as its lane's model says."""

    def __init__(self, cores=1):
        self.clock = ManualClock()
        self.turns_clock = TurnsClock(self.clock)
        self.turns = Turns(cores, self.turns_clock)
        self.device = HostDevice(clock=self.clock)
        self.permits = Permits(16)
        self.lanes, self.arenas, self.fatal = [], [], []
        self.completed = []
        self._changed = threading.Condition()
        self._freed = threading.Semaphore(0)
        self._ids = count(1)

    def add(self, name, priority, alpha_ms, **options):
        engine = open_engine(
            "simulated",
            model_path=None,
            device=self.device,
            clock=self.clock,
            options={"input_bytes": str(ROW_BYTES), "alpha_ms": str(alpha_ms), **options},
            max_batch_size=1,
        )
        lane = Pipeline(
            0,
            name,
            self.device,
            engine,
            self.clock,
            model_version="1",
            finish=self._finish,
            on_fatal=self.fatal.append,
            priority=priority,
            turn=self.turns.join(priority, 1),
        )
        lane.warm_up((1,))
        lane.start(self)
        self.lanes.append(lane)
        self.arenas.append(FrameArena(self.device, engine.specs.inputs, self.permits))
        return lane

    def _finish(self, completions):
        with self._changed:
            self.completed += [completion.error for completion in completions]
            self._changed.notify_all()

    def send(self, lane, *, is_failed=False):
        frame = self.arenas[self.lanes.index(lane)].lease()
        request = frame_request(next(self._ids), frame, arrival_ns=self.clock.now_ns())
        error = BatchFailedError("as the test asks") if is_failed else None
        batch = Batch(request.id, 0, lane.try_reserve(), [request], 1, 1, self.clock.now_ns(), error=error)
        if is_failed:
            lane.pool.slots[batch.slot_index].move_to(SlotState.FAILED)
        lane.submit(batch)
        return batch

    def take_back(self, batch):
        """Take a batch back as the former does, and wait until its slot is free."""
        assert batch.claim.withdraw()
        batch.requests[0].frame.release()
        batch.requests = ()
        assert self._freed.acquire(timeout=HANG_GUARD_S)

    def wait_for_next(self, lane):
        """Wait until a batch waits for the lane's execute stage, which is at another."""
        until_s = time.monotonic() + HANG_GUARD_S  # another thread is about to bring it there
        while not lane.execute.has_next:
            assert time.monotonic() < until_s

    def send_and_wait_for_it_to_wait(self, lane):
        batch = self.send(lane)
        self.turns_clock.wait_for_a_lane()
        return batch

    def wait_for(self, number):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.completed) >= number, HANG_GUARD_S), self.completed

    def execute(self, lane, ms):
        """Send a batch that executes at once, and will for `ms`."""
        ends_ns = self.clock.now_ns() + ms * MS
        self.send(lane)
        self.clock.wait_for_sleeper(ends_ns)

    def run_for(self, *times_ms):
        """Wait until an execution sleeps that ends in so many milliseconds, and let it end; then the next.

        Every lane takes another time, so that the times tell which lanes they are.
        """
        for ms in times_ms:
            self.clock.wait_for_sleeper(self.clock.now_ns() + ms * MS)
            self.clock.advance(ms * MS)

    # The lanes' listener.

    def arrive(self, request): ...

    def compute_ended(self, batch, ended_ns, h2d_ns, execute_ns): ...

    def slot_freed(self, lane_index, slot_index, d2h_ns):
        self._freed.release()


@contextmanager
def lanes_of(cores=1):
    lanes = Lanes(cores)
    try:
        yield lanes
    finally:
        lanes.clock.advance(1_000 * MS)  # whatever a test that failed has left
        closed = [lane.close(HANG_GUARD_S) for lane in lanes.lanes]
    assert all(closed)
    for arena in lanes.arenas:
        arena.close()
    assert lanes.fatal == []
    assert lanes.permits.taken_count == 0
    assert lanes.turns.queue.free_cores == lanes.turns.queue.cores
    assert not lanes.turns.are_needed


def test_the_more_urgent_model_executes_first_when_both_have_a_batch_ready():
    with lanes_of() as lanes:
        running, last, first = (
            lanes.add("running", NORMAL, 10),
            lanes.add("last", LAST, 20),
            lanes.add("first", FIRST, 30),
        )
        lanes.execute(running, 10)
        lanes.send_and_wait_for_it_to_wait(last)
        lanes.send_and_wait_for_it_to_wait(first)
        lanes.run_for(10, 30, 20)
        lanes.wait_for(3)


def test_a_lane_that_has_waited_too_long_goes_ahead_once():
    with lanes_of() as lanes:
        running, last, first = (
            lanes.add("running", NORMAL, 150),
            lanes.add("last", LAST, 20),
            lanes.add("first", FIRST, 30),
        )
        assert 150 * MS > MAX_WAIT_NS
        lanes.execute(running, 150)
        lanes.send_and_wait_for_it_to_wait(last)
        lanes.send_and_wait_for_it_to_wait(first)
        lanes.run_for(150, 20, 30)
        lanes.wait_for(3)


def test_a_lane_with_its_next_batch_ready_keeps_the_turn_from_those_less_urgent():
    with lanes_of() as lanes:
        last, first = lanes.add("last", LAST, 20), lanes.add("first", FIRST, 30)
        lanes.execute(first, 30)
        lanes.send_and_wait_for_it_to_wait(last)
        lanes.send(first)
        lanes.wait_for_next(first)
        lanes.run_for(30, 30, 20)
        lanes.wait_for(3)


def test_a_batch_that_failed_before_it_could_execute_gives_its_turn_up():
    with lanes_of() as lanes:
        last, first = lanes.add("last", LAST, 20), lanes.add("first", FIRST, 30)
        lanes.execute(first, 30)
        lanes.send_and_wait_for_it_to_wait(last)
        lanes.send(first, is_failed=True)
        lanes.wait_for_next(first)
        lanes.run_for(30, 20)
        lanes.wait_for(3)


def test_a_lane_whose_batch_is_taken_back_waits_no_longer_and_its_next_one_goes_on_from_there():
    with lanes_of() as lanes:
        last, first = lanes.add("last", LAST, 20), lanes.add("first", FIRST, 150)
        lanes.execute(first, 150)
        batch = lanes.send_and_wait_for_it_to_wait(last)
        lanes.clock.advance(60 * MS)
        lanes.take_back(batch)
        assert lanes.turns.queue.waiting == []
        lanes.send_and_wait_for_it_to_wait(last)
        lanes.send(first)
        lanes.wait_for_next(first)
        assert 90 * MS < MAX_WAIT_NS
        lanes.run_for(90, 20, 150)
        lanes.wait_for(3)


def test_a_turn_that_comes_for_a_batch_that_was_taken_back_is_for_the_next_one():
    with lanes_of() as lanes:
        last, first = lanes.add("last", LAST, 20), lanes.add("first", FIRST, 30)
        lanes.execute(first, 30)
        batch = lanes.send_and_wait_for_it_to_wait(last)
        lanes.send(last)
        lanes.wait_for_next(last)
        lanes.take_back(batch)
        lanes.turns_clock.wait_for_a_lane()
        lanes.run_for(30, 20)
        lanes.wait_for(2)


def test_models_of_one_priority_execute_at_the_same_time_and_take_no_turns():
    with lanes_of() as lanes:
        one, two = lanes.add("one", LAST, 10), lanes.add("two", LAST, 20)
        lanes.execute(one, 10)
        lanes.execute(two, 20)
        assert lanes.turns.queue.free_cores == 1
        lanes.clock.advance(20 * MS)
        lanes.wait_for(2)


def test_as_many_execute_at_once_as_there_are_cores():
    with lanes_of(cores=2) as lanes:
        one, two, three = lanes.add("one", LAST, 10), lanes.add("two", NORMAL, 20), lanes.add("three", FIRST, 30)
        lanes.execute(one, 10)
        lanes.execute(two, 20)
        lanes.send_and_wait_for_it_to_wait(three)
        lanes.clock.advance(10 * MS)
        lanes.run_for(30)
        lanes.wait_for(3)


def test_to_wait_for_a_turn_is_not_to_hang_and_not_to_execute():
    with lanes_of() as lanes:
        running, last = lanes.add("running", NORMAL, 10), lanes.add("last", LAST, 20)
        started_ns = lanes.clock.now_ns()
        lanes.execute(running, 10)
        lanes.send_and_wait_for_it_to_wait(last)
        assert last.execute.busy_since_ns == 0
        assert running.execute.busy_since_ns == started_ns
        lanes.run_for(10)
        lanes.clock.wait_for_sleeper(started_ns + 30 * MS)
        assert last.execute.busy_since_ns == started_ns + 10 * MS
        lanes.run_for(20)
        lanes.wait_for(2)


def test_a_batch_that_fails_gives_its_turn_back():
    with lanes_of() as lanes:
        failing, other = lanes.add("failing", FIRST, 0, fail_every="1"), lanes.add("other", LAST, 20)
        lanes.send(failing)
        lanes.wait_for(1)
        lanes.send(other)
        lanes.run_for(20)
        lanes.wait_for(2)
        assert [error is None for error in lanes.completed] == [False, True]


def with_priority(root, name, text, **options):
    simulated(root, name, **options)
    with (root / name / "config.pbtxt").open("a") as file:
        file.write(text)


def test_versions_join_with_the_priority_of_their_configuration_and_leave_when_they_close(tmp_path):
    with_priority(tmp_path, "plain", "", instances=2)
    with_priority(tmp_path, "urgent", "optimization { priority: PRIORITY_MAX }")
    with workshop_of(tmp_path) as workshop:
        workshop.turns = Turns(2, workshop.clock)
        plain = workshop.open("plain")
        assert not workshop.turns.are_needed
        urgent = workshop.open("urgent")
        assert workshop.turns.are_needed
        assert [lane.execute.turn.priority for lane in (*plain.lanes, *urgent.lanes)] == [NORMAL, NORMAL, FIRST]
        requests = [workshop.send(version, 20) for version in (plain, urgent)]
        workshop.check([request for sent in requests for request in sent])
        assert urgent.close(10)
        assert not workshop.turns.are_needed
        assert workshop.turns.queue.free_cores == 2
        assert plain.close(10)


def test_a_version_that_cannot_be_opened_leaves_too(tmp_path):
    with_priority(tmp_path, "plain", "")
    with_priority(tmp_path, "broken", "optimization { priority: PRIORITY_MIN }", fail_every=1)
    with workshop_of(tmp_path) as workshop:
        workshop.turns = Turns(2, workshop.clock)
        plain = workshop.open("plain")
        with pytest.raises(Exception, match="fail_every=1 asks"):
            workshop.open("broken")
        assert not workshop.turns.are_needed
        assert plain.close(10)
