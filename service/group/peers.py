"""The front-end processes as the engine process knows them: their life, and the messages to each.

Theory of operation
    A front-end process greets over its talk socket and gets the permits, the models that serve with their memory, and
    health. From then on it gets every change. It holds each version that was published to it open until it says that
    it uses it no more.

    When it has gone, its versions are let go of once its last request has ended, and only then is the process that
    takes its place greeted: it gets the same memory.

Owner: the event loop's thread, except where a method says otherwise.
"""

import asyncio
import itertools
import math
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import structlog

from forebay_server.service.group.engine_journal import GroupJournal
from forebay_server.service.group.forwarded import LED, GroupRpcs
from forebay_server.service.group.front_end_link import FrontEndLink
from forebay_server.service.group.group_gauges import counters_of
from forebay_server.service.group.links import Links
from forebay_server.service.group.memory_file import MemoryFile
from forebay_server.service.group.memory_layout import most_requests
from forebay_server.service.group.messages import (
    FrontEndNumbers,
    Health,
    Known,
    LoadNow,
    LogLevel,
    MoveStreams,
    Retired,
    RpcCall,
    Serving,
    Welcome,
)
from forebay_server.service.group.other_engines import OtherEngines
from forebay_server.service.group.peer import Peer
from forebay_server.service.group.publications import Publications, memory_of
from forebay_server.service.group.shared_counts import PermitCounts, StreamCounts
from forebay_server.service.journal.events import Journal
from forebay_server.service.journal.streams import Why
from forebay_server.service.load.listing import Listing, movable_by_process, together
from forebay_server.service.load.meter import Load
from forebay_server.service.load.moving import share_out
from forebay_server.service.load.overload import NOTHING, Wish
from forebay_server.service.log import least_level
from forebay_server.service.model_side import ModelSide
from forebay_server.service.models.version import ModelVersion

log = structlog.get_logger(__name__)

STREAMS_EACH = 1_000_000_000
"""Numbers of streams that one process has for itself: more than it will ever open, and all stay exact in a browser."""


COUNTS_TIMEOUT_S = 0.5
"""For the counts of a front-end process before statistics are answered: a stopped process holds up no answer."""


class Peers:
    """See the module.

    Args:
        front_ends: how many there may be.
        permits: frames that the group may hold.
        models: their state.
        links: reads the data sockets.
        journal: receives records for the observer; None: there is none.
        rpcs: answers the calls of the group.
        file: with the permits of the group, where several engine processes share one; owned from now on.

    Attributes:
        most_requests: of one front-end process.
        journal: of the group.
        counts: of permits that are out.
        is_serving: whether the group serves.
        others: the other engine processes, in the first one of several.
    """

    def __init__(
        self,
        front_ends: int,
        permits: int,
        models: ModelSide,
        links: Links,
        journal: Journal | None,
        rpcs: GroupRpcs,
        file: MemoryFile | None = None,
    ) -> None:
        self.most_requests = most_requests(permits, front_ends)
        self._publications = Publications(self._in_use)
        self.journal = GroupJournal(journal, self._publications.statistics)
        self.is_serving = False
        self._loop = asyncio.get_running_loop()
        self._front_ends = front_ends
        self._models = models
        self._links = links
        self._rpcs = rpcs
        self._file = file or MemoryFile.create("forebay permits", PermitCounts.BYTES)
        self._is_file_shared = file is not None
        self.others: OtherEngines | None = None
        self.counts = PermitCounts(self._file.memory, front_ends)
        self._streams = StreamCounts(self._file.memory, front_ends)
        self._peers: list[Peer] = []  # the oldest first
        self._ended = FrontEndNumbers()  # counts of those that have gone: a counter never falls
        self._lock = threading.Lock()  # to move counts to `_ended`, and to read both
        self._next_stream = itertools.count(1, STREAMS_EACH).__next__
        self._calls: set[asyncio.Task[None]] = set()
        self._level = least_level()
        self._all_gone = asyncio.Event()
        self._all_gone.set()
        self._is_closed = False
        self._known: Known | None = None  # that every welcome process has

    def connect(self, front_end: int, data: socket.socket, talk: socket.socket) -> None:
        """Take in a new front-end process, in the place of one that has ended or is about to."""
        if self._is_closed or not 0 <= front_end < self._front_ends:
            data.close()
            talk.close()
            return
        for peer in self._of(front_end):
            peer.end()  # its process has gone, or there would be no other
        self._peers.append(Peer(self, front_end, data, talk))
        self._all_gone.clear()

    def welcome_waiting(self) -> None:
        """Welcome those that have greeted, unless an earlier one still has their memory."""
        for peer in list(self._peers):
            if peer.has_greeted and not peer.is_welcome and next(self._of(peer.front_end)) is peer:
                self._welcome(peer)

    def _welcome(self, peer: Peer) -> None:
        peer.is_welcome = True
        self._links.add(peer.link)
        peer.talk.send(Welcome(self._next_stream(), least_level()), [self._file.fd])
        peer.talk.send(Known(self._models.registry.known()))
        for version in self._models.registry.all():
            self._publications.publish(peer, version)
        if self.is_serving:
            self._tell_serving(peer)

    def serve(self) -> None:
        """Let every front-end process listen: the models that serve from the start serve."""
        self.is_serving = True
        for peer in self._welcome_ones():
            self._tell_serving(peer)

    def _tell_serving(self, peer: Peer) -> None:
        serving = self._models.registry.versions()
        for name in (*self._models.lacking(), *serving):
            peer.talk.send(Health(name, name in serving))
        peer.talk.send(Health("", not self._models.is_lacking()))
        peer.talk.send(Serving())

    # --- models -------------------------------------------------------------------------------------------------------

    def changed(self, name: str, *, is_serving: bool) -> None:
        """Tell that a model serves from now on, or does not. Thread: any."""

        def tell() -> None:
            self.refresh()
            for peer in self._welcome_ones():
                peer.talk.send(Health(name, is_serving))
                if self.is_serving:
                    peer.talk.send(Health("", not self._models.is_lacking()))

        self.call_soon(tell)

    def retired(self, version: ModelVersion) -> None:
        """Tell that a version takes no new users. Thread: any."""

        def tell() -> None:
            self.refresh()  # its successor first, so that there is one to go to
            number = self._publications.number_of(version)
            if number is None:
                return
            for peer in self._welcome_ones():
                if number in peer.versions:
                    peer.talk.send(Retired(number))

        self.call_soon(tell)

    def refresh(self) -> None:
        """Tell of every version that serves and was not told of yet."""
        known = Known(self._models.registry.known())
        is_new, self._known = known != self._known, known
        for peer in self._welcome_ones():
            if is_new:
                peer.talk.send(known)
            for version in self._models.registry.all():
                if self._publications.number_of(version) not in peer.versions:
                    self._publications.publish(peer, version)

    def _in_use(self) -> set[ModelVersion]:
        used = {version for peer in self._peers for version in peer.versions.values()}
        return used.union(self._models.registry.all())

    # --- calls --------------------------------------------------------------------------------------------------------

    def answer(self, peer: Peer, call: RpcCall) -> None:
        """Answer a call of the group, and send its changes to every front-end process."""

        async def work() -> None:
            if call.method == "ModelStatistics":
                await self.collect_counts()
            answer = await self._rpcs.answer(call)
            if self.others is not None and call.method in LED and answer.code == "OK":
                failed = await self.others.repeat(call)
                answer = answer if failed is None else replace(failed, id=call.id)
            try:
                self._tell_changes()
            finally:
                peer.talk.send(answer)

        task = self._loop.create_task(work())
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    def _tell_changes(self) -> None:
        self.refresh()
        if least_level() != self._level:
            self._level = least_level()
            for each in self._welcome_ones():
                each.talk.send(LogLevel(self._level))
            if self.others is not None:
                self.others.tell_level(self._level)

    async def collect_counts(self) -> None:
        """Return when every other process has sent its counts, or after `COUNTS_TIMEOUT_S`: one may be stopped."""
        waiting = [each.ask_counts() for each in self._welcome_ones()]
        if self.others is not None:
            waiting += self.others.ask_counts()
        if waiting:
            await asyncio.wait(waiting, timeout=COUNTS_TIMEOUT_S)

    # --- ends ---------------------------------------------------------------------------------------------------------

    def link_ended(self, link: FrontEndLink) -> None:
        """Let go of the versions and the memory of a front-end process: its last request has ended. Thread: any."""
        self.call_soon(lambda: self._on_link_ended(link))

    def _on_link_ended(self, link: FrontEndLink) -> None:
        for peer in self._peers:
            if peer.link is link:
                peer.close_talk()  # the data socket's end may be seen before its last messages
                peer.receiver.end()
                for number, version in list(peer.versions.items()):
                    memory_of(version).header.forget_egress(peer.front_end)
                    peer.let_go(number)
                self._forget_counts(peer.front_end)
                with self._lock:
                    self._ended = counters_of([self._ended, peer.receiver.numbers])
                    self._peers.remove(peer)
                self.forget(peer)
                return

    def _forget_counts(self, front_end: int) -> None:
        """Clear the numbers of a front-end process, unless another engine process has welcomed its successor."""
        if not self._is_file_shared or len(list(self._of(front_end))) == 1:
            self.counts.write(front_end, 0)
            self._streams.write(front_end, 0)

    def forget(self, peer: Peer) -> None:
        """Take a front-end process out, and welcome the one that takes its place."""
        if peer in self._peers:
            self._peers.remove(peer)
        if not self._peers:
            self._all_gone.set()
        self.welcome_waiting()

    async def wait_gone(self, timeout_s: float) -> None:
        """Return when no front-end process is left, or after some time."""
        try:
            await asyncio.wait_for(self._all_gone.wait(), timeout_s)
        except TimeoutError:
            log.warning("front-end processes have not ended", count=len(self._peers))

    def close(self) -> None:
        """Hang up on every front-end process that is left. Idempotent."""
        self._is_closed = True
        for peer in list(self._peers):
            peer.end()

    def end(self) -> None:
        """Free what is shared by all. The links' thread has ended. Idempotent."""
        self.counts.close()
        self._streams.close()
        self._file.close()

    # --- who is there -------------------------------------------------------------------------------------------------

    def numbers(self) -> list[FrontEndNumbers]:
        """Return the numbers that each front-end process last told, and the counts of the ended ones. Thread: any."""
        with self._lock:
            return [self._ended, *(peer.receiver.numbers for peer in list(self._peers))]

    def movable_streams(self) -> list[int | None]:
        """Return how many streams of each front-end process can be asked to reconnect; None: it does not listen."""
        told = {peer.front_end: peer.receiver.numbers.movable_streams for peer in self._welcome_ones()}
        return [told.get(front_end) for front_end in range(self._front_ends)]

    def leaving_streams(self) -> int:
        """Return how many streams were asked to reconnect because of unevenness and are still where they were."""
        return sum(peer.receiver.numbers.leaving_streams for peer in self._welcome_ones())

    def move_streams(self, front_end: int, count: int) -> None:
        """Have a front-end process ask some of its streams to reconnect."""
        for peer in self._of(front_end):
            peer.talk.send(MoveStreams(Wish(count), Why.UNEVEN))

    def move_elsewhere(self, wish: Wish) -> int:
        """Have front-end processes ask streams to go to other servers; return how many are asked."""
        weights = {peer.front_end: peer.receiver.numbers.weights for peer in self._welcome_ones()}
        return self._ask(share_out(wish, weights), Why.OVERLOAD)

    async def list_streams(self) -> Listing:
        """Return the open streams of the front-end processes that answer within `COUNTS_TIMEOUT_S`."""
        asked = {peer.front_end: peer.ask_streams() for peer in self._welcome_ones()}
        if asked:
            await asyncio.wait(asked.values(), timeout=COUNTS_TIMEOUT_S)
        return together({front_end: listed.result() for front_end, listed in asked.items() if listed.done()})

    async def move_by_operator(self, count: int) -> int:
        """Have front-end processes ask streams to go to other servers, as an operator wants; return how many are."""
        listing = await self.list_streams()
        return self._ask(share_out(Wish(count, math.inf), movable_by_process(listing)), Why.OPERATOR)

    def _ask(self, shares: Mapping[int, Wish], why: Why) -> int:
        for peer in self._welcome_ones():  # those that ask none send those on that come back to them
            peer.talk.send(MoveStreams(shares.get(peer.front_end, NOTHING), why))
        return sum(share.count for share in shares.values())

    def publish(self, load: Load) -> None:
        """Have front-end processes report the load of the group. Those that do not read are not told."""
        for peer in self._welcome_ones():
            if not peer.talk.is_behind:
                peer.talk.send(LoadNow(load))

    def call_soon(self, work: Callable[[], None]) -> None:
        """Have the event loop do something. Thread: any."""
        try:
            self._loop.call_soon_threadsafe(work)
        except RuntimeError:
            if not self._loop.is_closed():  # closed: the process is about to end
                raise

    def _welcome_ones(self) -> Iterator[Peer]:
        return (peer for peer in list(self._peers) if peer.is_welcome and peer.talk.is_open)

    def _of(self, front_end: int) -> Iterator[Peer]:
        return (peer for peer in list(self._peers) if peer.front_end == front_end)
