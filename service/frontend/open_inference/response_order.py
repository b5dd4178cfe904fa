"""The order of one RPC's responses: in a flow as its requests came, and flows independent of each other. Pure.

A *flow* is the requests of one streaming RPC whose responses keep their order: those for one model, or those of one
`sequence_id` or `stream` of it. No flow waits for another, so that a slow model never holds up a fast one.

A request gets its place at the end of its flow when it is read, and keeps the place until its response is taken.
Requests may end in any order. A place knows nothing of its request.

Owner: the event loop's thread.
"""

from collections import deque
from typing import Generic, TypeVar

FlowName = tuple[str, str]
"""A model, and the `sequence_id` or `stream` of its requests, empty without one."""
R = TypeVar("R")


class Place(Generic[R]):
    """One request's place.

    Attributes:
        flow: of the request.
        response: None until it has one.
    """

    __slots__ = ("flow", "response")

    def __init__(self, flow: FlowName) -> None:
        self.flow = flow
        self.response: R | None = None


class ResponseOrder(Generic[R]):
    """See the module. `R` is a response, which is never None."""

    __slots__ = ("_flows", "_ready", "_waiting")

    def __init__(self) -> None:
        self._flows: dict[FlowName, deque[Place[R]]] = {}  # those with a place without a response; none is empty
        self._ready: deque[R] = deque()  # nothing that was read before them in their flows is missing
        self._waiting = 0  # places in flows

    def __len__(self) -> int:
        """Return how many requests were read whose responses have not been taken."""
        return self._waiting + len(self._ready)

    def add(self, flow: FlowName) -> Place[R]:
        """Give a request that was read its place, behind all others of its flow."""
        place: Place[R] = Place(flow)
        self._flows.setdefault(flow, deque()).append(place)
        self._waiting += 1
        return place

    def respond(self, place: Place[R], response: R) -> bool:
        """Note the response of a place, once; return whether it, and perhaps others behind it, can be taken now.

        False after `clear`, which forgot the place.
        """
        places = self._flows.get(place.flow)
        if places is None:
            return False
        place.response = response
        if places[0] is not place:
            return False
        while places and (first := places[0].response) is not None:
            places.popleft()
            self._waiting -= 1
            self._ready.append(first)
        if not places:
            del self._flows[place.flow]
        return True

    def take(self) -> R | None:
        """Take the response that has been ready for longest, or None."""
        return self._ready.popleft() if self._ready else None

    def clear(self) -> None:
        """Forget everything; no place is added any more."""
        self._flows.clear()
        self._ready.clear()
        self._waiting = 0
