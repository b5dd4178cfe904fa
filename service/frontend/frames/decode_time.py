"""Estimate of the time to decode a frame of one stream; it cannot outlive the frames that it was learnt from.

A moving average over some frames: it follows a change of picture size within a second of video. Frames that are refused
because of it are never decoded and cannot correct it. So each of them makes it smaller, and once it is FORGOTTEN_NS old
a refused frame discards it: the next frame is decoded and shows the present time, however few frames a second come.

Thread: a worker observes; the event loop's thread and the worker doubt. The attributes are numbers, and losing one of
two simultaneous changes is harmless.
"""

AVERAGE_FRAMES = 8
FORGOTTEN_NS = 500_000_000


class DecodeTime:
    """See the module.

    Attributes:
        mean_ns: time to decode a frame; 0 while it is unknown.
    """

    __slots__ = ("_observed_ns", "mean_ns")

    def __init__(self) -> None:
        self.mean_ns = 0
        self._observed_ns = 0

    def observe(self, started_ns: int, ended_ns: int) -> None:
        """Learn from a frame that was decoded."""
        self.mean_ns += (ended_ns - started_ns - self.mean_ns) // AVERAGE_FRAMES
        self._observed_ns = ended_ns

    def doubt(self, now_ns: int) -> None:
        """Reduce the estimate: a frame was refused because of it."""
        is_old = now_ns - self._observed_ns >= FORGOTTEN_NS
        self.mean_ns = 0 if is_old else self.mean_ns - self.mean_ns // AVERAGE_FRAMES
