"""A bounded, closable hand-over of items from some threads to one receiving thread.

Theory of operation
    A channel is a deque under one condition. `send` waits for space; `send_now` never waits and treats a full channel
    as a bug in the sizing (InvariantError). `close` lets the receiver drain what is there and then
    raises ChannelClosedError in it; senders get ChannelClosedError at once. `wait` and `take_all` empty the channel in
    one go, so that a busy receiver takes the lock once per wake-up and not once per item.

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
        self._waiting_senders = 0

    def send(self, item: T) -> None:
        """Append `item`. Blocks: while the channel is full. Raises ChannelClosedError."""
        with self._condition:
            self._waiting_senders += 1
            while len(self._items) >= self.capacity and not self._is_closed:
                self._clock.wait(self._condition, None)
            self._waiting_senders -= 1
            self._append(item)

    def send_now(self, item: T) -> None:
        """Append `item` to a channel that has space by construction. Blocks: no. Raises InvariantError if full."""
        with self._condition:
            if len(self._items) >= self.capacity and not self._is_closed:
                raise InvariantError(f"channel {self.name} is full at {self.capacity}")
            self._append(item)

    def send_all_now(self, items: Sequence[T]) -> None:
        """Append `items` in order as `send_now` does, with one wake-up for all. All are appended, or none."""
        with self._condition:
            if self._is_closed:
                raise ChannelClosedError(self.name)
            if len(self._items) + len(items) > self.capacity:
                raise InvariantError(f"channel {self.name} is full at {self.capacity}")
            self._items.extend(items)
            self._condition.notify_all()

    def _append(self, item: T, *, is_seen: bool = True) -> None:
        if self._is_closed:
            raise ChannelClosedError(self.name)
        self._items.append(item)
        if is_seen:
            self._condition.notify_all()

    def send_unseen(self, item: T) -> None:
        """Append `item` as `send_now` does, without a wake-up: the caller ensures that it is received."""
        with self._condition:
            if len(self._items) >= self.capacity and not self._is_closed:
                raise InvariantError(f"channel {self.name} is full at {self.capacity}")
            self._append(item, is_seen=False)

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
            item = self._items.popleft()
            self._condition.notify_all()
            return item

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
            if self._waiting_senders:
                self._condition.notify_all()
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
