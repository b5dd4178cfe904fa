"""The servers of a client: looks up their records, chooses one for each call, and keeps a connection to each.

`addresses` decides; this module asks the resolver, counts calls, and says in the log when a server is left out.
Owner: the event loop.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from forebay.addresses import Address, Addresses, host_to_resolve, parse_addresses, records_of
from forebay.client.channel import ChannelHolder, Metadata
from forebay.client.clock import Clock
from forebay.client.errors import CallRefusedError, ForebayError, UnreachableError
from forebay.client.options import Tls

if TYPE_CHECKING:
    from forebay.client.channel import AnyCall, StreamCall

RESOLVE_LIMIT_S = 2.0  # then the name itself is given to gRPC
RECORDS_LAST_S = 5.0  # records are looked up again, beside the next call, when they are older

_log = logging.getLogger("forebay")


class Servers:
    """See the module.

    Args:
        address: one or several, with commas in between.
        tls: of all servers; None speaks plain text.
        clock: source of monotonic nanoseconds; tests pass a manual one.
        draw: source of uniform numbers from 0 to 1.

    Raises:
        ValueError: an entry is no address.
    """

    def __init__(self, address: str, tls: Tls | None, clock: Clock, draw: Callable[[], float]) -> None:
        self.address = address
        self._tls = tls
        self._clock = clock
        self._entries, repeated = parse_addresses(address)
        for entry in repeated:
            _log.warning("the address %s is given more than once; it counts once", entry)
        self._addresses = Addresses(draw)
        self._holders: dict[Address, ChannelHolder] = {}
        self._of_call: dict[AnyCall, Address] = {}
        self._resolved_ns: int | None = None
        self._resolving: asyncio.Task[None] | None = None

    @property
    def count(self) -> int:
        """The number of servers, as far as they are known."""
        return max(len(self._entries), len(self._addresses.current))

    async def call(
        self, metadata: Metadata = (), avoid: Collection[Address] = (), wanted: Address | None = None
    ) -> tuple["StreamCall", Address]:
        """Start a stream's call on one of the servers; it fails fast if the server cannot be reached.

        Args:
            metadata: of the call.
            avoid: servers that the stream should not get.
            wanted: the server that it should get, if it is one of those and not one to avoid.

        Raises:
            OSError: a certificate file cannot be read.
        """
        await self._look_up()
        address = self._addresses.choose(self._clock.now_ns(), avoid, wanted)
        try:
            call = self._holder(address).call(metadata)
        except BaseException:
            self._addresses.ended(address)
            raise
        self._of_call[call] = address
        call.add_done_callback(self._ended)
        return call, address

    async def ask(self, method: str, request: bytes, metadata: Metadata, timeout_s: float) -> bytes:
        """Make a single call on one of the servers, on the next one if that has no answer; return the encoded answer.

        Raises:
            UnreachableError: no answer came within `timeout_s`, or no connection.
            CallRefusedError: a server answered with an error.
            OSError: a certificate file cannot be read.
        """
        await self._look_up()
        until_ns = self._clock.now_ns() + round(timeout_s * 1e9)
        tried: set[Address] = set()
        while True:
            now_ns = self._clock.now_ns()
            address = self._addresses.choose(now_ns, tried)
            tried.add(address)
            left_s = (until_ns - now_ns) / 1e9
            others = sum(each not in tried for each in self._addresses.current)
            try:
                return await self._holder(address).ask(method, request, metadata, left_s / (1 + others))
            except UnreachableError as error:
                self.failed(address, str(error))
                if not others:
                    raise
            finally:
                self._addresses.ended(address)

    async def ask_each(
        self, method: str, request: bytes, metadata: Metadata, timeout_s: float
    ) -> list[tuple[Address, bytes | ForebayError]]:
        """Make a single call on every server, all at once; return the encoded answers, or why there is none.

        Raises:
            UnreachableError, CallRefusedError: no server answered; the error of the first one.
            OSError: a certificate file cannot be read.
        """
        await self._look_up()
        addresses = self._addresses.current
        asking = (self._answer_or_error(address, method, request, metadata, timeout_s) for address in addresses)
        answers = list(zip(addresses, await asyncio.gather(*asking), strict=True))
        errors = [answer for _, answer in answers if isinstance(answer, ForebayError)]
        if len(errors) == len(answers):
            raise errors[0]
        return answers

    async def ask_one(
        self, server: str | None, method: str, request: bytes, metadata: Metadata, timeout_s: float
    ) -> bytes:
        """Make a single call on a certain server; return the encoded answer.

        Raises:
            ValueError: there is no such server, or `server` is None and there are several.
            UnreachableError, CallRefusedError, OSError: as `ask`.
        """
        await self._look_up()
        known = self._addresses.current
        names = ", ".join(map(str, known))
        if server is None and len(known) > 1:
            raise ValueError(f"name one of the servers: {names}")
        found = [each for each in known if server in {None, str(each), each.target}]
        if not found:
            raise ValueError(f"there is no server {server!r}; there are {names}")
        return await self._holder(found[0]).ask(method, request, metadata, timeout_s)

    async def _answer_or_error(
        self, address: Address, method: str, request: bytes, metadata: Metadata, timeout_s: float
    ) -> bytes | ForebayError:
        try:
            return await self._holder(address).ask(method, request, metadata, timeout_s)
        except (UnreachableError, CallRefusedError) as error:
            return error

    def has_ready(self, avoid: Collection[Address]) -> bool:
        """Whether a server that is not in `avoid` is not left out."""
        return self._addresses.has_ready(self._clock.now_ns(), avoid)

    def has_other(self, avoid: Collection[Address]) -> bool:
        """Whether there is a server that is not in `avoid`."""
        return self._addresses.has_other(avoid)

    def opened(self, address: Address) -> None:
        """Record that a server opened a stream."""
        self._addresses.opened(address)

    def failed(self, address: Address, reason: str, hint_ms: int = 0) -> None:
        """Record that a server failed: it is left out for a while."""
        self._say(address, self._addresses.failed(address, self._clock.now_ns(), hint_ms), reason)

    def going(self, address: Address, reason: str) -> None:
        """Record that a server sends its streams elsewhere: it is left out for a while."""
        self._say(address, self._addresses.going(address, self._clock.now_ns()), reason)

    def leave(self, call: "StreamCall") -> None:
        """Start later calls of its server on another connection than this call's: its server asked for that."""
        if (address := self._of_call.get(call)) is not None:
            self._holder(address).leave(call)

    async def close(self) -> None:
        """Close every connection; calls that still run are cancelled."""
        if self._resolving is not None:
            self._resolving.cancel()
            await asyncio.gather(self._resolving, return_exceptions=True)
        for holder in self._holders.values():
            await holder.close()

    def _say(self, address: Address, seconds: float, reason: str) -> None:
        if seconds and self.count > 1:
            _log.warning("server %s is left out for %.1f s: %s", address, seconds, reason)

    def _holder(self, address: Address) -> ChannelHolder:
        if address not in self._holders:
            self._holders[address] = ChannelHolder(address, self._tls)
        return self._holders[address]

    def _ended(self, call: "AnyCall") -> None:
        self._addresses.ended(self._of_call.pop(call))

    async def _look_up(self) -> None:
        """Look the records up: wait the first time, and later, when they are old, go on beside the caller."""
        if self._resolved_ns is None:
            if self._resolving is None:
                self._resolving = asyncio.create_task(self._resolve())
            await asyncio.shield(self._resolving)
            return
        has_names = any(host_to_resolve(entry) for entry in self._entries)
        is_old = self._clock.now_ns() - self._resolved_ns > RECORDS_LAST_S * 1e9
        if has_names and is_old and (self._resolving is None or self._resolving.done()):
            self._resolving = asyncio.create_task(self._resolve())

    async def _resolve(self) -> None:
        found = await asyncio.gather(*(self._records(entry) for entry in self._entries))
        self._addresses.replace([address for records in found for address in records])
        self._resolved_ns = self._clock.now_ns()
        for address in [each for each in self._holders if not self._addresses.is_known(each)]:
            await self._holders.pop(address).close()

    async def _records(self, entry: str) -> tuple[Address, ...]:
        if (place := host_to_resolve(entry)) is None:
            return (Address(entry),)
        host, port = place
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(RESOLVE_LIMIT_S):
                infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # a TimeoutError is an OSError
            known = tuple(each for each in self._addresses.current if each.name == entry)
            return known or (Address(entry),)
        return records_of(entry, infos)
