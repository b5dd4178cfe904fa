"""Whether work may run at once, where it came in, instead of on its own thread: as long as it turns out short. Pure.

Long runs in a row send the work back to its thread for a while. Then one run is tried again: the runs may have been
long because the machine was busy. `service.pipeline.inline_runner` tells which work this is.

Owner: one thread at a time.
"""

from forebay_server.service.batching.constants import LONG_RUNS, REST_NS


class ShortRuns:
    """See the module.

    Args:
        long_ns: the duration from which a run is long.
    """

    __slots__ = ("_long_ns", "_long_runs", "_rests_until_ns")

    def __init__(self, long_ns: int) -> None:
        self._long_ns = long_ns
        self._long_runs = 0
        self._rests_until_ns = 0

    def may_run(self, now_ns: int) -> bool:
        """Whether the next run may be at once."""
        return now_ns >= self._rests_until_ns

    def observe(self, took_ns: int, ended_ns: int) -> None:
        """Learn from one run: its duration, and the time of its end."""
        if took_ns < self._long_ns:
            self._long_runs = 0
            return
        self._long_runs += 1
        if self._long_runs == LONG_RUNS:
            self._long_runs = LONG_RUNS - 1  # another long one and it rests again
            self._rests_until_ns = ended_ns + REST_NS
