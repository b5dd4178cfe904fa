"""Connections of the load generator: one per stream where possible, as cameras have."""

from pathlib import Path

import grpc

from forebay_server.loadtest.errors import UsageError
from forebay_server.loadtest.target import TargetSpec

MAX_CONNECTIONS = 64  # further streams share these; a server commonly allows 100 streams per connection
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # else channels to one address silently share a connection
    ("grpc.enable_retries", 0),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.http2.max_frame_size", 1 << 20),
)


def open_channels(spec: TargetSpec, streams: int) -> list[grpc.aio.Channel]:
    """Return the connections for `streams` streams; they connect when they are first used."""
    return [open_channel(spec) for _ in range(spec.connections or max(1, min(streams, MAX_CONNECTIONS)))]


def open_channel(spec: TargetSpec) -> grpc.aio.Channel:
    """Return one connection of its own to the server, with TLS if the spec names a CA."""
    if not spec.ca_file:
        return grpc.aio.insecure_channel(spec.address, options=_CHANNEL_OPTIONS)
    try:
        certificates = Path(spec.ca_file).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the file of --tls-ca: {error.strerror}") from error
    credentials = grpc.ssl_channel_credentials(root_certificates=certificates)
    return grpc.aio.secure_channel(spec.address, credentials, options=_CHANNEL_OPTIONS)
