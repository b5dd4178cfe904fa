"""What looks once a second does so until it is stopped, and a look that raises ends no other."""

import asyncio
from typing import ClassVar

from forebay_server.service import every_second
from forebay_server.service.every_second import EverySecond
from tests.support.guard import HANG_GUARD_S


class Looks(EverySecond):
    """Raises at the first look."""

    complaint: ClassVar[str] = "for the test"

    def __init__(self, wanted):
        self.count = 0
        self.enough = asyncio.Event()
        self._wanted = wanted

    def look(self):
        self.count += 1
        if self.count == self._wanted:
            self.enough.set()
        if self.count == 1:
            raise ValueError("for the test")


def test_a_look_that_raises_does_not_end_the_others(monkeypatch):
    monkeypatch.setattr(every_second, "INTERVAL_S", 0)

    async def run():
        looks = Looks(wanted=3)
        looks.start()
        async with asyncio.timeout(HANG_GUARD_S):
            await looks.enough.wait()
        looks.stop()

    asyncio.run(run())


def test_after_a_stop_nothing_looks_and_it_may_be_stopped_again(monkeypatch):
    monkeypatch.setattr(every_second, "INTERVAL_S", 0)

    async def run():
        looks = Looks(wanted=2)
        looks.start()
        async with asyncio.timeout(HANG_GUARD_S):
            await looks.enough.wait()
        looks.stop()
        count = looks.count
        for _ in range(10):
            await asyncio.sleep(0)
        assert looks.count == count
        looks.stop()

    asyncio.run(run())


def test_one_that_was_never_started_can_be_stopped():
    Looks.stop(Looks.__new__(Looks))
