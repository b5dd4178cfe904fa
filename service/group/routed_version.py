"""A version of a model that several engine processes run, as the front end uses it: it shares the requests out.

Theory of operation
    Each engine process has the whole version, with memory of its own (`RemoteVersion`, a *member* here). The member of
    a request is chosen when it takes its place, since its inputs are written there: the one whose lanes are free first.
    Every front-end process publishes how many of its places in each member hold a request (`counted_places`), so that
    all see each other's newest choices; the sum, times the duration of a row in large batches, is when the lanes of
    that member will be free. Among equal members the turn goes round.

    A stream whose newest frame replaces the one that waits (LATEST) stays with its member while a frame of it is there,
    unless another member would be free much earlier. Tracks and the order of results do not depend on the member: both
    are made in the front-end process.

    A member leaves when its engine process retires it or has gone. The version ends when its last member has left or
    another version takes its place; then its streams are asked to reconnect, and it holds its members until they have.

Thread: any, except where a method says otherwise. The members are a tuple that is swapped whole.
"""

from collections.abc import Sequence
from typing import Any
from weakref import ref

from forebay_server.engines.engine import EngineSpecs
from forebay_server.service.errors import EngineEndedError, InvariantError
from forebay_server.service.group.counted_places import CountedArena, CountedArrays
from forebay_server.service.group.front_end_counts import FrontEndCounts
from forebay_server.service.group.published_egress import PublishedEgress
from forebay_server.service.group.remote_arena import RemoteFrame
from forebay_server.service.group.remote_arrays import RemoteArraysFrame
from forebay_server.service.group.remote_version import RemoteVersion
from forebay_server.service.group.version_header import VersionHeader
from forebay_server.service.journal.events import RequestJournal
from forebay_server.service.models.description import ModelDescription
from forebay_server.service.pictures.device_picture import FilePlace
from forebay_server.service.pipeline.shares import Share
from forebay_server.service.pipeline.unbound import Inputs
from forebay_server.service.request import Feasibility, FrameBuffer, Request

SLACK_ROWS = 32
"""A LATEST stream moves when its member is this many rows behind twice the best: a large batch is no reason."""
ENDED = "the process that had this request has ended before it answered; others serve on: send it again"


class RoutedVersion:
    """Implements service.models.served.ServedVersion; see the module's theory of operation.

    Args:
        member: the first.
        front_end: index of this process.
    """

    def __init__(self, member: RemoteVersion, front_end: int) -> None:
        self.name = member.name
        self.version = member.version
        self.description: ModelDescription = member.description
        self.specs: EngineSpecs = member.specs
        self.statistics: FrontEndCounts = member.statistics
        self.requests: RequestJournal | None = member.requests
        self.members: tuple[RemoteVersion, ...] = ()
        self.is_retired = False
        self.egress_time = RoutedEgress(member.header, front_end)
        self.arena = RoutedArena(self, member.arena.row_bytes)
        self.unbound = None if member.unbound is None else RoutedArrays(self)
        self._users = 0
        self._turn = 0
        self.add(member)

    # --- members: the event loop's thread -----------------------------------------------------------------------------

    def takes(self, member: RemoteVersion) -> bool:
        """Whether a version of an engine process that has none here yet is the same one."""
        own, other = self.description, member.description
        is_same = (own.task, own.image) == (other.task, other.image)
        return is_same and self.specs == member.specs and not self.is_retired

    def add(self, member: RemoteVersion) -> None:
        """Share requests out to a member, too, which is held open."""
        member.try_use()
        self._set((*self.members, member))

    def remove(self, member: RemoteVersion) -> None:
        """Send no more requests to a member, and let go of it. The last one may be lost, and is not retired so."""
        self._set(tuple(each for each in self.members if each is not member))
        member.end_use()

    def _set(self, members: tuple[RemoteVersion, ...]) -> None:
        self.members = members
        self.egress_time.follow([each.header for each in members])
        if members:
            self.statistics, self.requests = members[0].statistics, members[0].requests

    def retire(self) -> None:
        """Take no new users. Idempotent."""
        self.is_retired = True
        self._end_if_unused()

    def try_use(self) -> bool:
        """Keep the version open until `end_use`; False if it is retired."""
        if self.is_retired:
            return False
        self._users += 1
        return True

    def end_use(self) -> None:
        """Release the version: this user brings no more requests."""
        self._users -= 1
        self._end_if_unused()

    def _end_if_unused(self) -> None:
        if self.is_retired and self._users == 0:
            for member in self.members:
                self.remove(member)

    # --- requests -----------------------------------------------------------------------------------------------------

    @property
    def feasibility(self) -> Feasibility:
        """The latest of a member: a lone request takes as long in any."""
        members = self.members
        return members[0].feasibility if members else Feasibility()

    def choose(self, share: Share | None) -> RemoteVersion:
        """Return where the next request goes. Raises EngineEndedError if no engine process runs the version now."""
        members = self.members
        if not members:
            raise EngineEndedError(ENDED)
        if len(members) == 1:
            return members[0]
        self._turn = turn = (self._turn + 1) % len(members)
        held_ns = [each.held_ns() for each in members]
        best_ns = min(held_ns)
        chosen = members[turn] if held_ns[turn] == best_ns else members[held_ns.index(best_ns)]
        if share is None or not share.follows:
            return chosen
        route = None if share.route is None else share.route()
        if share.in_use and route in members:
            place = members.index(route)
            if held_ns[place] <= 2 * best_ns + SLACK_ROWS * members[place].row_ns:
                return members[place]
        share.route = ref(chosen)
        return chosen

    def arrive(self, request: Request) -> None:
        """Send a request, inputs in its place, to its member. Blocks: no."""
        member = member_of(request)
        member.arrive(request)
        if member.is_lost:
            member.fail_in_flight(EngineEndedError(ENDED))

    def arrive_on_loop(self, request: Request) -> None:
        """Send a request with all others of this turn of the loop. Thread: the event loop's. Blocks: no."""
        member = member_of(request)
        member.arrive_on_loop(request)
        if member.is_lost:
            member.fail_in_flight(EngineEndedError(ENDED))

    def cancel(self, requests: Sequence[Request]) -> None:
        """Free the places of requests that are still pending. Thread: the event loop's. Blocks: no."""
        by_member: dict[RemoteVersion, list[Request]] = {}
        for request in requests:
            if not request.frame.is_released:  # else it has ended, and its version may be closed
                by_member.setdefault(member_of(request), []).append(request)
        for member, own in by_member.items():
            if not member.is_lost:
                member.cancel(own)


class RoutedArena:
    """Implements service.models.served.ServedFrames: places of the member that a request goes to.

    Args:
        version: chooses.
        row_bytes: bytes of one row of each input.
    """

    def __init__(self, version: RoutedVersion, row_bytes: tuple[int, ...]) -> None:
        self.row_bytes = row_bytes
        self._version = version

    def lease(self, share: Share | None = None) -> FrameBuffer:
        """Take a permit of `share` and a place for one row. Raises OverloadedError or EngineEndedError."""
        while True:
            member = self._version.choose(share)
            frame = member.arena.lease(share)
            if member in self._version.members:
                return frame
            frame.release()  # it has left meanwhile, and takes no request

    def lease_rows(self, rows: int, share: Share | None = None) -> FrameBuffer:
        """Take a permit of `share` and a place for `rows` rows.

        Raises OverloadedError, InvalidRequestError or EngineEndedError.
        """
        while True:
            member = self._version.choose(share)
            frame = member.arena.lease_rows(rows, share)
            if member in self._version.members:
                return frame
            frame.release()

    def files_of(self, frame: FrameBuffer) -> FilePlace | None:
        """Return where a slot has room for a JPEG file: one engine process decodes files, another may not."""
        return frame.arena.files_of(frame) if isinstance(frame, RemoteFrame) else None

    def borrows(self, payload: memoryview) -> bool:  # noqa: ARG002 - the protocol's
        """Return False: engine processes read only what lies in their files."""
        return False

    def borrow(self, payload: memoryview, share: Share | None = None) -> FrameBuffer | None:  # noqa: ARG002
        """Return None: inputs are copied into a file."""
        return None


class RoutedArrays:
    """Implements service.models.served.ServedArrays, as `RoutedArena`."""

    def __init__(self, version: RoutedVersion) -> None:
        self._version = version

    def lease(self, arrays: Inputs, share: Share | None = None) -> FrameBuffer:
        """Take a permit of `share` and a place. Raises OverloadedError, InvalidRequestError or EngineEndedError."""
        while True:
            member = self._version.choose(share)
            if member.unbound is None:
                raise InvariantError("a version of varying shapes without places for them")
            frame = member.unbound.lease(arrays, share)
            if member in self._version.members:
                return frame
            frame.release()


class RoutedEgress(PublishedEgress):
    """How long delivery takes in this process, for the formers of all members: they share it."""

    __slots__ = ("_headers",)

    def __init__(self, header: VersionHeader, front_end: int) -> None:
        self._headers = [header]
        super().__init__(header, front_end)

    def follow(self, headers: list[VersionHeader]) -> None:
        """Write to these from now on: the members have changed."""
        self._headers = headers
        if headers:
            self._header = headers[0]  # that of a member which has gone would keep its memory mapped

    def _write(self) -> None:
        for header in self._headers:
            self._header = header
            super()._write()


def member_of(request: Request) -> RemoteVersion:
    """Return the version of the engine process in whose memory a request has its place."""
    frame: Any = request.frame
    places = frame.arena if isinstance(frame, RemoteFrame) else frame.owner if _has_arrays(frame) else None
    if isinstance(places, CountedArena | CountedArrays) and isinstance(places.version, RemoteVersion):
        return places.version
    raise InvariantError("a request that lies in no memory of an engine process")


def _has_arrays(frame: object) -> bool:
    return isinstance(frame, RemoteArraysFrame)
