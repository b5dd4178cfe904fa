"""The composition root of a front-end process: gRPC, sessions, decoding and results before an engine process.

Life: tune -> log -> say Hello -> the engine process welcomes, publishes its models and says Serving -> listen -> ready
line -> serve -> SIGTERM -> drain -> tell the last events -> exit 0. Above `service.models.served` everything is as in
a server of one process. When the engine process has gone the end is that of a lost device: exit code 70.
"""

import asyncio
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import psutil
import structlog

from forebay_server.service.assembly import FrontEndParts, assemble_front_end
from forebay_server.service.clock import Clock, MonotonicClock
from forebay_server.service.frontend.control.model import Handlers, ModelRpcs
from forebay_server.service.frontend.loop_sink import LoopSink
from forebay_server.service.frontend.memory.cuda import CudaMemoryRpcs
from forebay_server.service.frontend.memory.regions import ClientRegions
from forebay_server.service.frontend.memory.system import SystemMemoryRpcs
from forebay_server.service.frontend.open_inference.lookup import ModelLookup
from forebay_server.service.frontend.server import within_memory
from forebay_server.service.group.engine_peer import EngineLostError, EnginePeer, UnmappedError
from forebay_server.service.group.engine_peers import EnginePeers
from forebay_server.service.group.front_end_journal import JournalShipper
from forebay_server.service.group.messages import FrontEndNumbers
from forebay_server.service.journal.process import ProcessNumbers
from forebay_server.service.journal.streams import Why
from forebay_server.service.life import EXIT_FATAL, EXIT_OK, Life
from forebay_server.service.load.listing import NO_STREAMS, Listing
from forebay_server.service.load.meter import Load
from forebay_server.service.load.overload import Wish
from forebay_server.service.models.memory import limited_bytes
from forebay_server.service.models.served import ServedVersion
from forebay_server.service.region_watch import RegionWatch
from forebay_server.service.serving import serve_with
from forebay_server.service.settings import ServeSettings
from forebay_server.service.standard_error import STANDARD_ERROR
from forebay_server.service.worker_pool import WorkerPool, default_workers

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FrontEndReady:
    """The line of a front-end process for its parent, once it listens."""

    address: str
    uds: str | None
    pid: int

    def to_json(self) -> str:
        """One line."""
        return json.dumps({"event": "ready"} | asdict(self))


class FrontEndServer:
    """One front-end process. Thread: the event loop's, except `on_fatal` (any).

    Args:
        settings: of this process; `front_ends` is how many there are.
        index: of this one, from 0.
        sockets: for frames and for messages to the only engine process; to the parent, where there are several. Owned
            from now on.
        clock: source of monotonic nanoseconds.
        guard: called at the first fatal error, on the thread that met it: bounds the time of `close`.

    Attributes:
        engine: the other side. Its `registry` and `permits` are there once it has welcomed this process.
        parts: the front end; from then on, too.
    """

    def __init__(
        self,
        settings: ServeSettings,
        index: int,
        sockets: Sequence[socket.socket],
        clock: Clock | None = None,
        guard: Callable[[], None] = lambda: None,
    ) -> None:
        left_bytes = limited_bytes()
        if left_bytes is not None:
            left_bytes //= max(1, int(settings.front_ends))
        self.settings = settings = within_memory(settings, left_bytes)
        self.clock: Clock = clock or MonotonicClock()
        self.life = life = Life(self.clock, guard)
        self.requests, self.on_fatal, self.wait = life.requests, life.on_fatal, life.wait
        self.has_hung_loads = False
        self.sink = LoopSink(asyncio.get_running_loop())
        self.pool = WorkerPool(settings.worker_threads or default_workers(), self.on_fatal)
        parts = self.clock, self.pool, self.sink, self
        self.engine: EnginePeer | EnginePeers
        if len(sockets) == 1:
            self.engine = EnginePeers(settings, index, sockets[0], *parts)
        else:
            data, talk = sockets
            self.engine = EnginePeer(settings, index, data, talk, *parts)
        self.parts: FrontEndParts | None = None
        self._region_watch: RegionWatch | None = None
        self._shipper: JournalShipper | EnginePeers | None = None
        self._shipping: asyncio.Task[None] | None = None
        self._index = index
        self._process = psutil.Process()

    @property
    def is_ready(self) -> bool:
        """Whether the group takes requests for every model that should serve."""
        return self.life.is_serving and not self.life.stopping.is_set() and self.engine.is_ready

    async def start(self) -> FrontEndReady | None:
        """Listen once the engine process serves; return None if a stop request came before that.

        Raises AddressError or CertificateError; `close_unstarted` then cleans up.
        """
        self.engine.greet()
        serving = await self.life.unless_stopped(self.engine.serving.wait())
        if self.life.stopping.is_set() or self.parts is None or self._shipper is None:
            serving.cancel()
            return None
        addresses = await self.parts.front_end.start()
        self.life.is_serving = True
        self._region_watch = RegionWatch(self.parts.regions, self.on_fatal)
        self._region_watch.start()
        self._shipping = asyncio.create_task(self._shipper.run())
        uds = None if self.settings.uds is None else str(self.settings.uds)
        return FrontEndReady(addresses[0], uds, os.getpid())

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """Handle a request to stop: drain, or, at a second request, end the process at once."""
        self.life.stop(signal_number)

    async def close(self) -> int:
        """Drain, tell the engine process the rest, close every part, and return the exit code."""
        life = self.life
        try:
            if life.fatal is None and not life.is_serving:
                await self.close_unstarted()
                return EXIT_OK
            if life.fatal is None and self.parts is not None:
                await self.parts.front_end.drain()
                self.parts.regions.close()
            if life.fatal is None:
                await self._say_goodbye()
                await asyncio.to_thread(self.pool.close)
                return EXIT_OK
            # The engine process has logged why it ended, or its parent says how: one line of error is enough.
            level = logging.INFO if isinstance(life.fatal, EngineLostError) else logging.ERROR
            log.log(level, "the process cannot go on", error=str(life.fatal))
            life.guard()
            try:
                if self.parts is not None:
                    await self.parts.front_end.abort()
            except Exception:  # with any exception, the exit code asks for a restart
                log.exception("the end was not in order")
            return EXIT_FATAL
        finally:
            if self._region_watch is not None:
                self._region_watch.stop()
            if self._shipping is not None:
                self._shipping.cancel()
            self.engine.close()

    async def close_unstarted(self) -> None:
        """Close the parts that a failed `start` had opened."""
        if self.parts is not None:
            await self.parts.front_end.abort()
        self.engine.close()
        await asyncio.to_thread(self.pool.close)

    async def _say_goodbye(self) -> None:
        if self._shipping is not None and self._shipper is not None:
            self._shipping.cancel()
            self._shipper.tell_all()
            await self.engine.sent()

    # --- what the engine process brings about -------------------------------------------------------------------------

    def welcomed(self) -> None:
        """Build the front end: permits, journal and models of the engine process are known."""
        engine, settings = self.engine, self.settings
        parts = self.parts = assemble_front_end(
            settings,
            self.clock,
            engine.registry,
            self.pool,
            engine.permits,
            self.sink,
            engine.journal,
            self._control,
            lambda *_: engine.forwarded.streams,
            engine.streams,
        )
        self._shipper = engine.shipper(lambda: self._numbers(parts))

    def _numbers(self, parts: FrontEndParts) -> FrontEndNumbers:
        reception = parts.front_end.reception_numbers()
        return FrontEndNumbers(
            reception,
            self.pool.thread_count,
            self.pool.busy_count,
            self.pool.waiting_count,
            STANDARD_ERROR.dropped,
            parts.frames.movable_count,
            parts.front_end.stream_numbers(),
            ProcessNumbers(
                f"front end {self._index}",
                self._process.pid,
                time.process_time(),
                self._process.memory_info().rss,
                reception.connections,
                len(parts.frames.streams),
            ),
            parts.frames.totals(),
            tuple(parts.frames.weights()) if self.settings.move_streams else (),
            parts.frames.leaving_count,
        )

    def changed(self, name: str, *, is_serving: bool) -> None:
        """Publish the health of a model, or of the group."""
        if self.parts is not None:
            self.parts.front_end.health.set(name, is_serving=is_serving)

    def retired(self, version: ServedVersion) -> None:
        """Ask the streams of a version that is being unloaded to reconnect."""
        if self.parts is not None:
            self.parts.frames.send_away(version, int(self.settings.drain_grace_s * 1000))

    def rebalance(self, count: int) -> None:
        """Ask some streams to go to other front-end processes."""
        if self.parts is not None:
            self.parts.frames.rebalance(count, int(self.settings.drain_grace_s * 1000))

    def move(self, wish: Wish, why: Why) -> None:
        """Ask some streams to go to other servers."""
        if self.parts is not None:
            self.parts.frames.move(wish, int(self.settings.drain_grace_s * 1000), why)

    def listing(self) -> Listing:
        """Return the open streams of this process."""
        return NO_STREAMS if self.parts is None else self.parts.frames.listing(len(self.parts.inference.streams))

    def publish(self, load: Load) -> None:
        """Report the load of the group."""
        if self.parts is not None:
            self.parts.frames.door.has_room = load.has_room
            self.parts.front_end.load_reports.publish(load)

    def lost(self) -> None:
        """The engine process has gone."""
        self.on_fatal(EngineLostError("the engine process has ended"))

    def failed(self, error: UnmappedError) -> None:
        """Memory of the engine process cannot be used here."""
        self.on_fatal(error)

    def _control(self, lookup: ModelLookup, regions: ClientRegions) -> Handlers:
        groups = (self.engine.forwarded, SystemMemoryRpcs(regions), CudaMemoryRpcs(regions))
        return ModelRpcs(lookup, self.engine.registry.versions, lambda: self.is_ready, *groups).methods()


def serve_front_end(settings: ServeSettings, index: int, *descriptors: int) -> int:
    """Run a front-end process until it is asked to stop and return the exit code. Thread: main.

    Args:
        settings: of this process.
        index: of this one, from 0.
        descriptors: of the sockets that `FrontEndServer` takes.
    """
    sockets = [socket.socket(fileno=each) for each in descriptors]
    return serve_with(lambda guard: FrontEndServer(settings, index, sockets, guard=guard))
