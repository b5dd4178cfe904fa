"""The parts of the pending queue: entries, the groups in which they wait, and the streams that they came on.

Owner: the former's thread. Written by `PendingQueue` alone.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Hashable
from typing import NamedTuple

from forebay_server.service.batching.constants import LATEST_NS, NEVER_NS
from forebay_server.service.batching.demand import StreamShare
from forebay_server.service.request import Request, StreamKey


class Entry:
    """One pending request, and where it stands. Written by `PendingQueue` alone.

    Attributes:
        level: its priority level.
        order_key: where it stands now, from its own key and those behind it on its stream.
        own_key: where it would stand alone.
        stream: whose fairness counters it moves.
        ordered_stream: the stream if it is ordered, else None: this entry must not overtake the others on it.
    """

    __slots__ = (
        "arrival_ns", "deadline_ns", "group", "id", "is_blocked", "level", "order_key", "ordered_stream", "own_key",
        "request", "rows", "stream",
    )  # fmt: skip

    def __init__(self, request: Request, stream: "PendingStream", level: int, own_key: int) -> None:
        self.request = request
        self.id = request.id
        self.rows = request.size
        self.level = level
        self.arrival_ns = request.arrival_ns
        self.deadline_ns = NEVER_NS if request.deadline_ns is None else min(request.deadline_ns, LATEST_NS)
        self.own_key = self.order_key = own_key
        self.stream = stream
        self.ordered_stream = stream if stream.key.is_ordered else None
        self.group: Group | None = None
        self.is_blocked = False


class QueueItem(NamedTuple):
    """An entry in the order of its group; compares by key, then by order of arrival."""

    order_key: int
    id: int
    entry: Entry


class Group:
    """Requests that may share a batch: one priority level, one batch key.

    Attributes:
        queue: in order.
        rows: sum of their sizes.
        multi_row_entries: entries of more than one row.
        unlimited_entries: entries without a deadline.
        early_entries: entries whose order key is before their deadline, those without one among them.
        delayed_entries: entries whose order key is after their deadline.
    """

    __slots__ = (
        "batch_key",
        "delayed_entries",
        "early_entries",
        "level",
        "multi_row_entries",
        "queue",
        "rows",
        "unlimited_entries",
    )  # fmt: skip

    def __init__(self, level: int, batch_key: Hashable) -> None:
        self.level = level
        self.batch_key = batch_key
        self.queue: list[QueueItem] = []
        self.rows = 0
        self.multi_row_entries = 0
        self.unlimited_entries = 0
        self.early_entries = 0
        self.delayed_entries = 0

    def add(self, entry: Entry) -> None:
        """Put `entry` in its place."""
        insort(self.queue, QueueItem(entry.order_key, entry.id, entry))
        self._count(entry, 1)
        entry.group = self

    def remove(self, entry: Entry) -> None:
        """Take `entry` out."""
        position = bisect_left(self.queue, (entry.order_key, entry.id))
        del self.queue[position]
        self._count(entry, -1)
        entry.group = None

    def _count(self, entry: Entry, step: int) -> None:
        self.rows += step * entry.rows
        self.multi_row_entries += step * (entry.rows > 1)
        self.unlimited_entries += step * (entry.deadline_ns == NEVER_NS)
        self.early_entries += step * (entry.order_key < entry.deadline_ns)
        self.delayed_entries += step * (entry.order_key > entry.deadline_ns)


class PendingStream:
    """One stream's place in the queue and its counted service.

    Attributes:
        share: how it was served.
        entries: how many of its requests are pending.
        waiting: the pending entries of an ordered stream in order of arrival; always empty for an unordered one.
    """

    __slots__ = ("blocked_entries", "entries", "key", "share", "waiting")

    def __init__(self, key: StreamKey, share: StreamShare) -> None:
        self.key = key
        self.share = share
        self.entries = 0
        self.waiting: deque[Entry] = deque()
        self.blocked_entries = 0


def move(entry: Entry, order_key: int) -> None:
    """Give a waiting entry another place in its group, if it is in one."""
    group = entry.group
    if group is not None:
        group.remove(entry)
    entry.order_key = order_key
    if group is not None:
        group.add(entry)
