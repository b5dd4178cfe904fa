"""How far the front end is behind, and which frames are refused because of it.

Theory of operation
    When frames come faster than the host can read and answer them, they wait where no queue of ours shows it: in
    sockets, in gRPC's thread, and for their turn on the event loop. A server that reads on as ever then reads every
    frame too late, and none is in time. What shows is the lag: how long it takes to write an answer, from handing it to
    gRPC until the event loop knows that it is done. It passes all the places where frames wait, in both directions.

    Where the lag takes a large part of a frame's budget, a share of the frames is refused as soon as they are read,
    OVERLOADED, with the advice to send the next one some budgets later. Clients that follow it send less, and what they
    send is read in time. Refusing more with less advice would cost more: a refused frame was read in vain. The share is
    the same for all streams. A frame without a deadline cannot be late and is never refused here.

    The lag must not stop the server for ever. Whatever it is, `LEAST_ADMITTED` of the frames get through: their
    answers measure it anew, also where clients ignore the advice or something else holds up the loop. It is a moving
    average over about `AVERAGE_NS`, one answer counts little, and after `SILENCE_NS` without any nothing is known. So a
    client that takes its answers slowly, which looks the same, weighs as much as its few answers do.

Owner: the event loop's thread.
"""

from forebay_server.service.errors import OverloadedError

TOLERATED = 1 / 18  # of a budget: a longer lag has frames refused; a frame waits several times so long on its way
TOLERATED_NS = 5_000_000  # whatever the budget: threads that share an interpreter make a loop wait so long at times
RISE = 1 / 12  # of a budget: so much more, and as many frames are refused as ever
LEAST_ADMITTED = 3 / 4  # of the frames: a refused one was read in vain, so few are refused, with advice that counts
ADVICE = 3  # budgets: a quarter of a stream of 30 fps refused makes it one of 11 fps
LONGEST_ADVICE_MS = 1000
AVERAGE_NS = 100_000_000  # about a budget: longer than a batch, shorter than what a user sees
MOST_WEIGHT = 1 / 8  # of one answer: a single stall of the loop is no overload
LONGEST_NS = 100_000_000  # of one answer: its client may be slow, which is nothing that others wait for
SILENCE_NS = 1_000_000_000


class Lag:
    """See the module's theory of operation."""

    def __init__(self) -> None:
        self._mean_ns = 0.0
        self._observed_ns = 0

    def observe(self, took_ns: int, now_ns: int) -> None:
        """Note how long the writing of an answer has taken, until the event loop knew that it is done."""
        since_ns = now_ns - self._observed_ns
        if since_ns > SILENCE_NS:
            self._mean_ns = 0.0
        self._mean_ns += (min(took_ns, LONGEST_NS) - self._mean_ns) * min(since_ns / AVERAGE_NS, MOST_WEIGHT)
        self._observed_ns = now_ns

    def refused_share(self, budget_ns: int, now_ns: int) -> float:
        """Return which share of the frames with this budget is refused, 0 to 1 - LEAST_ADMITTED."""
        excess_ns = self._mean_ns - max(TOLERATED * budget_ns, TOLERATED_NS)
        if excess_ns <= 0.0 or now_ns - self._observed_ns > SILENCE_NS:
            return 0.0
        return min(excess_ns / max(RISE * budget_ns, 1.0), 1.0) * (1.0 - LEAST_ADMITTED)


class Gate:
    """Refuses one stream's frames while the front end is behind: every eighth one for a share of an eighth.

    Args:
        lag: of the front end, the same for all streams.
    """

    __slots__ = ("_owed", "lag")

    def __init__(self, lag: Lag) -> None:
        self.lag = lag
        self._owed = 0.0  # frames to be refused, of which whole ones are

    def check(self, budget_ns: int | None, now_ns: int) -> None:
        """Let a frame pass. Raises OverloadedError."""
        if budget_ns is None:
            return
        share = self.lag.refused_share(budget_ns, now_ns)
        if share == 0.0:
            self._owed = 0.0  # an overload that is over costs nothing later
            return
        self._owed += share
        if self._owed >= 1.0:
            self._owed -= 1.0
            raise OverloadedError(
                "the server cannot read and answer as fast as frames come; send fewer or slower",
                retry_after_ms=min(max(1, ADVICE * budget_ns // 1_000_000), LONGEST_ADVICE_MS),
            )
