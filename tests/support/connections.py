"""Connections within the test's own process."""

import socket
from contextlib import contextmanager


@contextmanager
def connection(host):
    """An accepted connection: its name for gRPC, the accepted socket and the client's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.create_server((host, 0), family=family) as listener,
        socket.create_connection(listener.getsockname()[:2]) as client,
    ):
        accepted, _ = listener.accept()
        with accepted:
            yield name_of(client), accepted, client


def name_of(client):
    """gRPC's name of the peer at this end of a connection."""
    host, port = client.getsockname()[:2]
    return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"
