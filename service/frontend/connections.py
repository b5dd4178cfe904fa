"""The connection behind a peer's address, and whether it still lives: facts that gRPC hides and the kernel reports.

gRPC names a peer by its address, which a later connection may have as well, and does not report the end of a
connection. But every accepted socket is a descriptor of this process, with an address of its peer and an inode number
that no other socket gets. So a scan of the descriptors finds the connection, and a later one shows whether it is still
the same.

A TCP address stands for one connection, unless the server listens at all addresses: then another process can bind the
address of a client once more, and connect from there to another address of the server. All clients of a unix socket
have the same name, `unix:`, so the calling client is unknown; that name stands for all open connections.

Thread: any; a `Sockets` by one at a time. Why: docs/adr/0044. Source: proc(5), socket(7), unix(7); gRPC's naming of
addresses (doc/naming.md).
"""

import ipaddress
import os
import socket
import stat
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

DESCRIPTORS = "/proc/self/fd"
UNIX_PEER = "unix:"
Address = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
_BYTES_RECEIVED = struct.Struct("Q")
_BYTES_RECEIVED_AT, _TCP_INFO_BYTES = 128, 136  # tcpi_bytes_received in struct tcp_info of linux/tcp.h


@dataclass(frozen=True, slots=True)
class Connection:
    """One accepted socket: a descriptor, and the numbers that identify it.

    Attributes:
        family: of the socket.
        descriptor: number in this process.
        device: with `inode`, unique among sockets.
        inode: with `device`, unique among sockets.
        here: this end of a TCP connection; the path of a unix socket.
        there: the peer's end of a TCP connection; None for a unix socket.
        uid: of the process that connected to a unix socket; None for TCP.
    """

    family: int
    descriptor: int
    device: int
    inode: int
    here: Any
    there: Address | None = None
    uid: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether both ends are still connected: a peer's address is free again before this side closes."""
        try:
            with _borrowed(self.descriptor, self.family) as found:
                found.getpeername()
            status = os.fstat(self.descriptor)  # last: if the descriptor had been reused, its numbers would differ now
        except OSError:
            return False
        return self._is_of(status)

    def say_no_more(self) -> None:
        """Close the sending side: the peer sees the end of the connection, after all sent data.

        Does nothing if the connection has ended already, or if no descriptor is left for it.
        """
        # gRPC's descriptor may belong to another socket by now
        with suppress(OSError), _duplicated(self.descriptor) as own:
            if self._is_of(os.fstat(own)):
                with _borrowed(own, self.family) as found:
                    found.shutdown(socket.SHUT_WR)

    def end(self) -> None:
        """Close both sides: gRPC then closes the connection with all its calls, as if the peer had gone."""
        with suppress(OSError), _duplicated(self.descriptor) as own:
            if self._is_of(os.fstat(own)):
                with _borrowed(own, self.family) as found:
                    found.shutdown(socket.SHUT_RDWR)

    def received_bytes(self) -> int | None:
        """Return the bytes that the kernel has received from the peer.

        None for a unix socket and where they are unknown.
        """
        if self.there is None:
            return None
        try:
            with _borrowed(self.descriptor, self.family) as found:
                info = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
            if not self._is_of(os.fstat(self.descriptor)):
                return None
            return int(_BYTES_RECEIVED.unpack_from(info, _BYTES_RECEIVED_AT)[0])
        except (OSError, struct.error):  # the socket was closed; a kernel before 4.1
            return None

    def _is_of(self, status: os.stat_result) -> bool:
        return (status.st_dev, status.st_ino) == (self.device, self.inode)

    @property
    def is_local(self) -> bool:
        """Whether its peer is on this machine: on the loopback, at the server's own address, or on a unix socket."""
        if self.there is None:
            return True
        return self.there[0].is_loopback or self.there[0] == self.here[0]


@dataclass(frozen=True, slots=True)
class _Socket:
    """The kernel's data about one socket, which is connected or listens."""

    connection: Connection
    is_listening: bool

    @property
    def is_everywhere(self) -> bool:
        """Whether it listens at all addresses of the machine."""
        is_tcp = self.connection.family != socket.AF_UNIX
        return self.is_listening and is_tcp and bool(self.connection.here[0].is_unspecified)


class Sockets:
    """The sockets of this process.

    A scan costs 1 µs for each descriptor of the process, and 7 µs for each socket that the last one did not find.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int], _Socket] = {}  # by descriptor, device, inode: never another socket
        self.listens_everywhere = False  # whether the last scan found a TCP listener at all addresses

    def connections_of(self, peer: str) -> frozenset[Connection]:
        """Return the connections that a peer's name stands for.

        Args:
            peer: as `ServicerContext.peer()` names it.

        Raises:
            OSError: no descriptor is left for the scan.
        """
        found = self._look()
        if peer.startswith(UNIX_PEER):
            unix = [each for each in found if each.connection.family == socket.AF_UNIX]
            names = {each.connection.here for each in unix if each.is_listening}
            return frozenset(
                each.connection for each in unix if each.connection.here in names and not each.is_listening
            )
        address = address_of(peer)
        if address is None:
            return frozenset()
        connections = [each.connection for each in found if each.connection.there == address]
        return frozenset(connection for connection in connections if connection.is_open)

    def accepted_on(self, addresses: Collection[str], but_of: Collection[str]) -> list[Connection]:
        """Return the connections to some addresses of this process, except those of some peers.

        Args:
            addresses: host:port and unix:path, as this process listens on them.
            but_of: as `ServicerContext.peer()` names them. A name of a unix socket stands for all of its connections.

        Raises:
            OSError: no descriptor is left for the scan.
        """
        ports = {int(each.rpartition(":")[2]) for each in addresses if not each.startswith(UNIX_PEER)}
        paths = {each.removeprefix(UNIX_PEER) for each in addresses if each.startswith(UNIX_PEER)}
        if any(peer.startswith(UNIX_PEER) for peer in but_of):
            paths = set()
        kept = {address_of(peer) for peer in but_of}

        def is_meant(found: Connection) -> bool:
            if found.there is None:
                return found.here in paths
            return found.here[1] in ports and found.there not in kept

        return [each.connection for each in self._look() if not each.is_listening and is_meant(each.connection)]

    def _look(self) -> list[_Socket]:
        """Return every socket that is connected or listens. Sockets that close meanwhile are skipped.

        Raises OSError if no descriptor is left for the scan.
        """
        known: dict[tuple[int, int, int], _Socket] = {}
        for name in os.listdir(DESCRIPTORS):  # noqa: PTH208 - names only; it comes before requests
            descriptor = int(name)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISSOCK(status.st_mode):
                    continue
                key = (descriptor, status.st_dev, status.st_ino)
                known[key] = self._known.get(key) or _examine(descriptor, status)
            except OSError:  # it belongs to no connection, or no longer does
                continue
        self._known = known
        self.listens_everywhere = any(each.is_everywhere for each in known.values())
        return list(known.values())


def _examine(descriptor: int, status: os.stat_result) -> _Socket:
    """Return the kernel's data about a socket. Raises OSError if it is neither connected nor listens."""
    with _borrowed(descriptor) as found:
        is_listening = bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        there = None if is_listening else found.getpeername()
        here = found.getsockname()
        uid = None
        if found.family == socket.AF_UNIX and not is_listening:
            data = found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            _, uid, _ = _CREDENTIALS.unpack(data)
        is_tcp = found.family in (socket.AF_INET, socket.AF_INET6)
        connection = Connection(
            found.family,
            descriptor,
            status.st_dev,
            status.st_ino,
            normal(*here[:2]) if is_tcp else here,
            normal(*there[:2]) if is_tcp and there else None,
            uid,
        )
    return _Socket(connection, is_listening)


def address_of(peer: str) -> Address | None:
    """Return the address in `ipv4:127.0.0.1:5000` or `ipv6:%5B::1%5D:5000`; None for any other text."""
    host, _, port = unquote(peer).partition(":")[2].rpartition(":")
    try:
        return normal(host.strip("[]"), int(port))
    except ValueError:
        return None


def is_of_this_machine(peer: str) -> bool:
    """Whether a peer, as gRPC names it, is on the unix socket or on an address of loopback."""
    address = address_of(peer)
    return peer.startswith(UNIX_PEER) if address is None else address[0].is_loopback


def normal(host: str, port: int) -> Address:
    """Return an address in the form for comparisons: IPv4 where IPv6 only carries it, no zone. Raises ValueError."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address, port


@contextmanager
def _duplicated(descriptor: int) -> Iterator[int]:
    """Yield a duplicate descriptor for the same file, independent of its owner. Raises OSError."""
    own = os.dup(descriptor)
    try:
        yield own
    finally:
        os.close(own)


@contextmanager
def _borrowed(descriptor: int, family: int = -1) -> Iterator[socket.socket]:
    """Yield a socket object for a descriptor without taking it over. Raises OSError."""
    borrowed = socket.socket(family, fileno=descriptor)
    try:
        yield borrowed
    finally:
        borrowed.detach()
