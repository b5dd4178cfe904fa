"""Connections of the load generator: one per stream where possible, as cameras have."""

from pathlib import Path

import grpc

from forebay.addresses import Address
from forebay.pem import authorities_fault
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


def channels_needed(spec: TargetSpec, streams: int) -> int:
    """Return the number of connections to a server for `streams` streams."""
    return spec.connections or max(1, min(streams, MAX_CONNECTIONS))


def open_channel(spec: TargetSpec, server: Address) -> grpc.aio.Channel:
    """Return one connection of its own to the server, with TLS if the spec names a CA. It connects at its first use."""
    options: tuple[tuple[str, object], ...] = _CHANNEL_OPTIONS
    if server.name:  # a record of a name: the server and its certificate go by the name
        options = (*options, ("grpc.default_authority", server.name))
    if not spec.ca_file:
        return grpc.aio.insecure_channel(server.target, options=options)
    try:
        certificates = Path(spec.ca_file).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the file of --tls-ca: {error.strerror}") from error
    if problem := authorities_fault(spec.ca_file, certificates):
        raise UsageError(f"--tls-ca: {problem}")
    credentials = grpc.ssl_channel_credentials(root_certificates=certificates)
    if server.name:
        options = (*options, ("grpc.ssl_target_name_override", server.name.rpartition(":")[0]))
    return grpc.aio.secure_channel(server.target, credentials, options=options)
