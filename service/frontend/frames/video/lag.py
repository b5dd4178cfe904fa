"""How much of a LATEST stream is decoded while its decoding lags. Pure.

Theory of operation
    A unit lags by the time for which it waited for a worker. A stream that lags cannot decode faster, only less:

    1. Beyond half a budget, units that no other picture needs are left out before decoding. Nothing else is lost.
    2. Beyond three quarters of a budget a unit is *late*. A stream whose units have all been late for PATIENCE_NS gives
       up the rest of its group of pictures, to go on at the next keyframe. So the burst after a short stall of the
       network is decoded through, although its frames are late.

    A stream that has given up a group is overloaded. Then it gives up the next one much sooner: once its units were
    late for half a budget, and waits have not got shorter by half of the time since. Decoding frames that come too late
    takes the cores from frames of other streams that could be in time. Where waits get shorter, the cores were away for
    a moment, or other streams have given up already. Waits that stay the same count like ones that grow: cores that
    just keep up with late units would decode nothing else for ever.

    An overloaded stream begins a group only at a keyframe that waited less than a quarter of a budget: streams that are
    within a group come first, and a group that is begun in vain costs its keyframe, ten times the bytes of others. But
    FORGOTTEN_NS after it began a group it begins another one, so that a stream whose units always wait decodes some.

    All that is learnt is two times, which count for FORGOTTEN_NS.

Owner: the worker that has the stream's turn.
"""

import enum

PATIENCE_NS = 300_000_000  # 30 units of 1280x720, the burst after a stall of a second, take 100 to 200 ms to decode
LEAST_LATE_NS = 50_000_000  # less is jitter where two cores serve thirty streams
LEAST_SKIP_NS = 25_000_000  # units that wait less are decoded in any case, keyframes too
FORGOTTEN_NS = 10_000_000_000  # so long an overload is expected to come back: the longest usual group of pictures


class Effort(enum.Enum):
    """The units of a stream that are decoded."""

    ALL = "all"
    NEEDED = "needed"  # those that other pictures need
    NONE = "none"  # the rest of the group is given up


class Lag:
    """See the module.

    Args:
        budget_ns: the stream's latency budget; 0 without one.
    """

    __slots__ = (
        "_began_ns",
        "_begin_ns",
        "_first_late_ns",
        "_gave_up_ns",
        "_late_ns",
        "_late_since_ns",
        "_short_ns",
        "_skip_ns",
    )

    def __init__(self, budget_ns: int) -> None:
        self._skip_ns = max(LEAST_SKIP_NS, budget_ns // 2)
        self._begin_ns = max(LEAST_SKIP_NS, budget_ns // 4)
        self._late_ns = max(LEAST_LATE_NS, budget_ns * 3 // 4)
        self._short_ns = max(LEAST_LATE_NS, budget_ns // 2)  # the patience under overload
        self._late_since_ns: int | None = None  # None: the latest unit was not late
        self._first_late_ns = 0  # for which the first of the late units waited
        self._gave_up_ns: int | None = None
        self._began_ns = 0  # the latest group

    def effort(self, waited_ns: int, now_ns: int, *, is_keyframe: bool) -> Effort:
        """Return how much is decoded from a unit on, which can be decoded. It counts as given up if that is NONE.

        Args:
            waited_ns: time from its arrival until now, when a worker has taken it.
            now_ns: this time.
            is_keyframe: whether decoding may begin at it.
        """
        if waited_ns <= self._late_ns:
            self._late_since_ns = None
        elif self._late_since_ns is None:
            self._late_since_ns, self._first_late_ns = now_ns, waited_ns
        if self._gives_up_keyframe(waited_ns, now_ns) if is_keyframe else self._gives_up(waited_ns, now_ns):
            self._gave_up_ns, self._late_since_ns = now_ns, None
            return Effort.NONE
        return Effort.NEEDED if waited_ns > self._skip_ns else Effort.ALL

    def _gives_up(self, waited_ns: int, now_ns: int) -> bool:
        if self._late_since_ns is None:
            return False
        late_for_ns = now_ns - self._late_since_ns
        is_shorter = waited_ns < self._first_late_ns - late_for_ns // 2
        is_short_of_patience = self._is_overloaded(now_ns) and not is_shorter and late_for_ns >= self._short_ns
        return is_short_of_patience or late_for_ns >= PATIENCE_NS

    def _gives_up_keyframe(self, waited_ns: int, now_ns: int) -> bool:
        is_recent = now_ns - self._began_ns < FORGOTTEN_NS
        if waited_ns > self._begin_ns and is_recent and self._is_overloaded(now_ns):
            return True
        self._began_ns = now_ns
        return False

    def _is_overloaded(self, now_ns: int) -> bool:
        return self._gave_up_ns is not None and now_ns - self._gave_up_ns < FORGOTTEN_NS
