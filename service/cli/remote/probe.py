"""One unary gRPC call with nothing but a socket: HTTP/2 as far as a health check needs it (RFC 9113).

Without an import of grpc the process costs a tenth of the CPU. The probe reads plain answers: a message with status OK,
and refusals that need no more than their number. Everything else is an `UnclearError`, after which gRPC asks again.
"""

from collections.abc import Iterator

from forebay_server.service.cli.remote import header_block
from forebay_server.service.cli.remote.connection import Connection, target_of, tls_context
from forebay_server.service.cli.remote.health import HealthError, TlsFiles, UnclearError

Headers = tuple[tuple[str, str], ...]  # as in service.restricted, whose import costs more than the call
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_ACK, _END_STREAM, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_PRIORITY_BYTES = 5
_STREAM = 1
_MOST_BYTES = 16_384  # of a frame, unless this end allows more
_MOST_FRAMES = 64  # a server sends about eight
_HTTP_OK, _GRPC_OK, _NOT_FOUND, _UNIMPLEMENTED = 200, 0, 5, 12


def probe(
    address: str,
    method: str,
    request: bytes,
    until_ns: int,
    tls: TlsFiles | None,
    headers: Headers,
) -> bytes | None:
    """Call `method` and return the bytes of its response message; None if the server knows no such name.

    Args:
        address: host:port, unix:PATH or unix-abstract:NAME.
        method: as in HTTP/2's :path.
        request: the bytes of the request message.
        until_ns: time on the monotonic clock at which to give up.
        tls: None for plain text.
        headers: of the call; ASCII, names in small letters.

    Raises:
        HealthError: the address does not take a connection, the time is over, or what answers has no such method.
        UnclearError: any other answer but a message.
    """
    target = target_of(address)
    context = None if tls is None else tls_context(tls)
    try:
        with Connection(target, until_ns) as connection:
            name = "localhost" if isinstance(target, str) else target[0]
            if context is not None and tls is not None:
                connection.secure(context, tls.server_name or name)
            authority = "localhost" if isinstance(target, str) else address
            connection.send(_call(authority, method, request, headers, is_secure=context is not None))
            return _answer(connection)
    except TimeoutError:
        raise HealthError("DEADLINE_EXCEEDED: no answer in time") from None
    except (OSError, ValueError) as error:  # of TLS, too: a name that no certificate can have
        raise UnclearError from error


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _call(authority: str, method: str, request: bytes, headers: Headers, *, is_secure: bool) -> bytes:
    """Return everything that the client sends."""
    text = header_block.text
    fields = header_block.POST + (header_block.HTTPS if is_secure else header_block.HTTP)
    fields += header_block.PATH + text(method) + header_block.AUTHORITY + text(authority)
    fields += header_block.CONTENT_TYPE + text("application/grpc")
    for name, value in (("te", "trailers"), *headers):
        fields += header_block.new_field(name, value)
    message = b"\x00" + len(request).to_bytes(4, "big") + request
    if len(fields) > _MOST_BYTES or len(message) > _MOST_BYTES:
        raise UnclearError
    return (
        _PREFACE
        + _frame(_SETTINGS, 0, 0, header_block.NO_TABLE)
        + _frame(_HEADERS, _END_HEADERS, _STREAM, fields)
        + _frame(_DATA, _END_STREAM, _STREAM, message)
    )


def _answer(connection: Connection) -> bytes | None:
    """Read the frames of the stream to its end; return as `probe` does."""
    data = b""
    http: int | None = None
    for kind, flags, payload in _frames_of_the_stream(connection):
        if kind == _DATA:
            data += _without_padding(payload) if flags & _PADDED else payload
            continue
        statuses = header_block.read_statuses(_block(payload, flags))
        if statuses.http is not None and statuses.http >= _HTTP_OK:  # below: more headers follow
            http = statuses.http
        if flags & _END_STREAM or http not in (None, _HTTP_OK):
            return _outcome(http, statuses.grpc, data)
    raise UnclearError


def _frames_of_the_stream(connection: Connection) -> Iterator[tuple[int, int, bytes]]:
    """Give kind, flags and payload of each DATA and HEADERS frame, until one has END_STREAM.

    Answers the frames of the connection that ask for it. Raises UnclearError: the server breaks the stream off, or
    sends a frame that it may not send.
    """
    for _ in range(_MOST_FRAMES):
        head = connection.receive(9)
        size, kind, flags, stream = int.from_bytes(head[:3], "big"), head[3], head[4], int.from_bytes(head[5:], "big")
        if size > _MOST_BYTES:
            break
        payload = connection.receive(size)
        if kind in (_DATA, _HEADERS) and stream == _STREAM:
            yield kind, flags, payload
            if flags & _END_STREAM:
                return
        elif kind in (_SETTINGS, _PING) and not flags & _ACK:
            connection.send(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif kind == _RST_STREAM or (kind == _GOAWAY and int.from_bytes(payload[:4], "big") < _STREAM):
            break
    raise UnclearError


def _block(payload: bytes, flags: int) -> bytes:
    """Return the header block of a frame. Raises UnclearError if it goes on in the next frame."""
    if not flags & _END_HEADERS:
        raise UnclearError
    if flags & _PADDED:
        payload = _without_padding(payload)
    return payload[_PRIORITY_BYTES:] if flags & _PRIORITY else payload


def _without_padding(payload: bytes) -> bytes:
    """Return the content of a padded frame. Raises UnclearError if its padding is longer than the frame."""
    if not payload or payload[0] >= len(payload):
        raise UnclearError
    return payload[1 : len(payload) - payload[0]]


def _outcome(http: int | None, grpc: int | None, data: bytes) -> bytes | None:
    """Return the message of a call that ended with these statuses; None if the server knows no such name.

    gRPC's own status counts first, and HTTP's only without it: so the specification of gRPC over HTTP/2 has it.
    """
    if grpc == _NOT_FOUND:
        return None
    if grpc == _UNIMPLEMENTED:
        raise HealthError("UNIMPLEMENTED: the server has no grpc.health.v1")
    if grpc is None and http not in (None, _HTTP_OK):
        raise HealthError(f"HTTP status {http}: a proxy, or a server without gRPC, answered")
    if grpc != _GRPC_OK or data[:1] != b"\x00" or len(data) != 5 + int.from_bytes(data[1:5], "big"):
        raise UnclearError  # another refusal, whose words gRPC reads; a compressed message; none, or more than one
    return data[5:]
