"""Functions of a source run on one thread, in order, and a hanging one holds nothing up."""

import asyncio
import threading

import pytest

from forebay_server.service.cli import source_thread
from forebay_server.service.cli.source_thread import SourceThread
from tests.support.loops import on_loop


@on_loop
async def test_values_and_errors_come_back_and_the_thread_ends():
    thread = SourceThread("source a")
    assert await thread.call(threading.current_thread) is not threading.current_thread()
    assert await thread.call(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await thread.call(divmod, 1, 0)
    ended = []
    assert await thread.close(lambda: ended.append(1))
    assert ended == [1]


@on_loop
async def test_a_cancelled_call_runs_to_its_end_before_the_next():
    thread = SourceThread("source a")
    began, may_end, order = threading.Event(), threading.Event(), []

    def slow():
        began.set()
        may_end.wait()
        order.append("slow")

    call = asyncio.create_task(thread.call(slow))
    await asyncio.to_thread(began.wait)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    may_end.set()
    await thread.call(order.append, "next")
    assert order == ["slow", "next"]
    assert await thread.close(lambda: None)


@on_loop
async def test_a_read_that_hangs_is_left_alone(monkeypatch):
    monkeypatch.setattr(source_thread, "CLOSE_LIMIT_S", 0)
    thread = SourceThread("source a")
    may_end = threading.Event()
    call = asyncio.create_task(thread.call(may_end.wait))
    await asyncio.sleep(0)
    assert not await thread.close(lambda: None)
    may_end.set()
    assert await call
    await thread._ended.wait()


@on_loop
async def test_a_last_function_that_takes_its_time_is_waited_for():
    thread = SourceThread("source a")
    began, may_end = threading.Event(), threading.Event()

    def last():
        began.set()
        may_end.wait()

    closing = asyncio.create_task(thread.close(last))
    await asyncio.to_thread(began.wait)
    assert not closing.done()
    may_end.set()
    assert await closing
