"""The reason why an address cannot be listened on, which gRPC writes only to its own log."""

import errno
import socket

IN_USE = "is it in use? stop the other process or give --address"


class AddressError(Exception):
    """The address cannot be listened on. The message has the reason and a remedy."""


def why_not(error: OSError) -> str:
    """Return the fault and its remedy, for an error of `bind`."""
    if error.errno == errno.EADDRINUSE:
        return IN_USE
    return f"{error.strerror}; give another --address"


def why_not_bound(host: str, port: int) -> str:
    """Try the bind that gRPC failed at, and return the fault as `why_not`. Blocks: while a name is looked up."""
    try:
        try_port(host, port)
    except OSError as error:
        return why_not(error)
    return IN_USE  # the other process has ended meanwhile


def try_port(host: str, port: int, *, is_shared: bool = False) -> None:
    """Bind as gRPC does, and let go. Raises OSError. Blocks: while a name is looked up.

    Args:
        host: name or address, IPv6 with or without brackets.
        port: 0 for any.
        is_shared: whether other processes that share the port, too, may listen on it.
    """
    family, kind, _, _, place = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the last server's connections may linger
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(is_shared))
        probe.bind(place)
        probe.listen()  # where both have SO_REUSEADDR, a port in use shows here at the earliest
