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
        family, kind, _, _, place = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the last server's connections may linger
            probe.bind(place)
    except OSError as error:
        return why_not(error)
    return IN_USE  # the other process has ended meanwhile
