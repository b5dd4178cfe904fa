"""Which connection a peer's address stands for, and whether it still lives: what gRPC does not tell, the kernel does.

gRPC names a peer by its address, which a later connection may have as well, and says nothing when a connection ends.
But every accepted socket is a descriptor of this process, with an address of its peer and an inode number that no other
socket gets. So a look at the descriptors finds the connection, and another one tells whether it is still the same.

A TCP address stands for one connection. All clients of a unix socket have the same name, `unix:`, and nothing says
which of them calls; that name stands for all connections that are open.

Thread: any. Why: docs/adr/0044. Source: proc(5), socket(7), unix(7); gRPC's naming of addresses (doc/naming.md).
"""

import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

DESCRIPTORS = Path("/proc/self/fd")
UNIX_PEER = "unix:"
Address = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]


@dataclass(frozen=True, slots=True)
class Connection:
    """One accepted socket: a descriptor, and what makes sure that it is still the same."""

    family: int
    descriptor: int
    device: int
    inode: int

    @property
    def is_open(self) -> bool:
        """Whether it is still there, at both ends: an address that its peer had is free again before we close it."""
        try:
            with _borrowed(self.descriptor, self.family) as found:
                found.getpeername()
            status = os.fstat(self.descriptor)  # last: had it become another descriptor, it would not be this one now
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == (self.device, self.inode)


@dataclass(frozen=True, slots=True)
class _Socket:
    """What the kernel says of one socket; `there` is None while nobody is at its other end."""

    connection: Connection
    is_listening: bool
    here: Any
    there: Any


def local_connections(peer: str) -> frozenset[Connection]:
    """Return the connections that a peer's name stands for, if it is on this machine; else none.

    Costs 7 µs for each descriptor of this process.

    Args:
        peer: as `ServicerContext.peer()` names it.
    """
    if peer.startswith(UNIX_PEER):
        found = [each for each in _sockets() if each.connection.family == socket.AF_UNIX]
        names = {each.here for each in found if each.is_listening}
        return frozenset(each.connection for each in found if each.here in names and not each.is_listening)
    address = _address_of(peer)
    return frozenset(
        each.connection
        for each in _sockets()
        if each.connection.family in (socket.AF_INET, socket.AF_INET6)
        and each.there is not None
        and _is_local(each, address)
    )


def _is_local(found: _Socket, peer: Address | None) -> bool:
    """Whether a socket's peer is this one, and on this machine: on its loopback, or at the address it is reached by."""
    there, here = _normal(*found.there[:2]), _normal(*found.here[:2])
    return there == peer and (there[0].is_loopback or there[0] == here[0])


def _address_of(peer: str) -> Address | None:
    """Return the address in `ipv4:127.0.0.1:5000` or `ipv6:%5B::1%5D:5000`; None for anything else."""
    host, _, port = unquote(peer).partition(":")[2].rpartition(":")
    try:
        return _normal(host.strip("[]"), int(port))
    except ValueError:
        return None


def _normal(host: str, port: int) -> Address:
    """Return an address as it is compared: IPv4 where IPv6 only carries it, no zone. Raises ValueError."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address, port


def _sockets() -> Iterator[_Socket]:
    """Yield every socket of this process. Descriptors that others close meanwhile are passed over."""
    for path in DESCRIPTORS.iterdir():
        descriptor = int(path.name)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISSOCK(status.st_mode):
                continue
            with _borrowed(descriptor) as found:
                is_listening = bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
                there = None if is_listening else found.getpeername()
                here = found.getsockname()
                connection = Connection(found.family, descriptor, status.st_dev, status.st_ino)
        except OSError:  # it is on no connection, or not any more
            continue
        yield _Socket(connection, is_listening, here, there)


@contextmanager
def _borrowed(descriptor: int, family: int = -1) -> Iterator[socket.socket]:
    """Give a socket object for a descriptor that is not ours to close. Raises OSError."""
    borrowed = socket.socket(family, fileno=descriptor)
    try:
        yield borrowed
    finally:
        borrowed.detach()
