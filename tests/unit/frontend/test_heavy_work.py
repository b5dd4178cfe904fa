"""Workers do work that is too long for the event loop: in order for a client, and undone if its caller has gone."""

import asyncio
import threading

import pytest

from forebay_server.service.frontend.heavy_work import HeavyWork
from forebay_server.service.worker_pool import WorkerPool
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


async def cancelled(task):
    """Wait for the end of a task that was cancelled."""
    with pytest.raises(asyncio.CancelledError):
        await task


@on_loop
async def test_a_job_that_nobody_waits_for_any_more_is_not_begun(pool):
    work, gate, done = HeavyWork(pool), Gate(pool), []
    given_up = asyncio.create_task(work.done("client", lambda: done.append("given up"), done.append))
    await asyncio.sleep(0)
    given_up.cancel()
    await cancelled(given_up)  # though the worker has not come to it
    gate.open()
    await work.done("client", lambda: done.append("next"))
    assert done == ["next"]


class Held:
    """A job that occupies a worker until the test ends it."""

    def __init__(self, work, failure=None):
        self.begun, self.undone, self._end = asyncio.Event(), [], threading.Event()
        self._loop, self._failure = asyncio.get_running_loop(), failure
        self.waiting = asyncio.create_task(work.done("client", self._do, self.undone.append))

    def _do(self):
        self._loop.call_soon_threadsafe(self.begun.set)
        self._end.wait(HANG_GUARD_S)
        if self._failure is not None:
            raise self._failure
        return "result"

    def let_go(self):
        self._end.set()


@pytest.mark.parametrize(("failure", "undone"), [(None, ["result"]), (ValueError(), [])])
@on_loop
async def test_who_gives_up_a_job_leaves_when_the_worker_does_and_its_result_is_undone(pool, failure, undone):
    job = Held(HeavyWork(pool), failure)
    await job.begun.wait()
    job.waiting.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not job.waiting.done()
    job.let_go()
    await cancelled(job.waiting)
    assert job.undone == undone


@on_loop
async def test_the_result_is_undone_once_though_who_waits_is_cancelled_again(pool):
    work = HeavyWork(pool)
    job = Held(work)
    await job.begun.wait()
    job.waiting.cancel()
    await asyncio.sleep(0)
    job.waiting.cancel()
    await cancelled(job.waiting)
    job.let_go()
    await work.done("client", lambda: None)
    assert job.undone == ["result"]


@on_loop
async def test_a_result_that_comes_in_the_instant_in_which_it_is_given_up_is_undone(pool):
    work, is_made, undone = HeavyWork(pool), threading.Event(), []
    waiting = asyncio.create_task(work.done("client", lambda: "result", undone.append))
    await asyncio.sleep(0)
    work.start("client", is_made.set)
    assert is_made.wait(HANG_GUARD_S)  # the worker has posted the result to the loop, which has not looked yet
    asyncio.get_running_loop().call_soon(waiting.cancel)
    await cancelled(waiting)
    assert undone == ["result"]


def test_a_job_may_end_after_the_loop(pool):
    begun, end = threading.Event(), threading.Event()

    def job():
        begun.set()
        end.wait(HANG_GUARD_S)

    async def leave():
        HeavyWork(pool).start("client", job)
        begun.wait(HANG_GUARD_S)

    asyncio.run(leave())
    end.set()
