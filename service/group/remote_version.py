"""A version of a model whose engine is in another process, as the front end uses it.

A retired version is given up when its last user has gone and the engine process has answered all its requests: a
worker may send a frame of a stream that has ended, and a request that was sent must find its version there.

Thread: any, except where a method says otherwise.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from forebay_server.service.errors import ServiceError
from forebay_server.service.group.counted_places import CountedArena, CountedArrays
from forebay_server.service.group.engine_link import EngineLink
from forebay_server.service.group.front_end_counts import FrontEndCounts
from forebay_server.service.group.memory_file import MemoryFile
from forebay_server.service.group.messages import Published
from forebay_server.service.group.published_egress import PublishedEgress
from forebay_server.service.group.remote_arena import RemoteArena
from forebay_server.service.group.remote_arrays import RemoteArrays
from forebay_server.service.group.version_header import VersionHeader
from forebay_server.service.journal.events import RequestJournal
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.request import Completion, Feasibility, Request
from forebay_server.service.results.finisher import ResultFinisher

LOOK_AGAIN_S = 0.02  # at a retired version whose last requests are not answered yet


class RemoteVersion:
    """Implements service.models.served.ServedVersion.

    Args:
        published: the engine process's message about it.
        file: of its memory.
        front_end: index of this process.
        link: brings requests to the engine process.
        permits: of this process.
        finisher: takes the completions of its requests.
        counts: how its requests end in this process.
        requests: receives how Open Inference requests end; None disables observation.
        unbound_bytes: limit for requests of varying shapes together.
        on_unused: called with the version once it is retired and nothing of it is used any more.
        is_one_of_several: whether other engine processes run the version as well, and requests are shared out.

    Attributes:
        number: of the version in descriptors.
        header: numbers that all processes see.
        is_lost: whether its engine process has gone.
    """

    def __init__(
        self,
        published: Published,
        file: MemoryFile,
        front_end: int,
        link: EngineLink,
        permits: Permits,
        finisher: ResultFinisher,
        counts: FrontEndCounts,
        *,
        requests: RequestJournal | None,
        unbound_bytes: int,
        on_unused: Callable[["RemoteVersion"], None],
        is_one_of_several: bool = False,
    ) -> None:
        self.number = published.number
        self.name = published.name
        self.version = published.version
        self.description = published.description
        self.specs = published.specs
        self.requests = requests
        self.statistics = counts
        self._front_end = front_end
        self.is_lost = False
        self.header = VersionHeader(file.memory, published.layout.front_ends)
        self.row_ns = self.header.row_ns()
        self.egress_time = PublishedEgress(self.header, front_end)
        memory, layout, give_back = file.memory, published.layout, partial(link.give_back, published.number)
        of_arrays = memory, layout, self.specs, front_end, permits, unbound_bytes, give_back
        self.arena: RemoteArena
        self.unbound: RemoteArrays | None = None
        if is_one_of_several:
            self.note_held(0)
            self.arena = CountedArena(memory, layout, front_end, permits, self)
            self.unbound = None if self.specs.is_fixed else CountedArrays(*of_arrays, self)
        else:
            self.arena = RemoteArena(memory, layout, front_end, permits)
            self.unbound = None if self.specs.is_fixed else RemoteArrays(*of_arrays)
        self.finish = finisher.finish
        self._file = file
        self._link = link
        self._on_unused = on_unused
        self._users = 0
        self._is_retired = False

    @property
    def feasibility(self) -> Feasibility:
        """The latest snapshot of the engine process."""
        return self.header.feasibility()

    def try_use(self) -> bool:
        """Keep the version open until `end_use`; False if it is retired. Thread: the event loop's."""
        if self._is_retired:
            return False
        self._users += 1
        return True

    def end_use(self) -> None:
        """Release the version: this user brings no more requests. Thread: the event loop's."""
        self._users -= 1
        if self._is_retired and self._users == 0:
            self._end()  # once: it takes no new users

    def retire(self) -> None:
        """Take no new users. Idempotent. Thread: the event loop's."""
        if not self._is_retired:
            self._is_retired = True
            if self._users == 0:
                self._end()

    def _end(self) -> None:
        arrays_count = 0 if self.unbound is None else self.unbound.leased_count
        if self.arena.leased_count or arrays_count or self._link.is_in_flight(self):
            asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self._end)
            return
        if self.requests is not None:
            self.requests.close()
        self._on_unused(self)

    def arrive(self, request: Request) -> None:
        """Send a request, inputs in its place, to the engine process. Blocks: no."""
        self._link.send(self, request)

    def arrive_on_loop(self, request: Request) -> None:
        """Send a request with all others of this turn of the loop. Thread: the event loop's. Blocks: no."""
        self._link.send_soon(self, request)

    def cancel(self, requests: Sequence[Request]) -> None:
        """Free the places of requests that are still pending. Thread: the event loop's. Blocks: no."""
        self._link.cancel(requests)

    def note_held(self, count: int) -> None:
        """Let all processes know how many places of this process hold a request. Thread: any."""
        self.header.write_held(self._front_end, count)

    def held_ns(self) -> int:
        """Return how long the lanes will take for all that is on its way there, from every front-end process."""
        return self.header.held() * self.row_ns

    def fail_in_flight(self, error: ServiceError) -> int:
        """End the requests that were sent, as the engine process has gone, and return how many. Thread: any."""
        requests = self._link.take_in_flight(self)
        for request in requests:
            request.frame.release()
        if requests:
            self.finish([Completion(request, error) for request in requests])
        return len(requests)

    def close(self) -> None:
        """Give the memory up; places that are out keep it. Thread: the event loop's."""
        for places in (self.arena, self.unbound):
            if isinstance(places, CountedArena | CountedArrays):
                places.close()
        self._file.close()
