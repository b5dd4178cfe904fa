"""When queue timeouts pass: those of Triton's queue policies, and those that requests bring.

Kept as a heap of instants. A request that leaves the queue earlier stays in the heap until it is at the top, or until
most of the heap is so: a timeout may be years away while others keep the top.

Owner: the former's thread. Not thread-safe. Part of `PendingQueue`, which acts when a timeout passes.
"""

import heapq
from collections.abc import Iterable, Mapping

from forebay_server.service.batching.constants import LATEST_NS, NEVER_NS, SPARE_INSTANTS
from forebay_server.service.batching.entries import Entry
from forebay_server.service.batching.settings import BatchingSettings, PolicyName, TimeoutAction
from forebay_server.service.request import Request


class QueueTimeouts:
    """See the module.

    Args:
        settings: the queue policies.
        entries: the pending requests by id; read only.
    """

    def __init__(self, settings: BatchingSettings, entries: Mapping[int, Entry]) -> None:
        self._settings = settings
        self._entries = entries
        self._has_default = settings.has_default_timeout
        self._instants: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._instants)

    def watch(self, entry: Entry) -> None:
        """Remember the timeout of a pending entry, if it has one."""
        if not (self._has_default or entry.request.queue_timeout_ns):
            return
        instant_ns = self._instant_ns(entry.request, entry.level)
        if instant_ns == NEVER_NS:
            return
        if len(self._instants) > 2 * len(self._entries) + SPARE_INSTANTS:
            self._instants = sorted({each for each in self._instants if each[1] in self._entries})
        heapq.heappush(self._instants, (instant_ns, entry.id))

    @property
    def next_ns(self) -> int | None:
        """The next instant at which a queue timeout of a pending entry passes."""
        while self._instants and self._instants[0][1] not in self._entries:
            heapq.heappop(self._instants)
        return self._instants[0][0] if self._instants else None

    def pop(self) -> Entry:
        """Take out the entry whose timeout `next_ns` is."""
        return self._entries[heapq.heappop(self._instants)[1]]

    def clear(self) -> None:
        """Forget all."""
        self._instants.clear()

    def is_rejecting(self, level: int) -> bool:
        """Whether a request of `level` is rejected when its timeout passes; else it is moved back."""
        return self._settings.queue_policy_of(level).timeout_action is TimeoutAction.REJECT

    def first_rejection_ns(self, requests: Iterable[Request]) -> int:
        """Return when the first of `requests` is rejected by its timeout, pending or not; NEVER_NS for none."""
        first_ns = NEVER_NS
        for request in requests:
            if self._has_default or request.queue_timeout_ns:
                level = self._settings.level_of(request.priority)
                if self.is_rejecting(level):
                    first_ns = min(first_ns, self._instant_ns(request, level))
        return first_ns

    def _instant_ns(self, request: Request, level: int) -> int:
        timeout_ns = self._timeout_ns(request, level)
        return min(request.arrival_ns + timeout_ns, LATEST_NS) if timeout_ns else NEVER_NS

    def _timeout_ns(self, request: Request, level: int) -> int:
        """Return a duration, 0 for none."""
        policy = self._settings.queue_policy_of(level)
        default_ns = policy.default_timeout_us * 1000
        wished_ns = request.queue_timeout_ns or 0
        if self._settings.policy is PolicyName.WINDOW:  # as Triton: only an allowed, shorter wish counts
            return wished_ns if policy.allow_timeout_override and 0 < wished_ns < default_ns else default_ns
        return min(default_ns, wished_ns) if default_ns and wished_ns else default_ns or wished_ns
