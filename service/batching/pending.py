"""The pending queue: requests that are admitted and decoded and not yet in a batch.

Theory of operation
    Requests wait in groups, one per (priority level, batch key); a group is a list sorted by order key. The order key
    is the deadline (policy jit_edf) or the instant of arrival (window, eager). On an ordered stream requests keep their
    order of arrival, so a request inherits the earliest key of those behind it on its stream. A request behind one of
    another group of the same stream is *blocked*: it belongs to no group until those before it are gone. Requests of an
    unordered stream, the independent calls of one client, share its fairness counters and nothing else.

    A request without a deadline, or with a distant one, is ordered as if it had one second. So it is neither starved by
    a steady overload of urgent frames nor in front of them. It expires when its own deadline says so, or never.

    Everything here is bookkeeping; `policy` decides which batch runs when, reads the queue and changes nothing.

Owner: the former's thread. Not thread-safe.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence

from forebay_server.service.batching.constants import (
    DELAYED_NS,
    LATEST_NS,
    LONGEST_ORDER_BUDGET_NS,
    NEVER_NS,
)
from forebay_server.service.batching.demand import Demand
from forebay_server.service.batching.endings import Reason
from forebay_server.service.batching.entries import Entry, Group, PendingStream, move
from forebay_server.service.batching.queue_timeouts import QueueTimeouts
from forebay_server.service.batching.remembered_streams import RememberedStreams
from forebay_server.service.batching.settings import BatchingSettings, PolicyName
from forebay_server.service.request import Delivery, Request


class PendingQueue:
    """See the module's theory of operation.

    Args:
        settings: levels, queue policies, and which order applies.
        largest_batch_ns: execution time of the largest batch, the scale of the load averages.
        bound: returns the requests that are bound and not executed yet; they count against `max_queue_size`.

    Attributes:
        entries: all pending requests, by their ids. Others only read it.
    """

    def __init__(
        self, settings: BatchingSettings, largest_batch_ns: float, bound: Callable[[], Iterable[Request]] = tuple
    ) -> None:
        self._settings = settings
        self._bound = bound
        self._is_by_deadline = settings.policy is PolicyName.JIT_EDF
        self.groups: dict[tuple[int, Hashable], Group] = {}
        self.demand = Demand(largest_batch_ns)
        self.batches_taken = 0
        self.blocked_entries = 0
        self.entries: dict[int, Entry] = {}
        self.timeouts = QueueTimeouts(settings, self.entries)
        self._streams = RememberedStreams(self.demand)
        self._level_counts: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, request_id: int) -> bool:
        return request_id in self.entries

    @property
    def rows(self) -> int:
        """Rows of the requests in groups: those that the next batch can be made of."""
        rows = 0
        for group in self.groups.values():
            rows += group.rows
        return rows

    @property
    def streams(self) -> int:
        """Streams remembered, for leak tests."""
        return len(self._streams)

    @property
    def waiting_streams(self) -> int:
        """Streams that have requests waiting. Thread: any, for metrics; the streams are copied in one step."""
        return sum(bool(stream.entries) for stream in list(self._streams))

    # --- in -----------------------------------------------------------------------------------------------------------

    def push(self, request: Request, now_ns: int) -> list[tuple[Request, Reason]]:
        """Add a request; return those that end because of it (it may be the one)."""
        settings = self._settings
        if request.size > settings.max_batch_size:
            return [(request, Reason.TOO_LARGE)]
        stream = self._streams.arrived_on(request.stream, now_ns)
        self.demand.offer(stream.share, request.size, now_ns)
        ended = self._supersede(stream, newcomers=1)
        level = settings.level_of(request.priority)
        limit = settings.queue_policy_of(level).max_queue_size
        if limit and self._waiting_on(level) >= limit:
            return [*ended, (request, Reason.QUEUE_FULL)]
        self._add(Entry(request, stream, level, self._own_key(request)))
        return ended

    def _waiting_on(self, level: int) -> int:
        """Return how many requests of a level are not executed yet."""
        level_of = self._settings.level_of
        return self._level_counts.get(level, 0) + sum(level_of(bound.priority) == level for bound in self._bound())

    def _own_key(self, request: Request) -> int:
        if not self._is_by_deadline:
            return request.arrival_ns
        latest_ns = request.arrival_ns + LONGEST_ORDER_BUDGET_NS
        return latest_ns if request.deadline_ns is None else min(request.deadline_ns, latest_ns)

    def _supersede(self, stream: PendingStream, newcomers: int) -> list[tuple[Request, Reason]]:
        """End the requests of a LATEST stream that newer ones replace once `newcomers` have come: one is kept."""
        if stream.key.delivery is not Delivery.LATEST:
            return []
        ended = []
        while len(stream.waiting) + newcomers > 1:
            oldest = stream.waiting[0]
            self._remove(oldest)
            ended.append((oldest.request, Reason.SUPERSEDED))
        return ended

    def _add(self, entry: Entry) -> None:
        stream, level, group_key = entry.ordered_stream, entry.level, (entry.level, entry.request.batch_key)
        entry.stream.entries += 1
        self.entries[entry.id] = entry
        self._level_counts[level] = self._level_counts.get(level, 0) + 1
        self.timeouts.watch(entry)
        previous = None
        if stream is not None:
            previous = stream.waiting[-1] if stream.waiting else None
            stream.waiting.append(entry)
        if stream is not None and previous is not None and self._is_blocked_by(previous, group_key):
            entry.is_blocked = True
            stream.blocked_entries += 1
            self.blocked_entries += 1
        else:
            self._group(group_key).add(entry)
        if stream is not None and previous is not None and entry.order_key < previous.order_key:
            self._inherit_keys(stream)

    def _is_blocked_by(self, previous: Entry, group_key: tuple[int, Hashable]) -> bool:
        return previous.is_blocked or (previous.level, previous.request.batch_key) != group_key

    def _group(self, key: tuple[int, Hashable]) -> Group:
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group(*key)
        return group

    def _inherit_keys(self, stream: PendingStream) -> None:
        """Give every waiting entry the smallest key of itself and those behind it."""
        smallest = NEVER_NS << 1
        for entry in reversed(stream.waiting):
            smallest = min(smallest, entry.own_key)
            if entry.order_key != smallest:
                move(entry, smallest)

    # --- out ----------------------------------------------------------------------------------------------------------

    def take(self, ids: Iterable[int], now_ns: int) -> list[Request]:
        """Take the requests of a batch out, in the order of `ids`."""
        entries = [self.entries[request_id] for request_id in ids]
        for entry in entries:
            self._remove(entry)
        self.demand.serve([(entry.stream.share, entry.rows) for entry in entries], now_ns)
        self.batches_taken += 1
        return [entry.request for entry in entries]

    def put_back(self, requests: Sequence[Request], now_ns: int) -> list[tuple[Request, Reason]]:
        """Take in again what was in batches that were taken back, in order of forming; return those that end by it.

        Each stands where it stood: on an ordered stream among the others in order of arrival, since a batch of an
        earlier frame may have been taken back from another lane. A LATEST stream may have newer requests by now. A
        request returns to its level even if the level is full.
        """
        entries: list[Entry] = []
        for request in requests:
            stream = self._streams.get(request.stream, now_ns)
            self.demand.take_back(stream.share, request.size, now_ns)
            level = self._settings.level_of(request.priority)
            entries.append(Entry(request, stream, level, self._own_key(request)))
        streams = dict.fromkeys(entry.ordered_stream for entry in entries if entry.ordered_stream is not None)
        for stream in streams:
            for entry in tuple(stream.waiting):
                self._remove(entry)
                entries.append(entry)
        for entry in sorted(entries, key=lambda entry: entry.id):
            entry.is_blocked = False
            entry.order_key = entry.own_key
            self._add(entry)
        return [ending for stream in streams for ending in self._supersede(stream, newcomers=0)]

    def discard(self, request_id: int) -> Request | None:
        """Take one request out without serving it; None if it is not here."""
        entry = self.entries.get(request_id)
        if entry is None:
            return None
        self._remove(entry)
        return entry.request

    def clear(self) -> list[Request]:
        """Take everything out, in order of arrival."""
        requests = [self.entries[request_id].request for request_id in sorted(self.entries)]
        self.groups.clear()
        self.entries.clear()
        self._streams.clear()
        self._level_counts.clear()
        self.timeouts.clear()
        self.blocked_entries = 0
        return requests

    def _remove(self, entry: Entry) -> None:
        entry.stream.entries -= 1
        del self.entries[entry.id]
        level = entry.level
        if self._level_counts[level] == 1:
            del self._level_counts[level]  # a client chooses the level: empty levels must not add up
        else:
            self._level_counts[level] -= 1
        group = entry.group
        if group is not None:
            group.remove(entry)
            if not group.queue:
                del self.groups[(group.level, group.batch_key)]
        if entry.ordered_stream is not None:
            self._leave(entry.ordered_stream, entry)

    def _leave(self, stream: PendingStream, entry: Entry) -> None:
        """Take an entry out of its ordered stream, and let those behind it move up."""
        waiting = stream.waiting
        is_head = waiting[0] is entry
        if is_head:
            waiting.popleft()
        else:
            waiting.remove(entry)
        if entry.is_blocked:
            stream.blocked_entries -= 1
            self.blocked_entries -= 1
        if not is_head:
            self._inherit_keys(stream)
        if stream.blocked_entries:
            self._release_blocked(stream)

    def _release_blocked(self, stream: PendingStream) -> None:
        """Let the leading run of one group take part."""
        if not stream.waiting:
            return
        first = stream.waiting[0]
        run_key = first.level, first.request.batch_key
        for entry in stream.waiting:
            if (entry.level, entry.request.batch_key) != run_key:
                return
            if entry.is_blocked:
                entry.is_blocked = False
                stream.blocked_entries -= 1
                self.blocked_entries -= 1
                self._group(run_key).add(entry)

    # --- time ---------------------------------------------------------------------------------------------------------

    def deadline_ns(self, request: Request) -> int:
        """Return the deadline of a request, pending or not; NEVER_NS for none, or if the policy knows no deadlines."""
        if request.deadline_ns is None or not self._is_by_deadline:
            return NEVER_NS
        return min(request.deadline_ns, LATEST_NS)

    def time_out(self, now_ns: int) -> list[tuple[Request, Reason]]:
        """Apply the queue policies: return rejected requests; delayed ones move behind the rest of their level."""
        ended = []
        while (next_ns := self.timeouts.next_ns) is not None and next_ns <= now_ns:
            entry = self.timeouts.pop()
            if self.timeouts.is_rejecting(entry.level):
                self._remove(entry)
                ended.append((entry.request, Reason.TIMED_OUT))
            else:
                entry.own_key = DELAYED_NS + entry.arrival_ns
                if entry.ordered_stream is None:
                    move(entry, entry.own_key)
                else:
                    self._inherit_keys(entry.ordered_stream)
        return ended

    def blocked(self) -> Sequence[Entry]:
        """Entries that belong to no group yet; empty unless a stream mixes batch keys or priorities."""
        return [e for s in self._streams if s.blocked_entries for e in s.waiting if e.is_blocked]
