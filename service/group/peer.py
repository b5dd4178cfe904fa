"""One front-end process as the engine process knows it: its two sockets, and the versions that it uses.

Owner: the event loop's thread, except where a method says otherwise.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Protocol

import structlog

from forebay_server.service.group.engine_journal import GroupJournal, JournalReceiver
from forebay_server.service.group.front_end_link import FrontEndLink
from forebay_server.service.group.messages import (
    Counted,
    CountsWanted,
    Hello,
    LookAt,
    RpcCall,
    StreamsListed,
    StreamsWanted,
    Told,
    Unused,
)
from forebay_server.service.group.talk import Talk
from forebay_server.service.load.listing import NO_STREAMS, Listing
from forebay_server.service.models.version import ModelVersion

log = structlog.get_logger(__name__)


class Group(Protocol):
    """All front-end processes, as one of them needs them."""

    @property
    def most_requests(self) -> int:
        """Of one front-end process."""
        ...

    @property
    def journal(self) -> GroupJournal:
        """Of the group."""
        ...

    def welcome_waiting(self) -> None:
        """Welcome those that have greeted."""
        ...

    def answer(self, peer: "Peer", call: RpcCall) -> None:
        """Answer a call."""
        ...

    def link_ended(self, link: FrontEndLink) -> None:
        """The last request of a front-end process that has gone has ended. Thread: any."""
        ...

    def forget(self, peer: "Peer") -> None:
        """Take a front-end process out."""
        ...

    def call_soon(self, work: Callable[[], None]) -> None:
        """Have the event loop do something. Thread: any."""
        ...


class Peer:
    """One front-end process.

    Args:
        peers: all of them.
        front_end: its number.
        data: socket; owned from now on.
        talk: socket; owned from now on.
    """

    def __init__(self, peers: Group, front_end: int, data: socket.socket, talk: socket.socket) -> None:
        self.front_end = front_end
        self.has_greeted = False
        self.is_welcome = False
        self.versions: dict[int, ModelVersion] = {}
        self._peers = peers
        self.link = FrontEndLink(front_end, data, peers.most_requests, peers.link_ended)
        self.talk = Talk(talk, self._on_message, self.end)
        self.receiver = JournalReceiver(peers.journal, self._ask)
        self._counting: deque[asyncio.Future[None]] = deque()  # oldest first, as they are answered
        self._listing: deque[asyncio.Future[Listing]] = deque()  # the same

    def _ask(self, message: LookAt) -> None:
        """Send a message. Thread: the observer's."""
        self._peers.call_soon(lambda: self.talk.send(message))

    def ask_counts(self) -> "asyncio.Future[None]":
        """Have the process send its new counts; done when they have come, or never will."""
        counted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._counting.append(counted)
        self.talk.send(CountsWanted())
        return counted

    def ask_streams(self) -> "asyncio.Future[Listing]":
        """Have the process list its open streams; none if it ends before."""
        listed: asyncio.Future[Listing] = asyncio.get_running_loop().create_future()
        self._listing.append(listed)
        self.talk.send(StreamsWanted())
        return listed

    def _on_message(self, message: object, _: list[int]) -> None:
        match message:
            case Hello():
                self.has_greeted = True
                self._peers.welcome_waiting()
            case Told():
                self.receiver.on_told(message)
            case Counted():
                self._counting.popleft().set_result(None)
            case StreamsListed():
                self._listing.popleft().set_result(message.listing)
            case Unused():
                self.let_go(message.number)
            case RpcCall():
                self._peers.answer(self, message)
            case _:
                log.error("unknown message of a front-end process", message=type(message).__name__)

    def let_go(self, number: int) -> None:
        """End the use of a version."""
        version = self.versions.pop(number, None)
        if version is not None:
            self.link.remove_version(number)
            version.end_use()

    def close_talk(self) -> None:
        """Take the messages that have come, and wait for no more. Idempotent."""
        self.talk.take_rest()
        self.talk.close()
        while self._counting:
            self._counting.popleft().set_result(None)
        while self._listing:
            self._listing.popleft().set_result(NO_STREAMS)

    def end(self) -> None:
        """Break the link: the process has gone, or should go. Idempotent."""
        self.close_talk()
        if self.is_welcome:
            self.link.hang_up()  # the links' thread finds the end, and takes it from there
        else:
            self.link.socket.close()
            self._peers.forget(self)
