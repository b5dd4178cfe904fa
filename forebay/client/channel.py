"""The gRPC channel to one server. Owner: the event loop.

grpcio reads certificate files only once, so a channel whose files have changed is replaced before the next call. So is
one whose server asks a stream to go elsewhere: on the same connection it would come to the same process again. A
replaced channel is closed when its last call has ended.
"""

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from forebay.addresses import Address
from forebay.client.errors import CallRefusedError, UnreachableError
from forebay.client.forks import opened, refuse_in_child
from forebay.client.options import Tls
from forebay.client.retry import RESTRICTED
from forebay.client.tls_files import credentials_of, modified_ns
from forebay.connect_words import connect_words

if TYPE_CHECKING:
    StreamCall = grpc.aio.StreamStreamCall[bytes, bytes]
    AnyCall = StreamCall | grpc.aio.UnaryUnaryCall[bytes, bytes]

Metadata = tuple[tuple[str, str], ...]
METHOD = "/forebay.v1.FrameInference/Stream"
MAX_RESULT_BYTES = (
    64 * 1024 * 1024
)  # raw outputs of one frame; gRPC's own default of 4 MiB is too small for some models

# gRPC's defaults wait 1 s before the second try to connect and up to 2 minutes between later ones; the link has its
# own back-off, so the channel has to be ready when a call comes.
_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", MAX_RESULT_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Despite its name gRPC's limit of one attempt to connect, TCP, TLS and the first SETTINGS together. With 100 ms, no
    # connection came about over a line with a round trip of 400 ms. A refused connection does not wait for it.
    ("grpc.min_reconnect_backoff_ms", 3_000),
    ("grpc.max_reconnect_backoff_ms", 250),
    ("grpc.use_local_subchannel_pool", 1),  # a client has its own connection, which closes with the client
    ("grpc.enable_retries", 0),  # a stream of frames is never replayed by the transport
)


class ChannelHolder:
    """One channel at a time; streams ask for a new call each time they (re)open."""

    def __init__(self, address: Address, tls: Tls | None) -> None:
        self.address = address
        self._tls = tls
        self._channel: grpc.aio.Channel | None = None
        self._of_call: dict[AnyCall, grpc.aio.Channel] = {}  # while the call goes on
        self._call_counts: Counter[grpc.aio.Channel] = Counter()
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._files_seen: tuple[int, ...] = ()

    def call(self, metadata: Metadata = ()) -> "StreamCall":
        """Start a call; it fails fast if the server cannot be reached.

        Raises:
            OSError, ValueError: a certificate file cannot be read, or cannot be used.
        """
        channel = self._present()
        start = channel.stream_stream(METHOD, None, None)
        call: StreamCall = start(None, metadata=metadata)  # no iterator: the link writes
        self._begun(call, channel)
        return call

    async def ask(self, method: str, request: bytes, metadata: Metadata, timeout_s: float) -> bytes:
        """Make a single call and return the encoded answer.

        Raises:
            UnreachableError: no answer came within `timeout_s`, or no connection.
            CallRefusedError: the server answered with an error.
            OSError, ValueError: a certificate file cannot be read, or cannot be used.
        """
        channel = self._present()
        call: grpc.aio.UnaryUnaryCall[bytes, bytes]
        call = channel.unary_unary(method, bytes, bytes)(request, metadata=metadata, timeout=timeout_s)
        self._begun(call, channel)
        try:
            answer: bytes = await call
        except grpc.aio.AioRpcError as error:
            code, details = error.code().name, error.details() or ""
        else:
            return answer
        if code == "DEADLINE_EXCEEDED":
            raise UnreachableError(f"no answer from {self.address} within {timeout_s:.3g} s")
        if code == "UNAVAILABLE" and not details.startswith(RESTRICTED):
            raise UnreachableError(f"no answer from {self.address}: {code}: {connect_words(details)}")
        raise CallRefusedError(code, details)

    def _present(self) -> grpc.aio.Channel:
        """Return the channel for a new call. Raises ForkedClientError."""
        refuse_in_child()
        opened(self)
        files_seen = modified_ns(self._tls)
        if self._channel is None or files_seen != self._files_seen:
            try:
                channel = _open(self.address, self._tls)
            except ValueError:
                if self._channel is None:
                    raise
                return self._channel  # files that are being written: the next call looks again
            self._retire()
            self._channel, self._files_seen = channel, files_seen
        return self._channel

    def _begun(self, call: "AnyCall", channel: grpc.aio.Channel) -> None:
        self._of_call[call] = channel
        self._call_counts[channel] += 1
        call.add_done_callback(self._ended)

    def leave(self, call: "StreamCall") -> None:
        """Start later calls on another connection than this call's: its server asked for that."""
        if self._of_call.get(call) is self._channel:
            self._retire()

    async def close(self) -> None:
        """Close every channel; calls that still run are cancelled."""
        self._is_closed = True
        channels = {*self._of_call.values(), *([self._channel] if self._channel else [])}
        self._channel = None
        for channel in channels:
            await channel.close(None)
        await asyncio.gather(*self._closing)

    def _retire(self) -> None:
        """Use another channel from now on; calls of this one go on until they end."""
        channel, self._channel = self._channel, None
        if channel is not None and not self._call_counts[channel]:
            self._close_soon(channel)

    def _ended(self, call: "AnyCall") -> None:
        channel = self._of_call.pop(call)
        self._call_counts[channel] -= 1
        if not self._call_counts[channel]:
            del self._call_counts[channel]
            if channel is not self._channel and not self._is_closed:
                self._close_soon(channel)

    def _close_soon(self, channel: grpc.aio.Channel) -> None:
        closing = asyncio.get_running_loop().create_task(channel.close(None))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


def _open(address: Address, tls: Tls | None) -> grpc.aio.Channel:
    options = _OPTIONS
    if address.name:  # a record of a name: the server and its certificate go by the name
        options = (*options, ("grpc.default_authority", address.name))
    if tls is None:
        return grpc.aio.insecure_channel(address.target, options=options)
    credentials = credentials_of(tls)
    name = tls.server_name or address.name.rpartition(":")[0]
    if name:
        options = (*options, ("grpc.ssl_target_name_override", name))
    return grpc.aio.secure_channel(address.target, credentials, options=options)
