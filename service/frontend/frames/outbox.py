"""The order of one stream's answers: frames in order of arrival, the answer to write next, and room for more. Pure.

A frame gets its place when it is read and keeps it until its answer is taken, also if later frames end first. An answer
comes by the id of the frame's request, or for the place itself where the frame never became a request. A place knows
nothing of its request, and a request nothing of its place: so neither keeps the other alive.

Owner: the event loop's thread.
"""

from collections import deque
from collections.abc import Iterator

from forebay_server.service.errors import ServiceError
from forebay_server.service.request import Completion, Request, Timeline

Answer = Completion | ServiceError


class Place:
    """One frame's place.

    Attributes:
        seq: the client's number.
        capture_time_us: of the client, to be echoed.
        timeline: of the frame; its request's as well.
        answer: None until it has one.
    """

    __slots__ = ("answer", "capture_time_us", "seq", "timeline")

    def __init__(self, seq: int, capture_time_us: int, received_ns: int) -> None:
        self.seq = seq
        self.capture_time_us = capture_time_us
        self.timeline = Timeline(received_ns)
        self.answer: Answer | None = None


class Outbox:
    """See the module.

    Args:
        capacity: places at which it has no more room; at least 1.

    Attributes:
        first: the place whose answer is taken next; None without one. Read for every frame, hence no method.
        has_room: whether another frame may be read.
    """

    __slots__ = ("_capacity", "_places", "_under_way", "first", "has_room")

    def __init__(self, capacity: int) -> None:
        self.first: Place | None = None
        self.has_room = True
        self._capacity = capacity
        self._places: deque[Place] = deque()
        self._under_way: dict[int, tuple[Place, Request]] = {}  # by the request's id, until it has ended

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Place]:
        return iter(self._places)

    def __getitem__(self, index: int) -> Place:
        return self._places[index]

    def add(self, place: Place) -> None:
        """Give a frame that was read its place, behind all others."""
        places = self._places
        if self.first is None:
            self.first = place
        places.append(place)
        self.has_room = len(places) < self._capacity

    def enter(self, place: Place, request: Request) -> None:
        """Note that a frame has become a request, which will end: later, and never while this is being called."""
        self._under_way[request.id] = (place, request)

    def ended(self, request_id: int) -> Place | None:
        """Return the place of a request that has ended; None if the outbox was cleared meanwhile."""
        found = self._under_way.pop(request_id, None)
        return None if found is None else found[0]

    def take(self) -> Place | None:
        """Take the first place if it has its answer, else None."""
        first = self.first
        if first is None or first.answer is None:
            return None
        places = self._places
        places.popleft()
        self.first = places[0] if places else None
        self.has_room = len(places) < self._capacity
        return first

    def clear(self) -> tuple[int, list[Request]]:
        """Forget everything; return how many places had no answer, and the requests that have not ended."""
        unanswered = sum(place.answer is None for place in self._places)
        requests = [request for _, request in self._under_way.values()]
        self._places.clear()
        self._under_way.clear()
        self.first, self.has_room = None, True
        return unanswered, requests
