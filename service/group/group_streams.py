"""The open streams of the other front-end processes: `max_streams` is the limit of all together.

Each process writes its number where the others read it, without a lock. Of processes that admit a stream at the same
moment each but the first may exceed the limit by one.

Owner: the event loop's thread.
"""

from forebay_server.service.group.shared_counts import StreamCounts


class GroupStreams:
    """Implements `service.frontend.stream_call.OtherStreams`.

    Args:
        counts: of all front-end processes.
        front_end: index of this one.
    """

    def __init__(self, counts: StreamCounts, front_end: int) -> None:
        self._counts = counts
        self._front_end = front_end
        counts.write(front_end, 0)  # the one before this has died

    def count(self) -> int:
        """Return how many streams are open in the other processes."""
        return self._counts.total() - self._counts.read(self._front_end)

    def note(self, own: int) -> None:
        """Show how many are open in this one."""
        self._counts.write(self._front_end, own)
