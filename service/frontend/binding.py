"""Why an address cannot be listened on: gRPC says it in its own log, and to nobody else."""

import errno
import socket

IN_USE = "is it in use? stop the other process or give --address"


def why_not(error: OSError) -> str:
    """Return what is wrong and how to mend it, for an error of `bind`."""
    if error.errno == errno.EADDRINUSE:
        return IN_USE
    return f"{error.strerror}; give another --address"


def why_not_bound(host: str, port: int) -> str:
    """Try what gRPC could not do, and say as `why_not` what is wrong. Blocks: while a name is looked up."""
    try:
        family, kind, _, _, place = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the last server's connections may linger
            probe.bind(place)
    except OSError as error:
        return why_not(error)
    return IN_USE  # it has ended meanwhile
