"""A bounded, closable hand-over of items from some threads to one receiving thread.

Theory of operation
    A channel is a deque under one condition. `send_now` never waits: a full channel is a bug in its sizing
    (InvariantError). `close` lets the receiver drain the rest and raises ChannelClosedError in it then; senders get
    ChannelClosedError at once. `wait` and `take_all` empty the channel in one go, so that a busy receiver takes the
    lock once per wake-up and not once per item.

Guarantees: first in, first out; no sent item is lost; a receiver never misses a wake-up.
"""

import threading
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

from forebay_server.service.clock import Clock
from forebay_server.service.errors import InvariantError

T = TypeVar("T")


class ChannelClosedError(Exception):
    """The channel is closed and, for the receiver, empty."""


class Channel(Generic[T]):
    """See the module's theory of operation. Thread: any; one receiver at a time."""

    def __init__(self, name: str, capacity: int, clock: Clock) -> None:
        if capacity < 1:
            raise ValueError(f"channel {name!r}: capacity must be at least 1, not {capacity}")
        self.name = name
        self.capacity = capacity
        self._clock = clock
        self._items: deque[T] = deque()
        self._condition = threading.Condition()
        self._is_closed = False
        self._is_woken = False

    def send_now(self, item: T, *, is_seen: bool = True) -> None:
        """Append `item` to a channel that has space by construction. Blocks: no.

        Args:
            item: to be received.
            is_seen: whether a waiting receiver wakes up; if not, the caller ensures that it looks.

        Raises:
            ChannelClosedError: it takes no more.
            InvariantError: it is full.
        """
        with self._condition:
            if self._is_closed:
                raise ChannelClosedError(self.name)
            if len(self._items) >= self.capacity:
                raise InvariantError(f"channel {self.name} is full at {self.capacity}")
            self._items.append(item)
            if is_seen:
                self._condition.notify_all()

    def send_all_now(self, items: Sequence[T]) -> None:
        """Append `items` in order as `send_now` does, with one wake-up for all. All are appended, or none."""
        with self._condition:
            if self._is_closed:
                raise ChannelClosedError(self.name)
            if len(self._items) + len(items) > self.capacity:
                raise InvariantError(f"channel {self.name} is full at {self.capacity}")
            self._items.extend(items)
            self._condition.notify_all()

    def wake(self) -> None:
        """Wake the waiting receiver, to look again."""
        with self._condition:
            self._is_woken = True
            self._condition.notify_all()

    def receive(self) -> T:
        """Take the oldest item. Blocks: until there is one. Raises ChannelClosedError when closed and empty."""
        with self._condition:
            while not self._items:
                if self._is_closed:
                    raise ChannelClosedError(self.name)
                self._clock.wait(self._condition, None)
            return self._items.popleft()

    def wait(self, until_ns: int | None) -> None:
        """Return when there is an item, at `wake`, or at the time `until_ns`; `None` waits without a limit.

        Blocks: until then. Raises ChannelClosedError when closed and empty.
        """
        with self._condition:
            while not (self._items or self._is_woken):
                if self._is_closed:
                    raise ChannelClosedError(self.name)
                if until_ns is not None and self._clock.now_ns() >= until_ns:
                    return
                self._clock.wait(self._condition, until_ns)
            self._is_woken = False

    def take_all(self) -> list[T]:
        """Take all items. Blocks: no."""
        if not self._items:
            return []
        with self._condition:
            items = list(self._items)
            self._items.clear()
            return items

    @property
    def depth(self) -> int:
        """Items that wait. Blocks: no."""
        return len(self._items)

    @property
    def is_empty(self) -> bool:
        """Whether the channel is empty. For the receiver alone: for it, False stays true until it receives.

        Blocks: no.
        """
        return not self._items

    def close(self) -> None:
        """Refuse new items and let the receiver drain the rest. Idempotent."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
