"""The other engine processes as the first one sees them: their counts are added to its own, and they do what it does.

A load or unload is done here first. If it succeeds, every other engine process does it as well, and the client gets its
answer when all have: one that fails there fails for the client. One that has just started gets the latest call of each
model, and one that knows calls of which this process, just started, does not know sends them.

Owner: the event loop's thread, except where a method says otherwise.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import structlog

from forebay_server.service.errors import UnknownModelError
from forebay_server.service.group.first_engine import model_of, note
from forebay_server.service.group.messages import (
    Calls,
    Counted,
    CountsWanted,
    EngineNumbers,
    EngineTold,
    LogLevel,
    RpcAnswer,
    RpcCall,
)
from forebay_server.service.group.talk import Talk
from forebay_server.service.journal.count_changes import add
from forebay_server.service.journal.events import Journal
from forebay_server.service.journal.statistics import VersionReport
from forebay_server.service.models.registry import ModelRegistry

log = structlog.get_logger(__name__)

T = TypeVar("T")


class OtherEngines:
    """See the module.

    Args:
        registry: the versions of this process.
        journal: takes the batches of all; None: nothing is observed.
        answer: does a load or unload here.
    """

    def __init__(
        self, registry: ModelRegistry, journal: Journal | None, answer: Callable[[RpcCall], Awaitable[RpcAnswer]]
    ) -> None:
        self._registry = registry
        self._journal = journal
        self._answer = answer
        self._engines: dict[int, _Other] = {}
        self._calls: dict[str, RpcCall] = {}
        self._work: set[asyncio.Task[None]] = set()

    def connect(self, index: int, connection: socket.socket) -> None:
        """Take in another engine process, in the place of one that has ended."""
        if index in self._engines:
            self._engines[index].close()
        other = _Other(connection, self._on_told, self._on_calls, partial(self._forget, index))
        self._engines[index] = other
        if self._calls:
            other.talk.send(Calls(tuple(self._calls.values())))

    def _forget(self, index: int) -> None:
        self._engines.pop(index, None)

    async def repeat(self, call: RpcCall) -> RpcAnswer | None:
        """Have the others do a load or unload that was done here; return the answer of one that could not."""
        note(self._calls, call)
        answers = await asyncio.gather(*(other.ask(call) for other in list(self._engines.values())))
        return next((answer for answer in answers if answer is not None and answer.code != "OK"), None)

    def ask_counts(self) -> "list[asyncio.Future[None]]":
        """Have each send its counts; each is done when they have come, or never will."""
        return [other.ask_counts() for other in self._engines.values()]

    def tell_level(self, level: str) -> None:
        """Tell the lowest level that is logged."""
        for other in self._engines.values():
            other.talk.send(LogLevel(level))

    def close(self) -> None:
        """Talk no more. Idempotent."""
        for other in list(self._engines.values()):
            other.close()
        self._engines.clear()

    def numbers(self) -> list[EngineNumbers]:
        """Return what each has last told. Thread: any."""
        return [other.numbers for other in list(self._engines.values()) if other.numbers is not None]

    def instances(self, model: str, version: str) -> int:
        """Return how many instances of a version the others have. Thread: any."""
        every = [gauges for numbers in self.numbers() for gauges in numbers.versions]
        return sum(each.instances for each in every if (each.model, each.version) == (model, version))

    def reports(self, own: Iterable[VersionReport]) -> list[VersionReport]:
        """Return reports with the waiting requests of all engine processes. Thread: any."""
        numbers = self.numbers()

        def waiting(report: VersionReport) -> int:
            return sum(each.waiting.get((report.model, report.version), 0) for each in numbers)

        return [replace(report, pending=report.pending + waiting(report)) for report in own]

    def _on_told(self, told: EngineTold) -> None:
        for each in told.changes:
            try:
                version = self._registry.find(each.model, each.version)
            except UnknownModelError:
                continue  # it is unloaded here
            version.statistics.add(partial(add, more=each.counts))
        if self._journal is not None:
            self._journal.batches.extend(told.batches)

    def _on_calls(self, calls: Calls) -> None:
        """Do what was done before this process started."""
        new = [call for call in calls.calls if model_of(call) not in self._calls]
        for call in new:
            note(self._calls, call)
        task = asyncio.get_running_loop().create_task(self._do_all(new))
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _do_all(self, calls: list[RpcCall]) -> None:
        for call in calls:
            answer = await self._answer(call)
            if answer.code != "OK":
                log.warning("a model is not as in the other engine processes", detail=answer.details)


class _Other:
    """One other engine process.

    Args:
        connection: socket to it; owned from now on.
        on_told: takes its news.
        on_calls: takes the calls that it has done.
        on_end: called once, when it has gone.
    """

    def __init__(
        self,
        connection: socket.socket,
        on_told: Callable[[EngineTold], None],
        on_calls: Callable[[Calls], None],
        on_end: Callable[[], None],
    ) -> None:
        self.numbers: EngineNumbers | None = None
        self._on_told = on_told
        self._on_calls = on_calls
        self._on_end = on_end
        self._counting: list[asyncio.Future[None]] = []
        self._asked: list[asyncio.Future[RpcAnswer | None]] = []  # oldest first, as they are answered
        self.talk = Talk(connection, self._on_message, self._end)

    def ask(self, call: RpcCall) -> "asyncio.Future[RpcAnswer | None]":
        """Have it do a call; done with its answer, or with None once it has gone."""
        answered: asyncio.Future[RpcAnswer | None] = asyncio.get_running_loop().create_future()
        self._asked.append(answered)
        self.talk.send(call)
        return answered

    def ask_counts(self) -> "asyncio.Future[None]":
        """Have it send its counts; done when they have come, or never will."""
        counted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._counting.append(counted)
        self.talk.send(CountsWanted())
        return counted

    def _on_message(self, message: object, _: list[int]) -> None:
        match message:
            case EngineTold():
                self.numbers = message.numbers
                self._on_told(message)
            case RpcAnswer():
                _settle(self._asked.pop(0), message)
            case Counted():
                _settle(self._counting.pop(0), None)
            case Calls():
                self._on_calls(message)
            case _:
                log.error("unknown message of an engine process", message=type(message).__name__)

    def close(self) -> None:
        """Talk no more. Idempotent."""
        self.talk.take_rest()
        self.talk.close()
        for answered in self._asked:
            _settle(answered, None)
        for counted in self._counting:
            _settle(counted, None)
        self._asked.clear()
        self._counting.clear()

    def _end(self) -> None:
        self.close()
        self._on_end()


def _settle(future: "asyncio.Future[T]", value: T) -> None:
    if not future.done():  # else its caller waits no longer
        future.set_result(value)
