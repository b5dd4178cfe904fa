"""What is too long for the event loop is done by workers: in order for a client, and undone if nobody waits for it."""

import asyncio
import threading

import pytest

from service.frontend.heavy_work import HeavyWork
from service.worker_pool import WorkerPool
from tests.support.guard import HANG_GUARD_S
from tests.support.loops import on_loop


class Gate:
    """Keeps the only worker busy until it is opened."""

    def __init__(self, pool):
        self._event = threading.Event()
        pool.submit_result(self._event.wait)

    def open(self):
        self._event.set()


@pytest.fixture
def pool():
    failures = []
    pool = WorkerPool(1, failures.append)
    yield pool
    pool.close()
    assert not failures


@on_loop
async def test_a_job_runs_on_a_worker_and_the_loop_gets_its_result(pool):
    thread = await HeavyWork(pool).start("client", threading.get_ident)
    assert thread != threading.get_ident()


@on_loop
async def test_what_a_job_raises_is_raised_to_who_waits_for_it(pool):
    with pytest.raises(ZeroDivisionError):
        await HeavyWork(pool).start("client", lambda: 1 // 0)


@on_loop
async def test_clients_take_turns_and_each_keeps_its_order(pool):
    work, gate, done = HeavyWork(pool), Gate(pool), []
    jobs = [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5)]
    waiting = [work.start(client, lambda number=number: done.append(number)) for client, number in jobs]
    gate.open()
    await asyncio.gather(*waiting)
    assert done == [1, 4, 5, 2, 3]


@on_loop
async def test_a_job_that_nobody_waits_for_any_more_is_not_begun(pool):
    work, gate, done = HeavyWork(pool), Gate(pool), []
    given_up = work.start("client", lambda: done.append("given up"))
    given_up.cancel()
    gate.open()
    await work.start("client", lambda: done.append("next"))
    assert done == ["next"]


@on_loop
async def test_the_result_of_a_job_is_undone_if_it_was_given_up_meanwhile(pool):
    work, begun, end, undone = HeavyWork(pool), asyncio.Event(), threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def job():
        loop.call_soon_threadsafe(begun.set)
        end.wait()
        return undone

    waiting = work.start("client", job, lambda result: result.set())
    await begun.wait()
    waiting.cancel()
    end.set()
    await undone.wait()


@on_loop
async def test_a_result_that_comes_in_the_instant_in_which_it_is_given_up_is_undone(pool):
    work, is_made, undone = HeavyWork(pool), threading.Event(), []
    waiting = asyncio.ensure_future(work.done("client", lambda: "result", undone.append))
    await asyncio.sleep(0)
    work.start("client", is_made.set)
    assert is_made.wait(HANG_GUARD_S)  # of the result the worker has told the loop, which has not looked yet
    asyncio.get_running_loop().call_soon(waiting.cancel)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert undone == ["result"]


def test_the_result_of_a_job_is_undone_if_the_loop_has_ended(pool):
    gate, end, undone = threading.Event(), threading.Event(), threading.Event()

    def job():
        gate.set()
        end.wait()
        return undone

    async def leave():
        HeavyWork(pool).start("client", job, lambda result: result.set())
        gate.wait()

    asyncio.run(leave())
    end.set()
    assert undone.wait(10)
