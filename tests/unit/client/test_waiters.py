"""A task that waits for a change is woken by the change that ends its wait, and by no other."""

import asyncio

from forebay.client.monitor import Monitor
from forebay.client.waiters import Waiters
from tests.support.loops import LoopClock, on_loop


@on_loop
async def test_each_task_is_woken_by_its_own_change():
    changes, checks = set(), []

    def due_after(change):
        def is_due():
            checks.append(change)
            return change in changes

        return is_due

    waiters = Waiters(Monitor(), LoopClock())
    tasks = [asyncio.create_task(waiters.wait(due_after(change))) for change in ("a", "b")]
    await asyncio.sleep(0)
    for change, has_ended in (("c", [False, False]), ("b", [False, True]), ("a", [True, True])):
        changes.add(change)
        waiters.wake()
        await asyncio.sleep(0)
        assert [task.done() for task in tasks] == has_ended
    assert [task.result() for task in tasks] == [True, True]
    assert checks == ["a", "b", "a", "b", "a"]


@on_loop
async def test_a_wait_ends_at_its_time():
    clock = LoopClock()
    waiters = Waiters(Monitor(), clock)
    until_ns = clock.now_ns() + 2_000_000_000
    waiting = asyncio.create_task(waiters.wait(lambda: False, until_ns))
    await clock.pass_sleep(2)
    assert await waiting  # early, without its change: the caller looks again
    assert not await waiters.wait(lambda: False, until_ns)
    waiters.wake()


@on_loop
async def test_a_wait_that_is_cancelled_is_forgotten():
    waiters = Waiters(Monitor(), LoopClock())
    checks = []
    waiting = asyncio.create_task(waiters.wait(lambda: checks.append(1) or True))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    waiters.wake()
    assert not checks
