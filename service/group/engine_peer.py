"""The engine process as a front-end process sees it: its messages, and the two ways to it.

Owner: the event loop's thread.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from forebay_server.service.clock import Clock
from forebay_server.service.frontend.control.repository import check_change, check_files
from forebay_server.service.frontend.loop_sink import LoopSink
from forebay_server.service.group.engine_link import EngineLink
from forebay_server.service.group.forwarded import ForwardedRpcs
from forebay_server.service.group.front_end_counts import FrontEndCounts
from forebay_server.service.group.front_end_journal import JournalShipper
from forebay_server.service.group.group_parts import GroupParts, OfGroup
from forebay_server.service.group.memory_file import MemoryFile
from forebay_server.service.group.messages import (
    Counted,
    CountsWanted,
    FrontEndNumbers,
    Health,
    Hello,
    Known,
    LoadNow,
    LogLevel,
    LookAt,
    MoveStreams,
    Published,
    Retired,
    RpcAnswer,
    Serving,
    StreamsListed,
    StreamsWanted,
    Unused,
    Welcome,
)
from forebay_server.service.group.remote_registry import RemoteRegistry
from forebay_server.service.group.remote_version import RemoteVersion
from forebay_server.service.group.talk import Talk
from forebay_server.service.journal.events import RequestJournal
from forebay_server.service.journal.statistics import CountingSink
from forebay_server.service.journal.streams import Why
from forebay_server.service.load.listing import Listing
from forebay_server.service.load.meter import Load
from forebay_server.service.load.overload import Wish
from forebay_server.service.log import set_level
from forebay_server.service.models.request_memory import unbound_bytes
from forebay_server.service.models.served import ServedVersion
from forebay_server.service.results.finisher import ResultFinisher
from forebay_server.service.settings import ServeSettings
from forebay_server.service.worker_pool import WorkerPool


class EngineLostError(Exception):
    """The engine process has ended, and this process can do nothing without it."""


class UnmappedError(Exception):
    """Memory that the engine process shares cannot be mapped here: this process would serve only a part."""


class Listener(Protocol):
    """The events that the engine process causes. Thread: the event loop's."""

    def welcomed(self) -> None:
        """The first message has come: everything but models is known."""
        ...

    def changed(self, name: str, *, is_serving: bool) -> None:
        """A model, or with an empty name the group, serves from now on, or does not."""
        ...

    def retired(self, version: ServedVersion) -> None:
        """A version takes no new users."""
        ...

    def rebalance(self, count: int) -> None:
        """This process has so many more streams than the others."""
        ...

    def move(self, wish: Wish, why: Why) -> None:
        """So many streams are to go to other servers."""
        ...

    def listing(self) -> Listing:
        """Return the open streams of this process."""
        ...

    def publish(self, load: Load) -> None:
        """Report the load of the group."""
        ...

    def lost(self) -> None:
        """The engine process has gone; called once."""
        ...

    def failed(self, error: UnmappedError) -> None:
        """This process has to end, and to start anew."""
        ...


@dataclass(frozen=True, slots=True)
class SharedByPeers:
    """The parts that the peers of several engine processes share.

    Attributes:
        group: permits and so on: one set, which the first message of any engine process makes.
        serving: set once one of them serves.
        forwarded: calls that the first engine process answers.
        registry: of this peer.
        leads: whether this is the first engine process, which takes the journal.
        first_uid: streams of this process are numbered from here on.
    """

    group: GroupParts
    serving: asyncio.Event
    forwarded: ForwardedRpcs
    registry: RemoteRegistry
    leads: bool
    first_uid: int


class EnginePeer(OfGroup):
    """See the module.

    Args:
        settings: of this process.
        index: of this process.
        data: socket for frames; owned from now on.
        talk: socket for messages; owned from now on.
        clock: source of monotonic nanoseconds.
        pool: makes typed results.
        sink: brings completions to the event loop.
        listener: takes the events.
        shared: with the peers of the other engine processes; None: there are none.

    Attributes:
        registry: the versions that are published.
        forwarded: calls that the engine process answers.
        serving: set once the engine process serves.
        is_ready: whether the group serves every model that should serve.
        is_welcome: whether the first message has come.
    """

    def __init__(
        self,
        settings: ServeSettings,
        index: int,
        data: socket.socket,
        talk: socket.socket,
        clock: Clock,
        pool: WorkerPool,
        sink: LoopSink,
        listener: Listener,
        shared: "SharedByPeers | None" = None,
    ) -> None:
        super().__init__(GroupParts(settings, index, clock) if shared is None else shared.group)
        self.serving = asyncio.Event() if shared is None else shared.serving
        self.is_ready = self.is_welcome = False
        self._shared = shared
        self._settings = settings
        self._index = index
        self._clock = clock
        self._pool = pool
        self._sink = sink
        self._listener = listener
        self._is_lost = False
        self._shipper: JournalShipper | None = None
        self._link = EngineLink(data, sink, clock, self._on_lost, pool.submit_result)
        self._talk = Talk(talk, self._on_message, self._on_lost)
        self.registry = RemoteRegistry(listener.retired) if shared is None else shared.registry
        check = partial(check_call, settings)
        own = ForwardedRpcs(self._talk.send, check, self.tell_counts)
        self.forwarded = own if shared is None else shared.forwarded

    @property
    def is_behind(self) -> bool:
        """Whether messages wait for the engine process to read."""
        return self._talk.is_behind

    @property
    def in_flight_count(self) -> int:
        """How many requests were sent and not answered."""
        return self._link.in_flight_count

    def greet(self) -> None:
        """Say the first word."""
        self._talk.send(Hello(os.getpid()))

    def shipper(self, numbers: Callable[[], FrontEndNumbers]) -> JournalShipper:
        """Return what tells the engine process what has happened here. Called once, after the first message."""
        self._shipper = JournalShipper(
            self._talk.send,
            self.journal if self._shared is None or self._shared.leads else None,
            lambda: [version.statistics for version in self.registry.published()],
            numbers,
            has_spans=bool(self._settings.trace_every_frames),
        )
        return self._shipper

    async def sent(self) -> None:
        """Return when all messages are on their way, or the engine process has gone."""
        await self._talk.sent()

    def close(self) -> None:
        """Close both ways. Idempotent."""
        self._talk.close()
        self._link.close()

    def send(self, message: object) -> None:
        """Send a message to the engine process."""
        self._talk.send(message)

    def tell_counts(self) -> None:
        """Send what was counted here."""
        if self._shipper is not None:
            self._shipper.tell_counts()

    def _on_lost(self) -> None:
        if not self._is_lost:
            self._is_lost = True
            self.close()
            self._listener.lost()

    def _on_message(self, message: object, descriptors: list[int]) -> None:  # noqa: C901, PLR0912 - one case a message
        match message:
            case Welcome():
                self._on_welcome(message, *descriptors)
            case Published():
                self._on_published(message, *descriptors)
            case Retired():
                self.registry.retire(message.number)
            case Known():
                self.registry.know(message.versions)
            case Health():
                self.is_ready = message.is_serving if not message.name else self.is_ready
                self._listener.changed(message.name, is_serving=message.is_serving)
            case Serving():
                self.serving.set()
            case RpcAnswer():
                self.forwarded.on_answer(message)
            case LogLevel():
                set_level(message.level)
            case CountsWanted():
                self.tell_counts()
                self._talk.send(Counted())
            case StreamsWanted():
                self._talk.send(StreamsListed(self._listener.listing()))
            case MoveStreams(why=Why.UNEVEN):
                self._listener.rebalance(message.wish.count)
            case MoveStreams():
                self._listener.move(message.wish, message.why)
            case LoadNow():
                self._listener.publish(message.load)
            case LookAt() if self._shipper is not None:
                self._shipper.look_at(message)

    def _on_welcome(self, welcome: Welcome, permits_fd: int) -> None:
        permits_file = self._map(permits_fd, "the permits")
        if permits_file is None:
            return
        if self._group.is_open:  # by another engine process, with the same file
            permits_file.close()
        else:
            self._group.open(permits_file, welcome.first_uid if self._shared is None else self._shared.first_uid)
        self.is_welcome = True
        set_level(welcome.log_level)
        self._listener.welcomed()

    def _on_published(self, published: Published, memory_fd: int) -> None:
        file = self._map(memory_fd, f"model {published.name}, version {published.version}")
        if file is None:
            return
        journal, settings, task = self.journal, self._settings, published.description.task
        counts = FrontEndCounts(published.number, self._clock)
        sink = CountingSink(self._sink, counts)
        version = RemoteVersion(
            published,
            file,
            self._index,
            self._link,
            self.permits,
            ResultFinisher(task, self._pool, sink, published.description.image),
            counts,
            requests=None
            if journal is None
            else RequestJournal(journal, published.name, published.version, self._clock),
            unbound_bytes=unbound_bytes(settings.max_message_bytes, int(settings.front_ends)),
            on_unused=self._on_unused,
            is_one_of_several=self._shared is not None,
        )
        self.registry.publish(version)

    def _map(self, fd: int, what: str) -> MemoryFile | None:
        """Map memory of the engine process. Where that cannot be done, end this process, and return None.

        Otherwise it would answer for good that the model is unknown, and the engine process would hold the version open
        for it. The process that takes its place gets everything again.
        """
        try:
            return MemoryFile.attach(fd)
        except OSError as error:
            self._listener.failed(UnmappedError(f"the shared memory of {what} cannot be mapped: {error.strerror}"))
            return None

    def _on_unused(self, version: RemoteVersion) -> None:
        self.tell_counts()
        self.registry.forget(version)
        self._talk.send(Unused(version.number))
        version.close()


def check_call(settings: ServeSettings, method: str, request: Any) -> None:  # noqa: ANN401 - a message
    """Raise InferenceError for a call that the settings refuse."""
    if method in {"RepositoryModelLoad", "RepositoryModelUnload"}:
        check_change(request.repository_name, settings.model_control_mode)
    if method == "RepositoryModelLoad" and not settings.allow_model_files:
        check_files(request)
