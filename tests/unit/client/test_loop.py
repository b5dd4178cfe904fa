"""A loop in a thread of its own: its tasks end with it, also after an error at the end."""

import asyncio
import threading

import pytest

from forebay.client.errors import StreamClosedError
from forebay.client.loop import LoopThread


def test_those_who_wait_are_told_of_the_end_although_the_last_words_fail():
    async def last_words():
        raise RuntimeError("the last words")

    began = threading.Event()

    async def endless():
        began.set()
        await asyncio.Event().wait()

    loop = LoopThread("failing", last_words)
    errors = []

    def call():
        try:
            loop.call(endless())
        except StreamClosedError as error:
            errors.append(error)

    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    assert began.wait(10)
    with pytest.raises(RuntimeError, match="the last words"):
        loop.stop()
    caller.join(10)
    assert [str(error) for error in errors] == ["the client is closed"]
    loop.stop()  # it has the error already
    with pytest.raises(StreamClosedError):
        loop.call(endless())
