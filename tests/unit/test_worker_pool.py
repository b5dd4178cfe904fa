"""The worker pool serves results first and streams in turn, finishes waiting work, and hides no exception."""

import threading
import weakref

import pytest

from forebay_server.service.worker_pool import MOST_BEGUN, WorkerPool, WorkQueue
from tests.support.front_end import ManualPool
from tests.support.guard import HANG_GUARD_S


class Gate:
    """A job that says when it has begun and goes on when it may."""

    def __init__(self) -> None:
        self.has_begun = threading.Event()
        self.may_go_on = threading.Event()

    def __call__(self, *_):
        self.has_begun.set()
        assert self.may_go_on.wait(HANG_GUARD_S)

    def wait_until_begun(self):
        assert self.has_begun.wait(HANG_GUARD_S)


class Fatal:
    """Where exceptions of jobs end."""

    def __init__(self) -> None:
        self.errors = []

    def __call__(self, error):
        self.errors.append(error)


@pytest.fixture
def fatal():
    return Fatal()


def blocked_pool(fatal):
    """A pool whose only worker is busy, so that added items wait."""
    pool = WorkerPool(1, fatal)
    gate = Gate()
    pool.submit_result(gate)
    gate.wait_until_begun()
    return pool, gate


def finish(pool, gate):
    gate.may_go_on.set()
    pool.close()


def test_queues_are_served_in_turn_one_frame_each(fatal):
    pool, gate = blocked_pool(fatal)
    done = []
    queues = {name: WorkQueue(pool, done.append) for name in "abc"}
    for name, count in (("a", 4), ("b", 2), ("c", 1)):
        for number in range(count):
            queues[name].push(f"{name}{number}")
    finish(pool, gate)
    assert done == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]
    assert fatal.errors == []


def test_those_of_some_items_that_still_wait_are_visited(fatal):
    pool, gate = blocked_pool(fatal)
    done, visited = [], []
    queue = WorkQueue(pool, done.append)
    for item in "abc":
        queue.push(item)
    queue.run_oldest()
    queue.visit_waiting([0, 2], lambda number, item: visited.append((number, item)))
    assert (visited, queue.waiting_count) == ([(2, "c")], 2)
    assert queue.take_waiting() == ["b", "c"]
    queue.push("d")
    queue.visit_waiting([1, 2, 3], lambda number, item: visited.append((number, item)))
    assert visited == [(2, "c"), (3, "d")]
    finish(pool, gate)


def test_results_go_before_frames(fatal):
    pool, gate = blocked_pool(fatal)
    done = []
    queue = WorkQueue(pool, done.append)
    queue.push("frame 0")
    queue.push("frame 1")
    pool.submit_result(lambda: done.append("result 0"))
    pool.submit_result(lambda: done.append("result 1"))
    finish(pool, gate)
    assert done == ["result 0", "result 1", "frame 0", "frame 1"]


def test_one_queue_is_never_run_by_two_workers(fatal):
    pool = WorkerPool(4, fatal)
    running, order, overlaps = [0], [], []

    def run(item):
        running[0] += 1
        overlaps.append(running[0])
        order.append(item)
        running[0] -= 1

    queue = WorkQueue(pool, run)
    for number in range(300):
        queue.push(number)
    pool.close()
    assert order == list(range(300))
    assert set(overlaps) == {1}


def test_queues_of_different_streams_run_at_the_same_time(fatal):
    pool = WorkerPool(2, fatal)
    gates = [Gate(), Gate()]
    for gate in gates:
        WorkQueue(pool, gate).push("frame")
    for gate in gates:
        gate.wait_until_begun()
    assert pool.busy_count == 2
    for gate in gates:
        gate.may_go_on.set()
    pool.close()
    assert pool.busy_count == 0


def test_waiting_items_can_be_taken_but_not_the_one_that_runs(fatal):
    pool = WorkerPool(1, fatal)
    gate, done = Gate(), []

    def run(item):
        if item == 0:
            gate()
        done.append(item)

    queue = WorkQueue(pool, run)
    for number in range(3):
        queue.push(number)
    gate.wait_until_begun()
    assert queue.take_waiting() == [1, 2]
    assert queue.take_waiting() == []
    queue.push(3)
    finish(pool, gate)
    assert done == [0, 3]


def test_the_end_of_a_queue_is_told_when_no_worker_runs_an_item_of_it(fatal):
    pool = WorkerPool(1, fatal)
    gate, told = Gate(), []
    queue = WorkQueue(pool, gate)
    queue.push("runs")
    queue.push("waits")
    gate.wait_until_begun()
    queue.take_waiting()
    queue.call_at_rest(lambda: told.append("busy"))
    assert told == []
    finish(pool, gate)
    assert told == ["busy"]


def test_the_end_of_a_queue_at_rest_is_told_at_once(fatal):
    pool, told = WorkerPool(1, fatal), []
    WorkQueue(pool, told.append).call_at_rest(lambda: told.append("at once"))
    assert told == ["at once"]
    pool.close()


def test_the_end_of_a_queue_is_told_though_its_last_item_failed():
    pool, told = ManualPool(), []

    def fail(item):
        queue.call_at_rest(lambda: told.append(item))
        raise ValueError

    queue = WorkQueue(pool, fail)
    queue.push("failed")
    with pytest.raises(ValueError):  # noqa: PT011 - the test's own
        pool.run_one()
    assert told == ["failed"]


def test_a_queue_emptied_before_its_turn_runs_nothing_and_takes_new_items(fatal):
    pool, gate = blocked_pool(fatal)
    done = []
    queue = WorkQueue(pool, done.append)
    queue.push("old")
    assert queue.take_waiting() == ["old"]
    queue.push("new")
    finish(pool, gate)
    assert done == ["new"]


def test_a_queue_whose_last_item_was_taken_leaves_the_ring():
    pool, done = ManualPool(), []
    queue = WorkQueue(pool, done.append)
    queue.push("old")
    queue.take_waiting()
    assert pool.run_one()
    assert not pool.ring
    queue.push("new")
    assert pool.run_one()
    assert not pool.run_one()
    assert done == ["new"]


def test_close_finishes_what_waits_and_joins(fatal):
    pool = WorkerPool(3, fatal)
    done = []
    queues = [WorkQueue(pool, done.append) for _ in range(5)]
    for number in range(20):
        for queue in queues:
            queue.push(number)
        pool.submit_result(lambda: done.append("result"))
    pool.close()
    assert len(done) == 120
    assert not any(thread.is_alive() for thread in pool._threads)
    pool.close()


def test_an_escaping_exception_is_reported_and_the_worker_goes_on(fatal):
    pool = WorkerPool(1, fatal)
    done = []

    def run(item):
        if item == "bad":
            raise ZeroDivisionError(item)
        done.append(item)

    queue = WorkQueue(pool, run)
    for item in ("bad", "good"):
        queue.push(item)
    pool.submit_result(lambda: run("bad"))
    pool.close()
    assert done == ["good"]
    assert [type(error) for error in fatal.errors] == [ZeroDivisionError, ZeroDivisionError]
    assert pool.busy_count == 0


def test_many_threads_can_push_while_workers_run(fatal):
    pool = WorkerPool(2, fatal)
    done = {name: [] for name in range(4)}

    def push(name):
        queue = WorkQueue(pool, done[name].append)
        for number in range(200):
            queue.push(number)

    pushers = [threading.Thread(target=push, args=(name,)) for name in done]
    for thread in pushers:
        thread.start()
    for thread in pushers:
        thread.join(HANG_GUARD_S)
    pool.close()
    assert all(items == list(range(200)) for items in done.values())


class Outputs:
    def work_on(self):
        pass


def test_a_worker_that_waits_holds_nothing_of_its_last_job(fatal):
    pool, outputs, is_done = WorkerPool(1, fatal), Outputs(), threading.Event()
    held = weakref.ref(outputs, lambda _: is_done.set())
    pool.submit_result(outputs.work_on)
    del outputs
    assert is_done.wait(HANG_GUARD_S), "a worker holds its last job until the next one comes"
    assert held() is None
    pool.close()


class Steps:
    """Items in `count` steps each; what happened, in order."""

    def __init__(self, pool, names, count=2):
        self.done, self._count = [], count
        self.queues = {name: WorkQueue(pool, self._run) for name in names}

    def push(self, *items):
        for item in items:
            self.queues[item[0]].push(item)

    def _run(self, item):
        return self._step(item, 1)

    def _step(self, item, number):
        self.done.append(f"{item}.{number}")
        if item.endswith("bad") and number == 2:
            raise ZeroDivisionError(item)
        return None if number == self._count else lambda: self._step(item, number + 1)


def test_between_the_steps_of_an_item_its_worker_begins_items_of_other_queues(fatal):
    pool, gate = blocked_pool(fatal)
    steps = Steps(pool, "ab")
    steps.push("a1", "a2", "b1")
    finish(pool, gate)
    assert steps.done == ["a1.1", "b1.1", "a1.2", "a2.1", "b1.2", "a2.2"]
    assert pool.busy_count == 0


def test_a_worker_begins_only_so_many(fatal):
    pool, gate = blocked_pool(fatal)
    names = "abcdefgh"
    steps = Steps(pool, names)
    steps.push(*names)
    finish(pool, gate)
    begun = [sum(1 if each.endswith("1") else -1 for each in steps.done[:n]) for n in range(len(steps.done))]
    assert max(begun) == MOST_BEGUN
    assert sorted(steps.done) == sorted(f"{name}.{number}" for name in names for number in (1, 2))


def test_results_come_before_further_steps(fatal):
    pool, gate = blocked_pool(fatal)
    steps = Steps(pool, "a", 3)
    steps.push("a")
    steps.queues["b"] = WorkQueue(pool, lambda _: pool.submit_result(lambda: steps.done.append("result")))
    steps.push("b")
    finish(pool, gate)
    assert steps.done == ["a.1", "result", "a.2", "a.3"]


def test_items_without_steps_do_not_hold_up_one_that_was_begun(fatal):
    pool, gate = blocked_pool(fatal)
    steps = Steps(pool, "a", 3)
    steps.push("a")
    plain = [WorkQueue(pool, steps.done.append) for _ in range(2)]
    for number in range(4):
        plain[number % 2].push(number)
    finish(pool, gate)
    assert steps.done == ["a.1", 0, "a.2", 1, "a.3", 2, 3]


def test_a_step_that_fails_ends_its_item_only(fatal):
    pool, gate = blocked_pool(fatal)
    steps = Steps(pool, "a")
    steps.push("a bad", "a good")
    rested = []
    steps.queues["a"].call_at_rest(lambda: rested.append(list(steps.done)))
    finish(pool, gate)
    assert steps.done == ["a bad.1", "a bad.2", "a good.1", "a good.2"]
    assert rested == [steps.done]
    assert [type(error) for error in fatal.errors] == [ZeroDivisionError]
