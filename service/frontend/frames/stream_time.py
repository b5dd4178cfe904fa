"""The time of a stream's frames, as its tracker sees it. Pure; one owner.

A client stamps frames with a clock of its own. The tracker needs the time between two frames, and a stamp may be
missing, wrong, or in another unit. So each step is taken from the stamps if it is plausible beside the time between the
two arrivals, else from the arrivals.
"""

MOST_BEHIND_NS = 2_000_000_000
"""By which frames may arrive closer together than they were captured. Tracks end after 1 s unseen, so that a longer
step makes no difference, and a stamp in nanoseconds is a thousand times too large."""
MOST_STALLED = 500
"""Times by which frames may arrive further apart than they were captured: a stall of the network of 16 s at 30 frames a
second. A stamp in milliseconds is a thousand times too small."""


class StreamTime:
    """Turns stamps and arrivals into one time in nanoseconds, which never goes back.

    It begins at the first stamp, and equals the stamps as long as all are plausible: so it goes on at another server.
    """

    def __init__(self) -> None:
        self._last: tuple[int, int] | None = None  # stamp and arrival, ns
        self._now_ns = 0

    def read(self, capture_time_us: int, received_ns: int) -> int:
        """Return the time of the next frame.

        Args:
            capture_time_us: the client's stamp, any value.
            received_ns: arrival on the server's monotonic clock.
        """
        captured_ns = capture_time_us * 1000
        if self._last is None:
            self._now_ns = captured_ns
        else:
            captured_step_ns, arrived_step_ns = captured_ns - self._last[0], max(0, received_ns - self._last[1])
            is_plausible = 0 < captured_step_ns <= arrived_step_ns + MOST_BEHIND_NS
            is_plausible &= arrived_step_ns <= captured_step_ns * MOST_STALLED
            self._now_ns += captured_step_ns if is_plausible else arrived_step_ns
        self._last = captured_ns, received_ns
        return self._now_ns
