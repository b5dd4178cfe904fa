"""Servers and balancers in virtual time, for `scale_simulation`. The decisions are the product's own code.

A server's load is the sum of its streams' loads; it is over its threshold where that is more than its share of the
server's capacity. `Overload` decides when it asks streams to leave, `chosen` which, and `Door` which streams it sends
on. Streams reach servers through gateways, which are clients of the library with `Addresses`, or through a proxy that
counts streams as Envoy does.
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from forebay.addresses import Address, Addresses
from forebay.client.route import MOST_SENT_ON
from forebay_server.service.load.choice import chosen
from forebay_server.service.load.door import Door
from forebay_server.service.load.meter import BUSY
from forebay_server.service.load.overload import SETTLED_NS, UNWANTED_NS, Overload

CHOICES = 4  # `choice_count` of deploy/envoy
LONG_AGO_NS = -(1 << 62)


@dataclass(slots=True)
class Stream:
    """A camera's stream.

    Attributes:
        number: of the camera.
        load: share of a server's capacity.
        settled_ns: when its server may ask it to go.
        moves: how often it was opened again.
    """

    number: int
    load: float
    settled_ns: int = LONG_AGO_NS
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
        most_load: that it can see: where every frame waits for its turn, a server is busy and no more.
        noise: standard deviation of the load of one second, as a share of it.
    """

    address: Address
    asks: bool
    chance: random.Random
    streams: dict[int, Stream] = field(default_factory=dict)
    load: float = 0.0
    is_down: bool = False
    most_load: float = float("inf")
    noise: float = 0.0
    _unwanted: int = 0
    _overload: Overload = field(default_factory=Overload)
    _door: Door = field(default_factory=Door)

    @property
    def is_over(self) -> bool:
        """Whether it has too much to do."""
        return self.load > BUSY

    def sends_on(self, stream: Stream, attempt: int, now_ns: int) -> bool:
        """Whether it sends a stream that was opened before to another server."""
        return stream.moves > 0 and self._door.sends_on(attempt, now_ns)

    def take(self, stream: Stream, now_ns: int) -> None:
        """Open a stream."""
        self.streams[stream.number] = stream
        self.load += stream.load
        if stream.moves:
            stream.settled_ns = now_ns + (SETTLED_NS if self._door.has_room else UNWANTED_NS)
            self._unwanted += not self._door.has_room

    def drop(self, stream: Stream) -> None:
        """Close a stream."""
        del self.streams[stream.number]
        self.load -= stream.load

    def fail(self) -> list[Stream]:
        """Go down, and return the streams that were open. What it knew is gone."""
        lost = list(self.streams.values())
        self.streams, self.load, self.is_down = {}, 0.0, True
        self._unwanted, self._overload, self._door = 0, Overload(), Door()
        return lost

    def look(self, now_ns: int) -> list[Stream]:
        """Return the streams that are asked to leave now; they stay until they are dropped."""
        if not self.asks or self.is_down:
            return []
        unwanted = self._unwanted
        seen = min(self.most_load, self.load * self.chance.gauss(1.0, self.noise) if self.noise else self.load)
        wish = self._overload.decide(now_ns, utilization=seen, streams=len(self.streams), unwanted=unwanted)
        self._door.has_room = self._overload.has_room
        if not wish.count:
            return []
        self._door.asked(now_ns)
        movable = [each for each in self.streams.values() if now_ns >= each.settled_ns]
        weights = [(False, each.load) for each in movable]
        asked = [movable[place] for place in chosen(weights, wish.count, wish.surplus)]
        self._overload.asked(len(asked), unwanted)
        return asked


class Balancer(Protocol):
    """Places streams on servers."""

    def place(self, stream: Stream, now_ns: int, left: Server | None = None) -> Server:
        """Open a stream on a server, and return it; `left` is the one that asked it to go."""
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

    def place(self, stream: Stream, now_ns: int, left: Server | None = None) -> Server:
        """Try servers, as a link and its route do, until one opens the stream."""
        attempt = 0
        while True:
            attempt += 1
            said = attempt if attempt == 1 or self._addresses.has_ready(now_ns) else attempt + MOST_SENT_ON
            wanted = left.address if left is not None and said > MOST_SENT_ON else None
            address = self._addresses.choose(now_ns, (), wanted)
            server = self._servers[address]
            if not server.is_down and not server.sends_on(stream, said, now_ns):
                self._addresses.opened(address)
                server.take(stream, now_ns)
                return server
            self._addresses.ended(address)
            self._addresses.failed(address, now_ns)
            left = None if server is left else left

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

    def place(self, stream: Stream, now_ns: int, left: Server | None = None) -> Server:  # noqa: ARG002 - unknown to it
        """Send a stream to the server with the fewest of some that are drawn; after a refusal, to another one."""
        refused: set[Address] = set()
        attempt, server = 1, self._chosen(refused)
        while server.sends_on(stream, attempt, now_ns):
            refused.add(server.address)
            attempt, server = attempt + 1, self._chosen(refused)
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
