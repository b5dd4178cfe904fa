"""Servers and balancers in virtual time, for `scale_simulation`. The decisions are the product's own code.

A server's load is the sum of its streams' loads; it is over its threshold where that is more than its share of the
server's capacity. `Overload` decides when it asks streams to leave, `Leavers` which of them it refuses once. Streams
reach servers through gateways, which are clients of the library with `Addresses`, or through a proxy that counts
streams as Envoy does.
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from forebay.addresses import Address, Addresses
from forebay_server.service.load.leavers import Leavers
from forebay_server.service.load.meter import BUSY
from forebay_server.service.load.overload import SETTLED_NS, Overload

CHOICES = 4  # `choice_count` of deploy/envoy
NEVER_NS = -SETTLED_NS


@dataclass(slots=True)
class Stream:
    """A camera's stream.

    Attributes:
        number: of the camera.
        load: share of a server's capacity.
        resumed_ns: when it came resumed to its server; long ago for one that was opened new.
        moves: how often it was opened again.
    """

    number: int
    load: float
    resumed_ns: int = NEVER_NS
    moves: int = 0


@dataclass(slots=True, eq=False)
class Server:
    """One server.

    Attributes:
        address: as gateways know it.
        asks: whether it asks streams to leave at all (`move_streams`).
        chance: draws streams.
        streams: by number.
        load: of its streams; 1 is a full server.
        is_down: it takes no stream.
    """

    address: Address
    asks: bool
    chance: random.Random
    streams: dict[int, Stream] = field(default_factory=dict)
    load: float = 0.0
    is_down: bool = False
    _came: int = 0
    _overload: Overload = field(default_factory=Overload)
    _leavers: Leavers = field(default_factory=Leavers)

    @property
    def is_over(self) -> bool:
        """Whether it has too much to do."""
        return self.load > BUSY

    def refuses(self, stream: Stream, now_ns: int) -> bool:
        """Whether it sends a stream that was opened before to another server."""
        return stream.moves > 0 and self._leavers.comes_back(str(stream.number), now_ns)

    def take(self, stream: Stream, now_ns: int) -> None:
        """Open a stream."""
        self.streams[stream.number] = stream
        self.load += stream.load
        if stream.moves:
            stream.resumed_ns = now_ns
            self._came += 1

    def drop(self, stream: Stream) -> None:
        """Close a stream."""
        del self.streams[stream.number]
        self.load -= stream.load

    def fail(self) -> list[Stream]:
        """Go down, and return the streams that were open. What it knew is gone."""
        lost = list(self.streams.values())
        self.streams, self.load, self.is_down = {}, 0.0, True
        self._came, self._overload, self._leavers = 0, Overload(), Leavers()
        return lost

    def look(self, now_ns: int) -> list[Stream]:
        """Return the streams that are asked to leave now; they stay until they are dropped."""
        if not self.asks or self.is_down:
            return []
        count = self._overload.decide(now_ns, is_over=self.is_over, streams=len(self.streams), came=self._came)
        if not count:
            return []
        movable = [each for each in self.streams.values() if now_ns - each.resumed_ns >= SETTLED_NS]
        if self._overload.is_futile:
            asked = self.chance.sample(movable, min(count, len(movable)))
        else:
            asked = sorted(movable, key=lambda each: (-each.load, each.number))[:count]
        self._overload.asked(len(asked), self._came)
        for each in asked:
            self._leavers.asked(str(each.number), now_ns)
        return asked


class Balancer(Protocol):
    """Places streams on servers."""

    def place(self, stream: Stream, now_ns: int) -> Server:
        """Open a stream on a server, and return it."""
        ...

    def ended(self, server: Server) -> None:
        """A stream of a server has ended."""
        ...

    def failed(self, server: Server, now_ns: int) -> None:
        """A server has failed."""
        ...

    def going(self, server: Server, now_ns: int) -> None:
        """A server has asked a stream to go elsewhere."""
        ...


class Gateway:
    """A client of the library with the addresses of all servers."""

    def __init__(self, servers: Sequence[Server], chance: random.Random) -> None:
        self._servers = {server.address: server for server in servers}
        self._addresses = Addresses(chance.random)
        self._addresses.replace(list(self._servers))

    def place(self, stream: Stream, now_ns: int) -> Server:
        """Try servers, as a link does, until one opens the stream."""
        refused: set[Address] = set()
        while True:
            address = self._addresses.choose(now_ns, refused)
            server = self._servers[address]
            if not server.is_down and not server.refuses(stream, now_ns):
                break
            self._addresses.ended(address)
            refused.add(address)
            if server.is_down:
                self._addresses.failed(address, now_ns)
        self._addresses.opened(address)
        server.take(stream, now_ns)
        return server

    def ended(self, server: Server) -> None:
        """Count the end of a call."""
        self._addresses.ended(server.address)

    def failed(self, server: Server, now_ns: int) -> None:
        """Leave a server out."""
        self._addresses.failed(server.address, now_ns)

    def going(self, server: Server, now_ns: int) -> None:
        """Leave a server out."""
        self._addresses.going(server.address, now_ns)


class Proxy:
    """Envoy with deploy/envoy: it knows health and the number of streams, and reads no message of a stream."""

    def __init__(self, servers: Sequence[Server], chance: random.Random) -> None:
        self._servers = servers
        self._chance = chance

    def place(self, stream: Stream, now_ns: int) -> Server:
        """Send a stream to the server with the fewest of some that are drawn; after a refusal, to another one."""
        refused: set[Address] = set()
        while True:
            server = self._chosen(refused)
            if not server.refuses(stream, now_ns):
                break
            refused.add(server.address)
        server.take(stream, now_ns)
        return server

    def _chosen(self, refused: Collection[Address]) -> Server:
        healthy = [each for each in self._servers if not each.is_down]
        others = [each for each in healthy if each.address not in refused] or healthy
        return min(self._chance.choices(others, k=CHOICES), key=lambda each: len(each.streams))

    def ended(self, server: Server) -> None:
        """Nothing: it counts open streams."""

    def failed(self, server: Server, now_ns: int) -> None:
        """Nothing: the next health check, half a second away, finds it."""

    def going(self, server: Server, now_ns: int) -> None:
        """Nothing: the server's word is for the client."""
