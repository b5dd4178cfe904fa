"""The composition root of an engine process: models and the admin port, for front ends in other processes.

Life: tune -> log -> connect front-end processes as they come -> load models -> SERVING -> ready line -> serve ->
SIGTERM, when the front-end processes have drained -> models closed left to right -> exit 0. A lost device, a hang or a
bug in a thread of a pipeline ends the process with code 70, as in a server of one process.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Mapping

import structlog

from forebay_server.engines.device import Device
from forebay_server.engines.engine import EngineSpecs
from forebay_server.service.admin_side import CLOSE_TIMEOUT_S, LAST_LOOK_S, AdminSide, journal_of
from forebay_server.service.clock import Clock, MonotonicClock
from forebay_server.service.frontend.admission import Admission
from forebay_server.service.frontend.control.repository import RepositoryRpcs
from forebay_server.service.frontend.control.settings import SettingsRpcs
from forebay_server.service.frontend.control.statistics import StatisticsRpcs
from forebay_server.service.frontend.control.streams import StreamRpcs
from forebay_server.service.frontend.memory.regions import ClientRegions
from forebay_server.service.frontend.open_inference.lookup import ModelLookup
from forebay_server.service.frontend.tls import check_certificates
from forebay_server.service.group.control_end import ControlEnd
from forebay_server.service.group.first_engine import FirstEngine
from forebay_server.service.group.forwarded import GroupRpcs
from forebay_server.service.group.group_gauges import (
    GroupPermitNumbers,
    GroupPoolNumbers,
    counters_of,
    frames_of,
    processes_of,
    reception_of,
)
from forebay_server.service.group.link_sink import LinkSink
from forebay_server.service.group.links import Links
from forebay_server.service.group.memory_file import MemoryFile
from forebay_server.service.group.memory_layout import ArraysLimits
from forebay_server.service.group.messages import RpcAnswer, RpcCall
from forebay_server.service.group.other_engines import OtherEngines
from forebay_server.service.group.peers import Peers
from forebay_server.service.group.rebalancing import Rebalancing
from forebay_server.service.group.version_memory import VersionMemory
from forebay_server.service.journal.events import Journal
from forebay_server.service.journal.statistics import VersionReport
from forebay_server.service.journal.streams import sum_of
from forebay_server.service.life import EXIT_FATAL, EXIT_OK, Life
from forebay_server.service.load.listing import Listing
from forebay_server.service.load.moving import Moving
from forebay_server.service.model_side import ModelSide, version_context
from forebay_server.service.models.instances import WHOLE, Part
from forebay_server.service.models.placement import OpenDevice, open_device_of_kind
from forebay_server.service.models.request_memory import rows_bytes, unbound_bytes
from forebay_server.service.observe.gauges import Gauges
from forebay_server.service.pictures.device_picture import FilePlace
from forebay_server.service.pipeline.builder import UNBOUND_LIMIT_BYTES
from forebay_server.service.pipeline.execute import BeforeExecution
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.ready import Ready
from forebay_server.service.serving import serve_with
from forebay_server.service.settings import ServeSettings
from forebay_server.service.standard_error import STANDARD_ERROR
from forebay_server.service.worker_pool import WorkerPool

log = structlog.get_logger(__name__)

GONE_TIMEOUT_S = 10.0  # beyond announcement and grace, for front-end processes that were asked to stop as well


class EngineServer:
    """One engine process. Thread: the event loop's, except `on_fatal` (any).

    Args:
        settings: all of them; `front_ends` is a number.
        control: socket over which the parent sends the engine process's ends of each front-end process's sockets.
        clock: source of monotonic nanoseconds.
        open_device: opens the devices of the models.
        guard: called at the first fatal error, on the thread that met it: bounds the time of `close`.
        before_execution: for tests, see `service.pipeline.execute`.
        part: which of several engine processes this is; the first one leads.
        permits_file: of the group, where there are several; owned from now on.
    """

    def __init__(
        self,
        settings: ServeSettings,
        control: socket.socket,
        clock: Clock | None = None,
        open_device: OpenDevice = open_device_of_kind,
        guard: Callable[[], None] = lambda: None,
        before_execution: BeforeExecution | None = None,
        part: Part = WHOLE,
        permits_file: MemoryFile | None = None,
    ) -> None:
        self.settings = settings
        self.clock: Clock = clock or MonotonicClock()
        self._loop = asyncio.get_running_loop()
        self.life = life = Life(self.clock, guard)
        self.requests, self.on_fatal, self.wait = life.requests, life.on_fatal, life.wait
        self._leads = part.index == 0
        self._loaded = asyncio.Event()
        self.journal = journal_of(settings) if self._leads else Journal()
        self.pool = WorkerPool(1, self.on_fatal)  # typed results are made in the front-end processes
        front_ends, permits, message_bytes = int(settings.front_ends), settings.permits, settings.max_message_bytes

        def open_memory(device: Device, specs: EngineSpecs, files: FilePlace | None) -> VersionMemory:
            arrays = ArraysLimits(unbound_bytes(message_bytes, front_ends), UNBOUND_LIMIT_BYTES)
            return VersionMemory(device, specs, front_ends, permits, rows_bytes(message_bytes), arrays, files)

        context = version_context(
            settings,
            self.clock,
            life,
            self.pool,
            LinkSink(),
            Permits(permits, self.clock),
            open_device,
            journal=self.journal,
            before_execution=before_execution,
            open_memory=open_memory,
            part=part,
        )
        self.models = models = ModelSide(settings, context, life, self._on_model_changed)
        self.registry, self.lifecycle = models.registry, models.lifecycle
        self.links, rpcs = Links(self.on_fatal), self._rpcs()
        self.others = OtherEngines(self.registry, self.journal, rpcs.answer)
        self.peers = peers = Peers(front_ends, permits, models, self.links, self.journal, rpcs, permits_file)
        self.registry.on_retired = peers.retired
        if part.count > 1 and self._leads:
            peers.others = self.others
        self.rebalancing = Rebalancing(peers.movable_streams, peers.leaving_streams, peers.move_streams, self.clock)
        self.moving = Moving(
            self.registry.all,
            lambda: frames_of(peers.numbers()),
            lambda: sum_of(each.streams for each in peers.numbers()),
            peers.move_elsewhere,
            peers.publish,
            self.clock,
            is_on=settings.move_streams,
            more_instances=self.others.instances,
        )
        self.gauges = gauges = Gauges(
            self.registry.all,
            GroupPoolNumbers(peers.numbers),
            GroupPermitNumbers(permits, peers.counts),
            lambda: self.is_ready,
            lambda: reception_of(peers.numbers()),
            lambda: STANDARD_ERROR.dropped + counters_of(peers.numbers()).log_lines_dropped,
            lambda: sum_of(each.streams for each in peers.numbers()),
            lambda: [*(each.process for each in self.others.numbers()), *processes_of(peers.numbers())],
            lambda: self.moving.load,
            self.others.numbers,
        )

        def reports() -> list[VersionReport]:
            return self.others.reports(self.registry.reports())

        self.admin = AdminSide(
            settings, self.clock, self.journal if self._leads else None, gauges, reports, lambda: self.is_ready
        )
        self.first = FirstEngine(part, self.registry, gauges, self.journal, self._answer, peers.collect_counts)
        self._answers = rpcs.answer
        self._control = ControlEnd(control, self._on_sockets)

    async def _answer(self, call: RpcCall) -> RpcAnswer:
        """Do a load or unload that the first engine process has done."""
        answer = await self._answers(call)
        self.peers.refresh()
        return answer

    def _rpcs(self) -> GroupRpcs:
        registry, settings = self.registry, self.settings
        regions = ClientRegions(is_enabled=False)
        lookup = ModelLookup(registry.find, registry.acquire, registry.known_versions, regions, Admission(self.clock))
        return GroupRpcs(
            self._loaded,
            RepositoryRpcs(self.lifecycle, allows_files=settings.allow_model_files),
            StatisticsRpcs(lookup, registry.all),
            SettingsRpcs(lookup),
            StreamRpcs(self._list_streams, self._move_streams),
        )

    async def _list_streams(self) -> Listing:  # `peers` is made with these RPCs
        return await self.peers.list_streams()

    async def _move_streams(self, count: int) -> int:
        return await self.peers.move_by_operator(count)

    @property
    def is_ready(self) -> bool:
        """Whether the server takes requests for every model that should serve."""
        return self.life.is_serving and not self.life.stopping.is_set() and not self.models.is_lacking()

    @property
    def admin_address(self) -> str | None:
        """Of the admin port, if there is one."""
        return self.admin.address

    @property
    def has_hung_loads(self) -> bool:
        """After `close`: whether a thread is inside a library, and may stay there for ever."""
        return self.models.has_hung_loads

    async def start(self) -> Ready | None:
        """Load the models, and let front-end processes listen; return None if a stop request came before that.

        Raises RepositoryError, EngineError or AddressError; `close_unstarted` then cleans up.
        """
        self.links.start()
        self._control.listen()
        await self.admin.start()
        if not await self.models.load():
            return None
        self._loaded.set()
        self.life.is_serving = True
        self.models.serve()
        self.peers.refresh()
        self.peers.serve()
        if self._leads:
            self.rebalancing.start()
            self.moving.start()
        return Ready("", None, self.admin_address, os.getpid(), self.registry.versions())

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """Handle a request to stop: drain, or, at a second request, end the process at once."""
        self.life.stop(signal_number)

    def _on_sockets(self, names: Mapping[str, int], sockets: list[socket.socket]) -> None:
        """Take in the sockets of another process."""
        match names:
            case {"front_end": front_end}:
                self.peers.connect(front_end, *sockets)
            case {"engine": index}:
                self.others.connect(index, *sockets)
            case _:
                self.first.connect(*sockets)

    def _on_model_changed(self, name: str, is_serving: bool) -> None:  # noqa: FBT001 - called with both, by position
        self.peers.changed(name, is_serving=is_serving)

    async def close(self) -> int:
        """Wait for the front-end processes, close every part, and return the exit code."""
        life = self.life
        self.rebalancing.stop()
        self.moving.stop()
        self.models.stop()
        if life.fatal is None and not life.is_serving:
            await self.close_unstarted()
            return EXIT_OK
        try:
            if life.fatal is None and await self._close_in_order() and life.fatal is None:
                return EXIT_OK
            log.error("the process cannot go on", error=str(life.fatal) if life.fatal else "an engine hangs")
            life.guard()
            try:
                self._hang_up()
                await self.admin.close(LAST_LOOK_S)
            except Exception:  # of any kind: the exit code asks for a restart
                log.exception("the end was not in order")
            return EXIT_FATAL
        finally:
            self.models.watchdog.stop()

    async def _close_in_order(self) -> bool:
        """Let every request be answered, then close every part; return whether all threads of the models have ended."""
        settings = self.settings
        await self.peers.wait_gone(settings.drain_announce_s + settings.drain_grace_s + GONE_TIMEOUT_S)
        self._hang_up()
        await self.admin.close()
        return self.life.fatal is None and await self._close_models()

    async def close_unstarted(self) -> None:
        """Close the parts that a failed `start` had opened."""
        self._hang_up()
        await self.admin.thread.close(CLOSE_TIMEOUT_S)
        await self._close_models()

    def _hang_up(self) -> None:
        """Let the front-end processes find out that this one ends. Idempotent."""
        self._control.close()
        self.first.close()
        self.others.close()
        self.peers.close()

    async def _close_models(self) -> bool:
        """Close every model and its threads; return whether all ended."""
        await self.peers.wait_gone(CLOSE_TIMEOUT_S)
        is_ended = await self.models.close()
        await asyncio.to_thread(self.links.stop)
        if is_ended:
            self.peers.end()
            await asyncio.to_thread(self.pool.close)
        return is_ended


def serve_engine(
    settings: ServeSettings, control_fd: int, part: Part = WHOLE, permits_file: MemoryFile | None = None
) -> int:
    """Run an engine process until it is asked to stop and return the exit code. Thread: main.

    Args:
        settings: of this process.
        control_fd: of the socket from the parent.
        part: which of several engine processes it is.
        permits_file: of the group, where there are several.

    Raises CertificateError, which the front-end processes would find after the models are loaded, and all
    errors of `EngineServer.start`.
    """
    check_certificates(settings)
    control = socket.socket(fileno=control_fd)

    def make(guard: Callable[[], None]) -> EngineServer:
        return EngineServer(settings, control, guard=guard, part=part, permits_file=permits_file)

    return serve_with(make, settings.ready_file)
