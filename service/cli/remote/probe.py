"""One unary gRPC call with nothing but a socket: HTTP/2 as far as a health check needs it (RFC 9113, RFC 7541).

Without an import of grpc the process costs a tenth of the CPU. It reads no header of the answer, so it needs no HPACK:
a message is the answer, and everything else is an `UnclearError`, after which gRPC asks again.
"""

import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from forebay_server.service.cli.remote.health import HealthError, TlsFiles
from forebay_server.service.clock import MonotonicClock

if TYPE_CHECKING:
    import ssl

Headers = tuple[tuple[str, str], ...]  # as in service.restricted, whose import costs more than the call
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_ACK, _END_STREAM, _END_HEADERS, _PADDED = 0x1, 0x1, 0x4, 0x8
_STREAM = 1
_MOST_BYTES = 16_384  # of a frame, unless this end allows more
_LARGEST_PORT = 65_535
_MOST_FRAMES = 64  # a server sends about eight
# HPACK, without Huffman codes and without the dynamic table: whole fields and names of the static table.
_POST, _HTTP, _HTTPS = b"\x83", b"\x86", b"\x87"
_AUTHORITY, _PATH, _CONTENT_TYPE, _NEW_NAME = b"\x01", b"\x04", b"\x0f\x10", b"\x00"


class UnclearError(Exception):
    """No message came, for a reason that this module does not read."""


def probe(
    address: str,
    method: str,
    request: bytes,
    until_ns: int,
    tls: TlsFiles | None,
    headers: Headers,
) -> bytes:
    """Call `method` and return the bytes of its response message.

    Args:
        address: host:port or unix:PATH.
        method: as in HTTP/2's :path.
        request: the bytes of the request message.
        until_ns: time on the monotonic clock at which to give up.
        tls: None for plain text.
        headers: of the call; ASCII, names in small letters.

    Raises:
        HealthError: the address does not take a connection, or the time is over.
        UnclearError: anything else but a message.
    """
    target = _target(address)
    context = None if tls is None else _context(tls)
    try:
        with _Connection(_connected(target, until_ns), until_ns) as connection:
            name = "localhost" if isinstance(target, str) else target[0]
            if context is not None and tls is not None:
                connection.secure(context, tls.server_name or name)
            authority = "localhost" if isinstance(target, str) else address
            connection.send(_call(authority, method, request, headers, is_secure=context is not None))
            return _message(connection)
    except TimeoutError:
        raise HealthError("DEADLINE_EXCEEDED: no answer in time") from None
    except (OSError, ValueError) as error:  # of TLS, too: a name that no certificate can have
        raise UnclearError from error


def _target(address: str) -> str | tuple[str, int]:
    """Return a path or a host and a port. Raises UnclearError for the forms that only gRPC knows."""
    if address.startswith("unix:"):
        return address.removeprefix("unix:").removeprefix("//")
    host, _, port = address.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if not (port.isdecimal() and host) or "/" in host or (":" in host and not is_bracketed):
        raise UnclearError
    if int(port) > _LARGEST_PORT:  # the system would take the rest of its division
        raise UnclearError
    return host.strip("[]"), int(port)


def _connected(target: str | tuple[str, int], until_ns: int) -> socket.socket:
    """Return a connection to the first address that takes one. Raises HealthError, TimeoutError."""
    problem: OSError | None = None
    for family, place in _places(target):
        try:
            candidate = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:  # a machine without IPv6
            problem = error
            continue
        try:
            candidate.settimeout(_remaining_s(until_ns))
            candidate.connect(place)
        except OSError as error:
            candidate.close()
            if isinstance(error, TimeoutError):
                raise
            problem = error
        else:
            return candidate
    raise HealthError(f"UNAVAILABLE: {'no address' if problem is None else problem.strerror or problem}") from None


def _places(target: str | tuple[str, int]) -> Iterator[tuple[socket.AddressFamily, Any]]:
    if isinstance(target, str):
        yield socket.AF_UNIX, target
        return
    try:
        found = socket.getaddrinfo(*target, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # no name of a host
        raise UnclearError from error
    except OSError as error:
        raise HealthError(f"UNAVAILABLE: {target[0]}: {error.strerror}") from None
    for family, _, _, _, place in found:
        yield family, place


def _context(tls: TlsFiles) -> "ssl.SSLContext":
    if tls.ca is None:
        raise UnclearError  # gRPC brings authorities of its own
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the chain and the name
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the server's certificate may be its own authority
    context.set_alpn_protocols(["h2"])
    try:
        context.load_verify_locations(tls.ca)
        if tls.cert is not None:
            context.load_cert_chain(tls.cert, tls.key, password=_no_password)
    except OSError as error:
        raise UnclearError from error
    return context


def _no_password() -> str:
    """Refuse a key with a password, for which OpenSSL would ask at the terminal."""
    raise UnclearError


def _remaining_s(until_ns: int) -> float:
    remaining_ns = until_ns - MonotonicClock().now_ns()
    if remaining_ns <= 0:
        raise TimeoutError
    return remaining_ns / 1e9


class _Connection:
    """A socket with a limit for everything. Raises TimeoutError and other OSErrors."""

    def __init__(self, connected: socket.socket, until_ns: int) -> None:
        self._socket = connected
        self._until_ns = until_ns
        self._received = b""

    def __enter__(self) -> "_Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def secure(self, context: "ssl.SSLContext", name: str) -> None:
        """Begin TLS and check that the server is `name`."""
        self._socket.settimeout(_remaining_s(self._until_ns))
        secured = context.wrap_socket(self._socket, server_hostname=name)
        self._socket = secured
        if secured.selected_alpn_protocol() != "h2":
            raise UnclearError

    def send(self, data: bytes) -> None:
        self._socket.settimeout(_remaining_s(self._until_ns))
        self._socket.sendall(data)

    def receive(self, size: int) -> bytes:
        """Return `size` bytes."""
        while len(self._received) < size:
            self._socket.settimeout(_remaining_s(self._until_ns))
            more = self._socket.recv(_MOST_BYTES)
            if not more:
                raise UnclearError
            self._received += more
        taken, self._received = self._received[:size], self._received[size:]
        return taken


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _text(value: str) -> bytes:
    """Return a string of HPACK: its length, an integer with a prefix of 7 bits, and its bytes."""
    data = os.fsencode(value)
    size = len(data)
    if size < 0x7F:
        return bytes((size,)) + data
    prefix, size = bytearray((0x7F,)), size - 0x7F
    while size >= 0x80:
        prefix.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(prefix) + bytes((size,)) + data


def _call(
    authority: str, method: str, request: bytes, headers: tuple[tuple[str, str], ...], *, is_secure: bool
) -> bytes:
    """Return everything that the client sends."""
    fields = _POST + (_HTTPS if is_secure else _HTTP) + _PATH + _text(method) + _AUTHORITY + _text(authority)
    fields += _CONTENT_TYPE + _text("application/grpc")
    for name, value in (("te", "trailers"), *headers):
        fields += _NEW_NAME + _text(name) + _text(value)
    if len(fields) > _MOST_BYTES:
        raise UnclearError
    message = b"\x00" + len(request).to_bytes(4, "big") + request
    return (
        _PREFACE
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, _STREAM, fields)
        + _frame(_DATA, _END_STREAM, _STREAM, message)
    )


def _message(connection: _Connection) -> bytes:
    """Read frames until a whole message is there; answer the ones that ask for it."""
    data = b""
    for _ in range(_MOST_FRAMES):
        head = connection.receive(9)
        size, kind, flags, stream = int.from_bytes(head[:3], "big"), head[3], head[4], int.from_bytes(head[5:], "big")
        if size > _MOST_BYTES:
            break
        payload = connection.receive(size)
        if kind == _DATA and stream == _STREAM:
            data += _without_padding(payload) if flags & _PADDED else payload
            if len(data) >= 5 and len(data) >= 5 + int.from_bytes(data[1:5], "big"):
                return _unpacked(data)
            if flags & _END_STREAM:
                break
        elif kind in (_SETTINGS, _PING) and not flags & _ACK:
            connection.send(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif _is_the_end(kind, flags, payload):
            break
    raise UnclearError


def _without_padding(payload: bytes) -> bytes:
    """Return the data of a padded frame. Raises UnclearError if its padding is longer than the frame."""
    if not payload or payload[0] >= len(payload):
        raise UnclearError
    return payload[1 : len(payload) - payload[0]]


def _is_the_end(kind: int, flags: int, payload: bytes) -> bool:
    """Report whether no message can follow: the stream has ended, or the server will not process it."""
    if kind == _GOAWAY:
        return int.from_bytes(payload[:4], "big") < _STREAM
    return kind == _RST_STREAM or (kind == _HEADERS and bool(flags & _END_STREAM))


def _unpacked(data: bytes) -> bytes:
    if data[0]:
        raise UnclearError  # compressed
    return data[5 : 5 + int.from_bytes(data[1:5], "big")]
