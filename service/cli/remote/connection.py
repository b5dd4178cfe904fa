"""The connection of a health check without gRPC: name, address and TLS, all within one limit in time."""

import socket
import threading
from typing import TYPE_CHECKING, Any

from forebay_server.service.cli.remote.health import HealthError, TlsFiles, UnclearError
from forebay_server.service.clock import MonotonicClock

if TYPE_CHECKING:
    import ssl

Target = str | tuple[str, int]
_Place = tuple[socket.AddressFamily, Any]  # a family, and an address of it as `socket.connect` takes it
_LARGEST_PORT = 65_535
_MOST_BYTES = 16_384  # of one read
_LOOPBACK = ("::1", "127.0.0.1")  # of `localhost`, which needs no resolver (RFC 6761, 6.3)


def target_of(address: str) -> Target:
    """Return the path of a unix socket (with a leading NUL if it is abstract), or a host and a port.

    Raises:
        UnclearError: a form that only gRPC knows.
    """
    if address.startswith("unix:"):
        return address.removeprefix("unix:").removeprefix("//")
    if address.startswith("unix-abstract:"):
        return "\0" + address.removeprefix("unix-abstract:")
    host, _, port = address.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if not (port.isdecimal() and host) or "/" in host or (":" in host and not is_bracketed):
        raise UnclearError
    if int(port) > _LARGEST_PORT:  # the system would take the rest of its division
        raise UnclearError
    return host.strip("[]"), int(port)


class Connection:
    """A socket with a limit for everything. All methods raise TimeoutError and other OSErrors.

    Args:
        target: from `target_of`.
        until_ns: time on the monotonic clock at which to give up.

    Raises:
        HealthError: no address of the target takes a connection.
        UnclearError: no name of a host.
    """

    def __init__(self, target: Target, until_ns: int) -> None:
        self._until_ns = until_ns
        self._received = b""
        self._socket = _connected(_places(target, until_ns), until_ns)

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def secure(self, context: "ssl.SSLContext", name: str) -> None:
        """Begin TLS and check that the server is `name`. Raises UnclearError if it has no HTTP/2."""
        self._socket.settimeout(_remaining_s(self._until_ns))
        secured = context.wrap_socket(self._socket, server_hostname=name)
        self._socket = secured
        if secured.selected_alpn_protocol() != "h2":
            raise UnclearError

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self._socket.settimeout(_remaining_s(self._until_ns))
        self._socket.sendall(data)

    def receive(self, size: int) -> bytes:
        """Return `size` bytes. Raises UnclearError if the connection ends before."""
        while len(self._received) < size:
            self._socket.settimeout(_remaining_s(self._until_ns))
            more = self._socket.recv(_MOST_BYTES)
            if not more:
                raise UnclearError
            self._received += more
        taken, self._received = self._received[:size], self._received[size:]
        return taken


def tls_context(tls: TlsFiles) -> "ssl.SSLContext":
    """Return the settings of TLS for these files. Raises UnclearError if gRPC should read them, and may refuse them."""
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


def _connected(places: list[_Place], until_ns: int) -> socket.socket:
    """Return a connection to the first place that takes one. Raises HealthError, TimeoutError."""
    problem: OSError | None = None
    for tried, (family, place) in enumerate(places):
        # Each place gets its share of the time: one that does not answer leaves time for the others.
        limit_s = _remaining_s(until_ns) / (len(places) - tried)
        try:
            candidate = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:  # a machine without IPv6
            problem = error
            continue
        try:
            candidate.settimeout(limit_s)
            candidate.connect(place)
        except OSError as error:
            candidate.close()
            problem = error
        else:
            return candidate
    if isinstance(problem, TimeoutError):
        raise problem
    raise HealthError(f"UNAVAILABLE: {'no address' if problem is None else problem.strerror or problem}")


def _places(target: Target, until_ns: int) -> list[_Place]:
    """Return the addresses of a target, in the order to try them. Raises HealthError, UnclearError, TimeoutError."""
    if isinstance(target, str):
        return [(socket.AF_UNIX, target)]
    host, port = target
    if host == "localhost":
        return [place for each in _LOOPBACK for place in _numeric(each, port)]
    try:
        return _numeric(host, port) or _looked_up(host, port, until_ns)
    except UnicodeError as error:  # no name of a host
        raise UnclearError from error


def _numeric(host: str, port: int) -> list[_Place]:
    """Return the place of an address in numbers; nothing for a name. Never waits."""
    name = host.encode() if host.isascii() else host  # with a str Python imports a codec for names, which takes 2 ms
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return []
    return [(family, place) for family, _, _, _, place in found]


def _looked_up(host: str, port: int, until_ns: int) -> list[_Place]:
    """Ask the resolver on a thread of its own: getaddrinfo has no limit in time, and a name server may not answer."""
    answers: list[list[_Place] | Exception] = []
    is_there = threading.Condition()

    def look_up() -> None:
        answer: list[_Place] | Exception
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answer = [(family, place) for family, _, _, _, place in found]
        except (OSError, UnicodeError) as error:
            answer = error
        with is_there:
            answers.append(answer)
            is_there.notify()

    threading.Thread(target=look_up, name="resolver", daemon=True).start()
    clock = MonotonicClock()
    with is_there:
        while not answers:
            if clock.now_ns() >= until_ns:
                raise HealthError(f"DEADLINE_EXCEEDED: the name {host} was not resolved in time")
            clock.wait(is_there, until_ns)
    (answer,) = answers
    if isinstance(answer, OSError):
        raise HealthError(f"UNAVAILABLE: {host}: {answer.strerror}")
    if isinstance(answer, Exception):
        raise answer
    return answer
