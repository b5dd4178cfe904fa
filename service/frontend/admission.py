"""The only way in: a frame or call that a protocol has read becomes a request of the batch former, or is refused.

Theory of operation
    A protocol checks what only it can check and fills in an `Arrival`. `take` looks whether the deadline can be met,
    has a permit and a buffer taken, and returns the request. `enter` hands the request to the former. Between the two
    a worker may decode the inputs into the buffer; `give_up` ends a request that does not come so far.

    Each frame and call for a version counts once (`service.journal.statistics`). The former counts what was entered.
    A request that ends earlier is counted by `refuse` or `give_up`, and by nothing else, for frames as for requests.

Thread: the event loop's, except where a method says otherwise.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from forebay_server.service.clock import Clock
from forebay_server.service.errors import DeadlineExpiredError, Outcome
from forebay_server.service.journal.events import RequestJournal, TraceContext
from forebay_server.service.models.served import ServedVersion
from forebay_server.service.request import (
    Completion,
    FrameBuffer,
    Request,
    StreamKey,
    Timeline,
    next_request_id,
)
from forebay_server.service.results.wants import Wants


@dataclass(slots=True)
class Arrival:
    """A frame or call that was read and found to be right, in no protocol's terms.

    Attributes:
        version: runs it.
        stream: the stream that it belongs to.
        rows: 1 for a frame.
        batch_key: it shares batches with arrivals of an equal key.
        deadline_ns: instant; None for no deadline.
        priority: 1 is the most urgent.
        fill: takes a permit and a buffer, and puts the inputs into the buffer unless a worker does so later. Raises
            ServiceError; holds nothing then.
        on_completion: called once, on the event loop, if it was entered.
        timeline: with `received_ns`; the request's from here on.
        wants: the contents of the result.
        frame_size: (width, height) in pixels of a picture; (0, 0) for tensors and where only decoding shows it.
        queue_timeout_ns: longest time in the queue; None for no limit.
        decode_ns: expected duration of the work that a worker has to do first.
    """

    version: ServedVersion
    stream: StreamKey
    rows: int
    batch_key: Hashable
    deadline_ns: int | None
    priority: int
    fill: Callable[[], FrameBuffer]
    on_completion: Callable[[Completion], None]
    timeline: Timeline
    wants: Wants
    frame_size: tuple[int, int] = (0, 0)
    queue_timeout_ns: int | None = None
    decode_ns: int = 0


class Admission:
    """See the module's theory of operation.

    Args:
        clock: source of monotonic nanoseconds.
        settle: delivers the completions that have been posted.

    Attributes:
        settle: called before a client's requests are cancelled: those that have ended count as they ended.
    """

    def __init__(self, clock: Clock, settle: Callable[[], object] = lambda: None) -> None:
        self.settle = settle
        self._clock = clock

    def take(self, arrival: Arrival, too_late: str) -> Request:
        """Return the request of an arrival, which holds a permit and a buffer. `enter` or `give_up` follows.

        Raises:
            DeadlineExpiredError: its deadline cannot be met; `too_late` says so to the client.
            ServiceError: from `arrival.fill`.
        """
        now_ns = self._clock.now_ns()
        if arrival.version.feasibility.is_hopeless(now_ns, arrival.deadline_ns, arrival.decode_ns):
            raise DeadlineExpiredError(too_late)
        frame = arrival.fill()
        timeline = arrival.timeline
        timeline.validated_ns = now_ns
        return Request(
            next_request_id(),
            arrival.stream,
            arrival.rows,
            arrival.batch_key,
            arrival.deadline_ns,
            timeline.received_ns,
            arrival.priority,
            frame,
            arrival.on_completion,
            arrival.wants,
            arrival.queue_timeout_ns,
            arrival.frame_size,
            timeline,
        )

    def enter(self, version: ServedVersion, request: Request) -> None:
        """Hand a request, inputs in its buffer, to the former."""
        request.timeline.admitted_ns = self._clock.now_ns()
        try:
            version.arrive_on_loop(request)
        except BaseException:
            request.frame.release()
            raise

    def enter_decoded(self, version: ServedVersion, request: Request, now_ns: int) -> None:
        """Hand over a request whose inputs a worker has put into its buffer. Thread: any."""
        request.timeline.admitted_ns = now_ns
        version.arrive(request)

    def give_up(self, version: ServedVersion, request: Request, outcome: Outcome) -> None:
        """End a request that was taken and will not be entered: give its buffer back and count it. Thread: any."""
        request.frame.release()
        version.statistics.refuse(Outcome.CANCELLED if request.is_cancelled else outcome, request.arrival_ns)

    def refuse(
        self,
        version: ServedVersion,
        outcome: Outcome,
        received_ns: int,
        journal: RequestJournal | None = None,
        trace: TraceContext | None = None,
    ) -> None:
        """Count what was read for a version and ended before it became a request.

        Args:
            version: it was read for.
            outcome: how it ended.
            received_ns: when it was read.
            journal: receives the record now; None if the caller records it later, when the answer leaves.
            trace: that its client sent.
        """
        version.statistics.refuse(outcome, received_ns)
        if journal is not None:
            journal.refused(received_ns, outcome, trace)


def cancel(version: ServedVersion, requests: list[Request]) -> None:
    """Give up requests whose client has gone; those in a batch run on and are dropped when they come back."""
    # Only those that hold a permit, which bounds the former's inbox; one that has just ended needs nothing.
    waiting = [request for request in requests if not (request.is_cancelled or request.frame.is_released)]
    for request in requests:
        request.is_cancelled = True
    if waiting:
        version.cancel(waiting)
