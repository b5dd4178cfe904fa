"""Several engine processes as a front-end process sees them: one registry, one set of permits, one journal.

The parent sends the sockets to each engine process, at the start and whenever one is started anew. This process listens
once one of them serves. The first one (number 0) has the journal, and answers the calls of the group. Each takes the
counts of its own versions.

When one has gone, its requests end with an error at once, its versions leave the registry, and all further frames go
to the others. Requests are not sent again: a frame that ended one engine process would end them all. When none is left,
this process ends as before an only engine process.

Owner: the event loop's thread.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from functools import partial

import structlog

from forebay_server.service.clock import Clock
from forebay_server.service.errors import EngineEndedError
from forebay_server.service.frontend.loop_sink import LoopSink
from forebay_server.service.group.control_end import ControlEnd
from forebay_server.service.group.engine_peer import EnginePeer, Listener, SharedByPeers, UnmappedError, check_call
from forebay_server.service.group.forwarded import ForwardedRpcs
from forebay_server.service.group.front_end_journal import INTERVAL_S, JournalShipper
from forebay_server.service.group.group_parts import GroupParts, OfGroup
from forebay_server.service.group.messages import FrontEndNumbers, RpcCall
from forebay_server.service.group.open_journal import OpenJournal
from forebay_server.service.group.remote_version import RemoteVersion
from forebay_server.service.group.routed_registry import RoutedRegistry
from forebay_server.service.group.routed_version import ENDED
from forebay_server.service.load.meter import Load
from forebay_server.service.settings import ServeSettings
from forebay_server.service.worker_pool import WorkerPool

log = structlog.get_logger(__name__)

STREAMS_EACH = 1_000_000_000  # as in `peers`; times the largest pid of Linux it is still exact in a browser
FIRST = 0


class EnginePeers(OfGroup):
    """Has the attributes of `EnginePeer` that a front-end process needs; see the module.

    Args:
        settings: of this process.
        index: of this process.
        control: socket over which the parent sends those to engine processes; owned from now on.
        clock: source of monotonic nanoseconds.
        pool: makes typed results.
        sink: brings completions to the event loop.
        listener: takes the events.
    """

    def __init__(
        self,
        settings: ServeSettings,
        index: int,
        control: socket.socket,
        clock: Clock,
        pool: WorkerPool,
        sink: LoopSink,
        listener: Listener,
    ) -> None:
        self.serving = asyncio.Event()
        self.registry = RoutedRegistry(index, listener.retired)
        self.forwarded = ForwardedRpcs(self._send_to_first, partial(check_call, settings), self._tell_counts)
        self._settings = settings
        self._index = index
        self._clock = clock
        self._pool = pool
        self._sink = sink
        self._listener = listener
        super().__init__(GroupParts(settings, index, clock, OpenJournal))
        self._numbers: Callable[[], FrontEndNumbers] | None = None  # known once the front end is built
        self._peers: dict[int, EnginePeer] = {}
        self._shippers: dict[int, JournalShipper] = {}
        self._has_greeted = self._is_closed = False
        self._control = ControlEnd(control, self._on_sockets)
        self._control.listen()

    @property
    def is_ready(self) -> bool:
        """Whether an engine process serves every model that should serve."""
        return any(peer.is_ready for peer in self._peers.values())

    @property
    def in_flight_count(self) -> int:
        """How many requests were sent and not answered."""
        return sum(peer.in_flight_count for peer in self._peers.values())

    def greet(self) -> None:
        """Say the first word to each engine process, also to those that come."""
        self._has_greeted = True
        for peer in self._peers.values():
            peer.greet()

    async def sent(self) -> None:
        """Return when all messages are on their way, or the engine processes have gone."""
        for peer in list(self._peers.values()):
            await peer.sent()

    def close(self) -> None:
        """Close every way. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._control.close()
        for peer in self._peers.values():
            peer.close()

    # --- what has happened here ---------------------------------------------------------------------------------------

    def shipper(self, numbers: Callable[[], FrontEndNumbers]) -> "EnginePeers":
        """Return what tells the engine processes what has happened here: itself. Called once."""
        self._numbers = numbers
        for engine, peer in self._peers.items():
            if peer.is_welcome:
                self._ship(engine, peer)
        return self

    def _ship(self, engine: int, peer: EnginePeer) -> None:
        if self._numbers is None or engine in self._shippers:
            return
        if engine == FIRST and isinstance(self.journal, OpenJournal):
            self.journal.tell_again()
        self._shippers[engine] = peer.shipper(self._numbers if engine == FIRST else FrontEndNumbers)

    async def run(self) -> None:
        """Tell again and again, until it is cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            for engine, shipper in list(self._shippers.items()):
                while not self._is_behind(engine) and shipper.tell():
                    await asyncio.sleep(0)

    def _is_behind(self, engine: int) -> bool:
        """Whether a message would wait: a process that is stopped gets none, so that nothing grows here."""
        peer = self._peers.get(engine)
        return peer is None or peer.is_behind

    def tell_all(self) -> None:
        """Tell everything: this process ends."""
        for shipper in self._shippers.values():
            shipper.tell_all()

    def _tell_counts(self) -> None:
        for peer in self._peers.values():
            peer.tell_counts()

    def _send_to_first(self, call: RpcCall) -> None:
        peer = self._peers.get(FIRST)
        if peer is None:
            self.forwarded.lost()
        else:
            peer.send(call)

    # --- engine processes come and go ---------------------------------------------------------------------------------

    def _on_sockets(self, names: Mapping[str, int], sockets: list[socket.socket]) -> None:
        """Take in the sockets of an engine process."""
        self._connect(names["engine"], *sockets)

    def _connect(self, engine: int, data: socket.socket, talk: socket.socket) -> None:
        if engine in self._peers:  # its process has gone, or there would be no other
            self._peers[engine].close()
            self.engine_lost(engine)
        shared = SharedByPeers(
            self._group,
            self.serving,
            self.forwarded,
            self.registry.registry_of(engine),
            leads=engine == FIRST,
            first_uid=os.getpid() * STREAMS_EACH,
        )
        own = _OfEngine(self, engine, self._listener)
        parts = (self._settings, self._index, data, talk, self._clock, self._pool, self._sink, own, shared)
        peer = self._peers[engine] = EnginePeer(*parts)
        if self._has_greeted:
            peer.greet()

    def engine_welcomed(self, engine: int) -> None:
        """The first message of an engine process has come."""
        if self._numbers is None:
            self._listener.welcomed()  # builds the front end, which calls `shipper`
        self._ship(engine, self._peers[engine])

    def engine_lost(self, engine: int) -> None:
        """An engine process has gone: end its requests, and send no more there."""
        peer = self._peers.pop(engine, None)
        if peer is None or self._is_closed:
            return
        self._shippers.pop(engine, None)
        versions = peer.registry.published()
        for version in versions:
            self._lose(version)
        failed = 0
        for version in versions:
            failed += version.fail_in_flight(EngineEndedError(ENDED))
            version.retire()
        if failed:
            log.warning("requests ended with an engine process", engine=engine, requests=failed)
        if engine == FIRST:
            self.forwarded.lost()
        if not self._peers and self.serving.is_set():
            self._listener.lost()

    def _lose(self, version: RemoteVersion) -> None:
        version.is_lost = True
        self.registry.leave(version)
        if version.name not in self.registry.versions():
            self._listener.changed(version.name, is_serving=False)

    def is_served(self, name: str) -> bool:
        """Whether an engine process serves a model, or for the empty name all that should serve."""
        return name in self.registry.versions() if name else self.is_ready


class _OfEngine:
    """Takes the events of one engine process; implements `Listener`.

    Args:
        peers: all.
        engine: its number.
        listener: takes what concerns the whole.
    """

    def __init__(self, peers: EnginePeers, engine: int, listener: Listener) -> None:
        self._peers = peers
        self._engine = engine
        self._listener = listener
        self.retired, self.rebalance, self.move = listener.retired, listener.rebalance, listener.move
        self.listing = listener.listing

    def welcomed(self) -> None:
        """See `Listener`."""
        self._peers.engine_welcomed(self._engine)

    def changed(self, name: str, *, is_serving: bool) -> None:
        """See `Listener`: a model serves while one engine process serves it."""
        self._listener.changed(name, is_serving=is_serving or self._peers.is_served(name))

    def publish(self, load: Load) -> None:
        """See `Listener`."""
        self._listener.publish(load)

    def lost(self) -> None:
        """See `Listener`."""
        self._peers.engine_lost(self._engine)

    def failed(self, error: UnmappedError) -> None:
        """See `Listener`."""
        self._listener.failed(error)
