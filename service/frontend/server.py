"""The gRPC server: one port for every protocol, and health.

Every limit is a setting (docs/operations.md), except the size of sent messages, which the model bounds.
"""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import grpc
import structlog

from forebay_server.service.clock import Clock
from forebay_server.service.free_memory import FreeMemory
from forebay_server.service.frontend.binding import AddressError, why_not_bound
from forebay_server.service.frontend.calls import CallTasks
from forebay_server.service.frontend.connections import Sockets
from forebay_server.service.frontend.control.reflection import Reflection
from forebay_server.service.frontend.frames.servicer import FramesServicer
from forebay_server.service.frontend.handlers import EveryMethod, GenericHandler
from forebay_server.service.frontend.health import HealthServicer
from forebay_server.service.frontend.housekeeping import Housekeeping
from forebay_server.service.frontend.load_reports import LoadReports
from forebay_server.service.frontend.open_inference.servicer import InferenceServicer
from forebay_server.service.frontend.reception.receptions import Receptions
from forebay_server.service.frontend.reception.under_way import CallsUnderWay
from forebay_server.service.frontend.reception.watch import ReceptionWatch
from forebay_server.service.frontend.restrictions import Restrictions
from forebay_server.service.frontend.stream_call import StreamCalls
from forebay_server.service.frontend.tls import CertificateError, ServerCertificates, files_of
from forebay_server.service.frontend.unix_socket import SocketPathError, socket_place
from forebay_server.service.journal.reception import ReceptionNumbers
from forebay_server.service.journal.streams import StreamNumbers
from forebay_server.service.restricted import read_restrictions
from forebay_server.service.settings import ServeSettings, is_loopback
from forebay_server.service.upkeep import Upkeep

log = structlog.get_logger(__name__)

_IDENTITY, _ALL_ALGORITHMS = 0b001, 0b111  # gRPC's compression algorithms as bits: none, deflate, gzip
MESSAGE_SHARE = 8  # a message exists up to three times while it is received, and models take memory too
RECEPTION_SHARE = 4  # messages in reception take twice their size in pieces
LEAST_MESSAGE_BYTES = 1 << 20
REQUESTS_FIRST_S = 1.0  # at most: the time that single requests have before streams are asked to leave
LAST_ANSWERS_S = 5.0  # after the grace, time for read requests to be answered
HANDSHAKE_TIMEOUT_S = 10.0  # four round trips and a certificate: ample on every link that can carry frames


__all__ = ["AddressError", "CertificateError", "FrontEnd", "server_options"]


class FrontEnd:
    """Owns the grpc.aio server. Thread: the event loop's.

    Args:
        frames: serves streams of frames.
        inference: serves the Open Inference Protocol.
        about_streams: lists and moves streams.
        reflection: describes the protocols; None where the setting is off.
        receptions: reads the messages of single requests.
        calls: ends calls whose client takes nothing.
        streams: the streaming calls of both.
        load_reports: answers balancers that ask for the load.
        clock: source of monotonic nanoseconds; tests pass a manual one.
        settings: limits.

    Attributes:
        health: answers health checks.
        load_reports: answers balancers.
        is_draining: from the first moment of a drain on, the announcement included.
        announced: set once a drain has been announced for long enough.
    """

    def __init__(
        self,
        frames: FramesServicer,
        inference: InferenceServicer,
        about_streams: GenericHandler,
        reflection: Reflection | None,
        receptions: Receptions,
        calls: CallTasks,
        streams: StreamCalls,
        load_reports: LoadReports,
        clock: Clock,
        settings: ServeSettings,
    ) -> None:
        self._frames = frames
        self._inference = inference
        self._reflection = reflection
        self._receptions = receptions
        self._clock = clock
        self._settings = settings
        self._calls = calls
        self._streams = streams
        self._under_way = CallsUnderWay()
        self.is_draining = False
        self.announced = asyncio.Event()
        self._addresses: list[str] = []
        calls.watch(asyncio.get_running_loop())
        secrets = read_restrictions(settings.restricted_protocol)
        interceptors = [Restrictions(secrets, receptions)] if secrets else []
        self._server = grpc.aio.server(interceptors=interceptors, options=server_options(settings))
        self.health = HealthServicer()
        self.load_reports = load_reports
        self._housekeeping: asyncio.Task[None] | None = None
        # grpc.aio asks them in this order, at every call. A stream of frames is one call.
        gates = {
            inference.handler(): receptions.gate,
            frames.handler(): receptions.gate,
            self.health.handler(): receptions.health_gate,
            load_reports.handler(): receptions.health_gate,
            about_streams: receptions.gate,
            **dict.fromkeys(reflection.handlers() if reflection else (), receptions.gate),
        }
        self._server.add_generic_rpc_handlers(
            [receptions.read_first(self._under_way.noted(each), gate) for each, gate in gates.items()]
        )
        unknown = receptions.refusing(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")  # gRPC's own words
        self._server.add_generic_rpc_handlers([EveryMethod(unknown)])
        self.watch = ReceptionWatch(receptions, settings, clock, asyncio.get_running_loop(), self._addresses)
        self._upkeep = Upkeep([self.watch.look, FreeMemory().look, frames.video_decoders.look])

    async def start(self) -> list[str]:
        """Listen and return the addresses, with real port numbers. Raises AddressError or CertificateError."""
        self._addresses.append(self._bind(self._settings.address, self._credentials()))
        if self._settings.uds is not None:
            self._addresses.append(self._bind_unix(self._settings.uds))
        await self._server.start()
        self._upkeep.start()
        housekeeping = Housekeeping(self._streams.open, self._clock, self._settings)
        self._housekeeping = asyncio.create_task(housekeeping.run())
        return self._addresses

    def reception_numbers(self) -> ReceptionNumbers:
        """Return the numbers of reception now. Thread: any."""
        watch = self.watch
        return ReceptionNumbers(
            watch.connections, watch.held_bytes, self._receptions.gate.waiting_count, watch.ended.copy()
        )

    def stream_numbers(self) -> StreamNumbers:
        """Return the numbers of streams now. Thread: any."""
        streams = self._streams
        return StreamNumbers(
            len(self._inference.streams),
            streams.opened.copy(),
            streams.refused.copy(),
            self._frames.asked_to_leave.copy(),
            self.is_draining,
        )

    def _credentials(self) -> grpc.ServerCredentials | None:
        """Return the credentials of the port: TLS, or None for plain text."""
        settings = self._settings
        files = files_of(settings)
        if files is None:
            if not is_loopback(settings.address.rpartition(":")[0]):
                log.warning("other machines reach this server without TLS", address=settings.address)
            return None
        return ServerCertificates(files).credentials()

    def _bind(self, address: str, credentials: grpc.ServerCredentials | None) -> str:
        try:
            if credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, credentials)
        except RuntimeError:
            port = 0
        if port == 0:
            host, _, wanted = address.rpartition(":")
            raise AddressError(f"cannot listen on {address}: {why_not_bound(host, int(wanted))}")
        return f"{address.rpartition(':')[0]}:{port}"

    def _bind_unix(self, path: Path) -> str:
        try:
            with socket_place(path):
                self._server.add_insecure_port(f"unix:{path}")
        except SocketPathError as error:
            raise AddressError(str(error)) from None
        except RuntimeError:
            raise AddressError(f"cannot listen on unix socket {path}: check the folder and its mode") from None
        return f"unix:{path}"

    async def drain(self) -> None:
        """Announce the end, refuse new calls, ask streams to leave, answer everything, and stop.

        Health is NOT_SERVING from now on. Everything else goes on for `drain_announce_s`, in which balancers find that
        out. Then calls are refused. Single requests are answered first, within `REQUESTS_FIRST_S`; requests that are
        still in reception by then are refused. Then the listener closes and open streams get Reconnect. Clients have
        the grace to half-close. After it the server stops reading and answers the frames that it has read.
        """
        self.is_draining = True
        self.health.drain()
        await self._announce()
        self.load_reports.close()
        self._frames.refuse()
        self._inference.refuse()
        if self._reflection is not None:
            self._reflection.refuse()
        self._calls.be_patient()
        grace_s = self._settings.drain_grace_s
        busy = await self._under_way.settle(min(REQUESTS_FIRST_S, grace_s))
        self._frames.ask_to_leave(int(grace_s * 1000))
        stopping = asyncio.create_task(self._stop(busy, grace_s + LAST_ANSWERS_S))
        try:
            async with asyncio.timeout(grace_s):
                await asyncio.shield(stopping)
        except TimeoutError:
            log.warning(
                "clients did not leave in time",
                streams=len(self._frames.streams) + len(self._inference.streams),
                grace_s=grace_s,
            )
            self._frames.stop_reading()
            self._inference.stop_reading()
            await stopping
        self._upkeep.close()
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._housekeeping

    async def _announce(self) -> None:
        if self._settings.drain_announce_s:
            log.info("the drain is announced", announce_s=self._settings.drain_announce_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.announced.wait(), self._settings.drain_announce_s)
        self.announced.set()

    async def _stop(self, busy: set[str], grace_s: float) -> None:
        """Close idle connections, then the listener: in one step, so that no client comes back between them."""
        with contextlib.suppress(OSError):  # no descriptor is left for the scan: gRPC closes them, too
            for connection in Sockets().accepted_on(self._addresses, but_of=busy):
                connection.say_no_more()
        self._receptions.stop_requests()  # gRPC would wait for them
        await self._server.stop(grace_s)

    async def abort(self) -> None:
        """Stop at once: the device is lost or start-up failed."""
        self.health.drain()
        self._upkeep.close()
        if self._housekeeping is not None:
            self._housekeeping.cancel()
        await self._server.stop(None)


def within_memory(settings: ServeSettings, left_bytes: int | None) -> ServeSettings:
    """Return settings whose messages have room: the largest one, and all in reception.

    gRPC ends the process when it gets no memory for a message, before Forebay's code could refuse it. So messages may
    take no more than their share of the memory that a limit leaves.

    Args:
        settings: of the operator.
        left_bytes: memory left by the limit of the process or its container; None without one.
    """
    if left_bytes is None:
        return settings
    limits = {
        "max_message_bytes": max(LEAST_MESSAGE_BYTES, left_bytes // MESSAGE_SHARE),
        "reception_bytes": max(LEAST_MESSAGE_BYTES, left_bytes // RECEPTION_SHARE),
    }
    lower = {name: limit for name, limit in limits.items() if limit < getattr(settings, name)}
    if not lower:
        return settings
    log.warning("a memory limit leaves room for less than the settings allow", **lower)
    return settings.model_copy(update=lower)


def server_options(settings: ServeSettings) -> list[tuple[str, Any]]:
    """Return the channel arguments of the server, each with its reason."""
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        # 16 KB on the wire may be 16 MB here. Refused at the call's headers, before gRPC inflates.
        ("grpc.compression_enabled_algorithms_bitset", _ALL_ALGORITHMS if settings.allow_compression else _IDENTITY),
        ("grpc.max_send_message_length", -1),  # results are bounded by the model
        # A port in use is an error, not a second server behind the first, unless both say that they share it.
        ("grpc.so_reuseport", int(settings.share_port)),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        # Otherwise gRPC lets a client send up to 512 MB ahead on an unread stream, by its bandwidth estimate.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", settings.stream_window_bytes),
        ("grpc.max_concurrent_streams", settings.max_streams_per_connection),
        # Otherwise gRPC also counts calls that were answered and are not freed yet, and a client that keeps to the
        # limit loses calls: with 400 in hand, half of them. Calls that are cancelled at once have gRPC's limit of
        # pending calls (tests/heavy/test_http2_attacks.py).
        ("grpc.http.overload_protection", 0),
        ("grpc.max_metadata_size", settings.max_metadata_bytes),  # above this gRPC refuses some, by chance
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),  # above this all
        # A camera whose cable was pulled is found after time + timeout; gRPC's own default is two hours.
        ("grpc.keepalive_time_ms", int(settings.keepalive_time_s * 1000)),
        # In this release an unanswered ping ends the connection by the ping's own timeout, a minute by default.
        ("grpc.keepalive_timeout_ms", int(settings.keepalive_timeout_s * 1000)),
        ("grpc.http2.ping_timeout_ms", int(settings.keepalive_timeout_s * 1000)),
        # Of TLS and of HTTP/2's first frames together; by default a silent connection is held for two minutes.
        ("grpc.server_handshake_timeout_ms", int(HANDSHAKE_TIMEOUT_S * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),  # a camera may be silent for long
        # Clients ping too, tritonclient at a configured interval; gRPC's default cuts those that do within five
        # minutes.
        ("grpc.http2.min_ping_interval_without_data_ms", int(settings.min_client_ping_interval_s * 1000)),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", int(settings.min_client_ping_interval_s * 1000)),
        # Together 11 to 18 % less CPU at 150 KB and more (docs/benchmarks.md); one without the other gains nothing.
        ("grpc.http2.max_frame_size", 1 << 20),
        ("grpc.experimental.tcp_read_chunk_size", 1 << 20),
        ("grpc.experimental.tcp_min_read_chunk_size", 1 << 18),
        ("grpc.experimental.tcp_max_read_chunk_size", 1 << 22),
    ]
