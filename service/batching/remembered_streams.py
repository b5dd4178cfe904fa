"""The streams that the pending queue remembers: those with requests, and silent ones for as long as their shares count.

Owner: the former's thread. Not thread-safe. Part of `PendingQueue`.
"""

from collections.abc import Iterator

from forebay_server.service.batching.constants import MAX_IDLE_STREAMS
from forebay_server.service.batching.demand import Demand
from forebay_server.service.batching.entries import PendingStream
from forebay_server.service.request import StreamKey


class RememberedStreams:
    """See the module. Iterates over the streams.

    Args:
        demand: gives shares to new streams, and says when a share means nothing any more.

    Attributes:
        by_key: the streams.
    """

    def __init__(self, demand: Demand) -> None:
        self._demand = demand
        self.by_key: dict[StreamKey, PendingStream] = {}
        self._next_sweep_ns = 0
        self._crowd = MAX_IDLE_STREAMS

    def __len__(self) -> int:
        return len(self.by_key)

    def __iter__(self) -> Iterator[PendingStream]:
        return iter(self.by_key.values())

    def arrived_on(self, key: StreamKey, now_ns: int) -> PendingStream:
        """Return the stream of a request that arrives; now and then, forget others."""
        if now_ns >= self._next_sweep_ns or len(self.by_key) >= self._crowd:
            self._sweep(now_ns)
        stream = self.by_key.get(key)
        return self.get(key, now_ns) if stream is None else stream

    def get(self, key: StreamKey, now_ns: int) -> PendingStream:
        """Return a stream, from now on remembered."""
        stream = self.by_key.get(key)
        if stream is None:
            stream = self.by_key[key] = PendingStream(key, self._demand.join(now_ns, key.weight))
        return stream

    def clear(self) -> None:
        """Forget all."""
        self.by_key.clear()

    def _sweep(self, now_ns: int) -> None:
        """Forget streams that have been silent for long; and if there are many, the more silent half."""
        is_crowded = len(self.by_key) >= self._crowd
        self._next_sweep_ns = now_ns + Demand.MEMORY_NS
        idle = sorted((s for s in self if not s.entries), key=lambda s: s.share.touched_ns)
        waiting = len(self.by_key) - len(idle)  # bounded by permits
        half = len(idle) // 2 if is_crowded else 0
        for index, stream in enumerate(idle):
            if index < half or self._demand.is_forgotten(stream.share, now_ns):
                del self.by_key[stream.key]
        self._crowd = MAX_IDLE_STREAMS + 2 * waiting
