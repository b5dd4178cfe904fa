"""Work of one model in order, work of different models side by side."""

import threading

import pytest

from forebay_server.service.models import load_queue
from forebay_server.service.models.load_queue import SIDE_BY_SIDE, LoadQueue, QueueClosedError
from tests.support.guard import HANG_GUARD_S


@pytest.fixture
def queue():
    queue = LoadQueue()
    yield queue
    queue.close(RuntimeError)


class Held:
    """Work that ends when it may."""

    def __init__(self):
        self.has_begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(self):
        self.has_begun.set()
        assert self.may_end.wait(HANG_GUARD_S)


def test_work_of_one_model_is_done_in_the_order_it_was_asked_for(queue):
    order = []
    futures = [queue.submit("m", lambda index=index: order.append(index)) for index in range(50)]
    for future in futures:
        future.result(HANG_GUARD_S)
    assert order == list(range(50))
    assert queue.is_idle("m")


def test_different_models_do_not_wait_for_each_other_however_much_one_of_them_asks_for(queue):
    held = Held()
    waiting = [queue.submit("hangs", held), *(queue.submit("hangs", lambda: None) for _ in range(SIDE_BY_SIDE))]
    assert queue.submit("other", lambda: "done").result(HANG_GUARD_S) == "done"
    assert not queue.is_idle("hangs")
    assert not waiting[-1].done()
    held.may_end.set()
    for future in waiting:
        future.result(HANG_GUARD_S)


def test_only_so_many_models_are_at_work_at_once(queue):
    works = [Held() for _ in range(SIDE_BY_SIDE + 1)]
    futures = [queue.submit(f"m{index}", work) for index, work in enumerate(works)]
    for work in works[:SIDE_BY_SIDE]:
        assert work.has_begun.wait(HANG_GUARD_S)
    assert not works[-1].has_begun.is_set()
    works[0].may_end.set()
    assert works[-1].has_begun.wait(HANG_GUARD_S)
    for work in works:
        work.may_end.set()
    for future in futures:
        future.result(HANG_GUARD_S)


def test_what_work_raises_is_raised_where_it_is_waited_for_and_the_next_runs(queue):
    def fail():
        raise KeyError("m")

    first, second = queue.submit("m", fail), queue.submit("m", lambda: 2)
    with pytest.raises(KeyError):
        first.result(HANG_GUARD_S)
    assert second.result(HANG_GUARD_S) == 2


def test_a_closed_queue_drops_what_waits_and_takes_nothing_more(queue):
    held = Held()
    running, waiting = queue.submit("m", held), queue.submit("m", lambda: None)
    assert held.has_begun.wait(HANG_GUARD_S)
    queue.close(KeyError)
    with pytest.raises(KeyError, match="m"):
        waiting.result(HANG_GUARD_S)
    with pytest.raises(QueueClosedError, match="shutting down"):
        queue.submit("other", lambda: None)
    held.may_end.set()
    running.result(HANG_GUARD_S)


def test_who_does_not_wait_any_more_changes_nothing(queue):
    held, order = Held(), []
    futures = [queue.submit("m", held), queue.submit("m", lambda: order.append(1))]
    assert held.has_begun.wait(HANG_GUARD_S)
    assert [future.cancel() for future in futures] == [False, False]
    held.may_end.set()
    futures[1].result(HANG_GUARD_S)
    assert order == [1]


def test_what_waits_holds_a_bounded_number_of_bytes(queue, monkeypatch):
    monkeypatch.setattr(load_queue, "MOST_WAITING_BYTES", 100)
    held = Held()
    first = queue.submit("m", held, 150)  # larger than all may be together, and alone
    with pytest.raises(QueueClosedError, match="1 loads wait already"):
        queue.submit("other", lambda: None, 1)
    held.may_end.set()
    first.result(HANG_GUARD_S)
    assert queue.submit("other", lambda: 1, 60).result(HANG_GUARD_S) == 1


def test_what_waits_is_bounded(queue, monkeypatch):
    monkeypatch.setattr(load_queue, "MOST_WAITING", 3)
    held = Held()
    futures = [queue.submit("m", held), queue.submit("m", lambda: None), queue.submit("m", lambda: None)]
    with pytest.raises(QueueClosedError, match="try again later"):
        queue.submit("other", lambda: None)
    held.may_end.set()
    for future in futures:
        future.result(HANG_GUARD_S)


def test_what_the_folders_bound_is_taken_when_the_queue_is_full(queue, monkeypatch):
    monkeypatch.setattr(load_queue, "MOST_WAITING", 1)
    held = Held()
    first = queue.submit("m", held)
    assert queue.submit("other", lambda: 2, is_bounded=False).result(HANG_GUARD_S) == 2
    held.may_end.set()
    first.result(HANG_GUARD_S)
