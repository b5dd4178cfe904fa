"""The places of the load's streams on one server or several, chosen as the client library does (`forebay.addresses`).

Owner: the event loop's thread.
"""

import random
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc

from forebay.addresses import Address, Addresses, host_to_resolve, parse_addresses, records_of
from forebay_server.loadtest.client.channels import channels_needed, open_channel
from forebay_server.loadtest.clock import Clock, MonotonicClock
from forebay_server.loadtest.errors import CannotConnectError
from forebay_server.loadtest.target import TargetSpec

T = TypeVar("T")


class Place:
    """One stream's place on a server.

    Attributes:
        address: of the server, for messages.
        channel: connection to it.
    """

    def __init__(self, server: Address, channel: grpc.aio.Channel, addresses: Addresses, clock: Clock) -> None:
        self.address = str(server)
        self.channel = channel
        self._server = server
        self._addresses = addresses
        self._clock = clock
        self._is_over = False

    def opened(self) -> None:
        """Record that the server opened the stream."""
        self._addresses.opened(self._server)

    def going(self) -> None:
        """Record that the server goes away."""
        self._addresses.going(self._server, self._clock.now_ns())

    def failed(self) -> None:
        """Record that the server failed, and leave."""
        self._addresses.failed(self._server, self._clock.now_ns())
        self.leave()

    def leave(self) -> None:
        """Count the end of the stream. Idempotent."""
        if not self._is_over:
            self._is_over = True
            self._addresses.ended(self._server)


class Places:
    """All servers of a target. Connections connect when they are first used; records of names are looked up once.

    Raises:
        UsageError: the file of certificates cannot be read.
    """

    def __init__(self, spec: TargetSpec, streams: int, clock: Clock | None = None) -> None:
        self._clock = clock or MonotonicClock()
        self._addresses = Addresses(random.random)
        entries, _ = parse_addresses(spec.address)
        self._addresses.replace([address for entry in entries for address in _servers_of(entry)])
        count = channels_needed(spec, streams)
        self._channels = {each: [open_channel(spec, each) for _ in range(count)] for each in self._addresses.current}
        self._taken = 0

    async def open(self, attempt: Callable[[Place], Awaitable[T]]) -> T:
        """Return the result of `attempt` at a place; where it cannot connect, it gets a place on the next server.

        Raises:
            CannotConnectError: of the last server.
        """
        tried: set[Address] = set()
        while True:
            server = self._addresses.choose(self._clock.now_ns(), tried)
            tried.add(server)
            channels = self._channels[server]
            place = Place(server, channels[self._taken % len(channels)], self._addresses, self._clock)
            self._taken += 1
            try:
                result = await attempt(place)
            except CannotConnectError:
                place.failed()
                if not self._addresses.has_other(tried):
                    raise
            except BaseException:
                place.leave()
                raise
            else:
                place.opened()
                return result

    async def close(self) -> None:
        """Close all connections; streams that are still open are cancelled."""
        for channels in self._channels.values():
            for channel in channels:
                await channel.close(None)


def _servers_of(entry: str) -> tuple[Address, ...]:
    if (place := host_to_resolve(entry)) is None:
        return (Address(entry),)
    try:
        return records_of(entry, socket.getaddrinfo(*place, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError):
        return records_of(entry, ())
