"""Reads the time that passed between two captures, from a clock that is the client's and may be wrong."""

LONGEST_NS = 3600 * 10**9
"""Longer gaps count as this one: every track has ended by then (`keep_s` is at most a minute)."""
LONGEST_USUAL_NS = 10**9
"""Limit of the interval that stands in for an unknown one; a camera of one frame a second is still covered."""
EARLIEST_NS, LATEST_NS = -(2**63), 2**63 - 1


def within_range(capture_ns: int) -> int:
    """Return a capture time as a signed 64-bit integer; times beyond count as the nearest one."""
    return min(max(int(capture_ns), EARLIEST_NS), LATEST_NS)


def elapsed_ns(last_ns: int | None, capture_ns: int, usual_ns: int) -> int:
    """Return the time to predict over, 0 to `LONGEST_NS`.

    Args:
        last_ns: capture time of the last update, None at the first.
        capture_ns: of this update.
        usual_ns: interval between the last two captures whose order was right.
    """
    if last_ns is None:
        return 0
    if capture_ns < last_ns:  # the clock was set back: the true interval is unknown, the usual one the best guess
        return usual_ns
    return min(capture_ns - last_ns, LONGEST_NS)


def usual_interval_ns(last_ns: int | None, capture_ns: int, usual_ns: int) -> int:
    """Return the usual interval after this update; arguments as of `elapsed_ns`."""
    if last_ns is None or capture_ns <= last_ns:
        return usual_ns
    return min(capture_ns - last_ns, LONGEST_USUAL_NS)
