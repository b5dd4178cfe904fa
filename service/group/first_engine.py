"""The first engine process as another one sees it: it takes the news of this one, and sends what all have to do.

Four times a second, and before it is asked for counts, the first engine process gets the changes of the counts of this
one, the batches that were executed, and current numbers. Loads and unloads come from it, one after the other as it did
them itself.

Owner: the event loop's thread.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import structlog

from forebay_server.service.group.forwarded import MESSAGES
from forebay_server.service.group.messages import (
    Calls,
    Counted,
    CountsChange,
    CountsWanted,
    EngineNumbers,
    EngineTold,
    LogLevel,
    RpcAnswer,
    RpcCall,
)
from forebay_server.service.group.talk import Talk
from forebay_server.service.journal.count_changes import change
from forebay_server.service.journal.events import BatchEvent, Journal
from forebay_server.service.journal.process import ProcessNumbers
from forebay_server.service.journal.statistics import Counts
from forebay_server.service.log import set_level
from forebay_server.service.models.instances import Part
from forebay_server.service.models.registry import ModelRegistry
from forebay_server.service.models.version import ModelVersion
from forebay_server.service.observe.gauges import Gauges

log = structlog.get_logger(__name__)

INTERVAL_S = 0.25
MOST_BATCHES = 4096  # of one message


class FirstEngine:
    """See the module.

    Args:
        part: which engine process this one is.
        registry: the versions of this process.
        gauges: of this process.
        journal: has the batches; None: nothing is observed.
        answer: does a load or unload here.
        collect_counts: has the front-end processes send what they have counted.
    """

    def __init__(
        self,
        part: Part,
        registry: ModelRegistry,
        gauges: Gauges,
        journal: Journal | None,
        answer: Callable[[RpcCall], Awaitable[RpcAnswer]],
        collect_counts: Callable[[], Awaitable[None]],
    ) -> None:
        self._part = part
        self._registry = registry
        self._gauges = gauges
        self._journal = journal
        self._answer = answer
        self._collect_counts = collect_counts
        self._talk: Talk | None = None
        self._told: WeakKeyDictionary[ModelVersion, Counts] = WeakKeyDictionary()
        self._calls: dict[str, RpcCall] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._telling: asyncio.Task[None] | None = None
        self._order = asyncio.Lock()  # calls are done in the order in which they came

    def connect(self, connection: socket.socket) -> None:
        """Talk to the first engine process from now on: it has started, or this one has."""
        self.close()
        self._talk = Talk(connection, self._on_message, self.close)
        if self._calls:
            self._talk.send(Calls(tuple(self._calls.values())))
        self._telling = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """Talk no more. Idempotent."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        if self._talk is not None:
            self._talk.close()
            self._talk = None

    def _on_message(self, message: object, _: list[int]) -> None:
        talk = self._talk  # answers go where the question came from: another process may be the first one by then
        match message:
            case RpcCall():
                self._begin(self._do(message, talk))
            case Calls():
                for call in message.calls:
                    self._begin(self._do(call))
            case CountsWanted():
                self._begin(self._tell_counts(talk))
            case LogLevel():
                set_level(message.level)
            case _:
                log.error("unknown message of the first engine process", message=type(message).__name__)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _do(self, call: RpcCall, asker: Talk | None = None) -> None:
        note(self._calls, call)  # at once: a first engine process that starts meanwhile has to know of it
        async with self._order:
            answer = await self._answer(call)
        if asker is not None:
            asker.send(answer)
        elif answer.code != "OK":
            log.warning("a model is not as in the first engine process", detail=answer.details)

    async def _tell_counts(self, asker: Talk | None) -> None:
        await self._collect_counts()
        self.tell()
        if asker is not None:
            asker.send(Counted())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                self.tell()
            except Exception:
                log.exception("the first engine process was not told")  # the next time may succeed

    def tell(self) -> None:
        """Tell what has happened since the last time."""
        if self._talk is None or self._talk.is_behind:
            return  # later: it is stopped perhaps, and nothing may grow here
        self._talk.send(EngineTold(self._changes(), self._batches(), self._numbers()))

    def _changes(self) -> tuple[CountsChange, ...]:
        changes: list[CountsChange] = []
        for version in self._registry.running():
            counts = version.statistics.snapshot()
            changed = change(counts, self._told.get(version, Counts()))
            if changed is not None:
                self._told[version] = counts
                changes.append(CountsChange(version.name, version.version, changed))
        return tuple(changes)

    def _batches(self) -> tuple[BatchEvent, ...]:
        if self._journal is None:
            return ()
        batches = self._journal.batches
        index, count = self._part.index, self._part.count
        taken = [batches.popleft() for _ in range(min(len(batches), MOST_BATCHES))]
        return tuple(batch._replace(lane=batch.lane * count + index) for batch in taken)

    def _numbers(self) -> EngineNumbers:
        server = self._gauges.server()
        every = self._registry.all()
        waiting = {(each.name, each.version): each.former.statistics().waiting_requests for each in every}
        process = ProcessNumbers(f"engine process {self._part.index}", server.pid, server.cpu_s, server.memory_bytes)
        return EngineNumbers(tuple(self._gauges.versions()), waiting, self._gauges.devices(), process)


def note(calls: dict[str, RpcCall], call: RpcCall) -> None:
    """Keep a load or unload as the latest of its model, behind those of the others."""
    name = model_of(call)
    calls.pop(name, None)
    calls[name] = replace(call, id=0)


def model_of(call: RpcCall) -> str:
    """Return the model that a load or unload is about."""
    name: str = MESSAGES[call.method][0].FromString(call.request).model_name
    return name
