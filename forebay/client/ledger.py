"""The ledger of one stream: every offered frame has exactly one Result, in order.

Theory of operation
    A frame is QUEUED, then SENT, then ended. `_queued` holds the frames that wait in this client, oldest first;
    `_front` holds all older ones: frames in flight and results that the user has not taken. The user takes results from
    the head of `_front` as soon as the head has ended.

    The window that the server grants bounds the frames that are in flight *or answered and not taken*. So there is no
    second queue of results behind a slow reader: a user who takes results slowly sends slowly, and newer frames of
    a live camera replace older ones here, where replacing costs least.

    With `drop_oldest`, a frame that finds the queue full pushes the oldest one out. The Result of the pushed-out frame
    (NOT_SENT) has to wait for its turn; neighbours are kept as one run, so that the ledger stays bounded even while no
    frame ends. While video moves to another server, its keyframe must wait for the new call and not be pushed out by
    the frames that need it: `spare` lets the queue grow by a few frames until the next call has taken them.

    A slow network is one more hidden queue: the kernel takes frames long before it sends them. So while the oldest
    frame in flight of a live camera is overdue, no more than FRAMES_ON_THE_WAY are in flight, at any window.

    When a call breaks, frames in flight become UNANSWERED, or, with `resend`, go back to the head of the queue under
    their old seq, each at most `max_sends` times.

Guarantees: there are at most 2 x (window + queue) + 1 entries, and SPARE_FRAMES more after `spare`. Not thread-safe:
the stream's lock guards it.
"""

import enum
from collections import Counter, deque
from dataclasses import dataclass

from forebay.client.result import Result, Status
from forebay.client.statistics import Statistics

PUSHED_OUT = "a newer frame took its place before it could be sent"
SKIPPED = "the server answered a later frame first"
FRAMES_ON_THE_WAY = 2  # one frame being sent and one behind it keep a slow line busy
SPARE_FRAMES = 32  # more than a second of video; the next call is open after a few round trips


class Offer(enum.Enum):
    """Outcome of `Ledger.offer`."""

    QUEUED = "queued"
    FULL = "full"


@dataclass(slots=True, eq=False)
class LedgerEntry:
    """One frame, or a run of frames that were never sent (seq .. last_seq).

    Attributes:
        message: the encoded ClientMessage; None once it is no longer needed.
        sends: number of times that the message was written.
        result: how the frame ended; None before its end. For a run: the result of its first frame.
    """

    seq: int
    last_seq: int
    capture_ns: int
    message: bytes | None
    sends: int = 0
    sent_ns: int = 0
    result: Result | None = None

    @property
    def is_run(self) -> bool:
        """Whether the entry stands for frames that were never sent."""
        return self.result is not None and self.result.status is Status.NOT_SENT


class Ledger:
    """See the module's theory of operation."""

    def __init__(self, *, queue_frames: int, drops_oldest: bool, resends: bool, max_sends: int = 3) -> None:
        if queue_frames < 1:
            raise ValueError(f"queue_frames must be at least 1, not {queue_frames}")
        if drops_oldest and resends:
            raise ValueError("resend needs the policy 'block': a stream that drops frames has none worth sending twice")
        self._queue_frames = queue_frames
        self._drops_oldest = drops_oldest
        self._max_sends = max_sends if resends else 1
        self._spares = False  # SPARE_FRAMES more may be queued before one is pushed out
        self._queued: deque[LedgerEntry] = deque()
        self._front: deque[LedgerEntry] = deque()
        self._sent: deque[LedgerEntry] = deque()  # the entries of _front that are in flight
        self._untaken = 0  # entries of _front that have ended, runs not counted
        self._next_seq = 1
        self._by_status: Counter[Status] = Counter()
        self._offered = self._sent_count = self._resent = self._out_of_order = 0

    @property
    def next_seq(self) -> int:
        """The seq that the next offered frame will get."""
        return self._next_seq

    @property
    def resume_from(self) -> int:
        """The lowest seq that a new call will send."""
        return self._queued[0].seq if self._queued else self._next_seq

    @property
    def has_room(self) -> bool:
        """Whether an offered frame would fit without pushing out another."""
        return len(self._queued) < self._queue_frames

    @property
    def has_queued(self) -> bool:
        """Whether a frame waits to be sent."""
        return bool(self._queued)

    @property
    def first_queued(self) -> bytes | None:
        """The message of the oldest queued frame."""
        return self._queued[0].message if self._queued else None

    @property
    def has_ready(self) -> bool:
        """Whether `take` would return a result."""
        return bool(self._front) and self._front[0].result is not None

    @property
    def has_in_flight(self) -> bool:
        """Whether a frame was sent and not yet answered."""
        return bool(self._sent)

    @property
    def is_settled(self) -> bool:
        """Whether every frame has ended, taken or not."""
        return not self._queued and not self._sent

    @property
    def is_empty(self) -> bool:
        """Whether every frame has ended and every result is taken."""
        return not self._queued and not self._front

    def entries(self) -> int:
        """Return the number of entries: a measure of the memory in use."""
        return len(self._queued) + len(self._front)

    def offer(self, message: bytes, capture_ns: int) -> Offer:
        """Queue the frame `next_seq`; when the queue is full, push the oldest out or return FULL."""
        if not self.has_room:
            if not self._drops_oldest:
                return Offer.FULL
            self._make_room()
        self._queued.append(LedgerEntry(self._next_seq, self._next_seq, capture_ns, message))
        self._next_seq += 1
        self._offered += 1
        return Offer.QUEUED

    def spare(self) -> None:
        """Let SPARE_FRAMES more be queued before one is pushed out, until the queue has room again."""
        self._spares = True

    def next_to_send(
        self, window: int, now_ns: int, *, is_finishing: bool = False, patience_ns: int | None = None
    ) -> bytes | None:
        """Move the oldest queued frame in flight and return its message; None: no frame, or no room in the window.

        Args:
            window: granted frames in flight.
            now_ns: the time of sending.
            is_finishing: no frame will be offered any more; untaken results do not count against the window then, so
                that a stream can be closed without taking results.
            patience_ns: with `drops_oldest`, the time of an unanswered frame after which the network counts as
                congested: then only one frame follows the one being sent; None: for ever.
        """
        occupied = len(self._sent) + (0 if is_finishing else self._untaken)
        if not self._queued or occupied >= window:
            return None
        if self._is_congested(now_ns, patience_ns) and not is_finishing:
            return None
        entry = self._queued.popleft()
        if self.has_room:  # the spared frames are sent: later ones are pushed out again, so that none gets old
            self._spares = False
        entry.sends += 1
        entry.sent_ns = now_ns
        self._sent_count += entry.sends == 1
        self._resent += entry.sends > 1
        self._front.append(entry)
        self._sent.append(entry)
        message = entry.message
        if self._max_sends == 1:
            entry.message = None  # no longer needed: the transport owns the pixels now
        return message

    def find(self, seq: int) -> LedgerEntry | None:
        """Return the entry in flight with this seq."""
        if self._sent and self._sent[0].seq == seq:  # answers come in order
            return self._sent[0]
        return next((entry for entry in self._sent if entry.seq == seq), None)

    def answered(self, result: Result) -> bool:
        """Record the server's answer; return False, and count the answer, if no frame in flight has that seq.

        Earlier frames that are still in flight will not be answered any more, because the protocol answers in order.
        """
        if self.find(result.seq) is None:
            self._out_of_order += 1
            return False
        while (entry := self._sent.popleft()).seq != result.seq:
            self._out_of_order += 1
            self._end(entry, Result(entry.seq, Status.UNANSWERED, SKIPPED, capture_time_ns=entry.capture_ns))
        self._end(entry, result)
        return True

    def lose(self, reason: str) -> None:
        """Account for the end of a call: frames in flight are queued again or end UNANSWERED."""
        again: list[LedgerEntry] = []
        while self._sent:
            entry = self._sent.popleft()
            if entry.sends < self._max_sends:
                self._front.remove(entry)
                again.append(entry)
            else:
                self._end(entry, Result(entry.seq, Status.UNANSWERED, reason, capture_time_ns=entry.capture_ns))
        self._queued.extendleft(reversed(again))

    def give_up(self, reason: str) -> None:
        """End every frame: no more will be sent or answered."""
        while self._sent:
            entry = self._sent.popleft()
            self._end(entry, Result(entry.seq, Status.UNANSWERED, reason, capture_time_ns=entry.capture_ns))
        while self._queued:
            entry = self._queued.popleft()
            if entry.sends:  # the frame was sent once and waited to be sent again
                self._front.append(entry)
                self._end(entry, Result(entry.seq, Status.UNANSWERED, reason, capture_time_ns=entry.capture_ns))
            else:
                self._push_out(entry, reason)

    def take(self) -> Result | None:
        """Return the next result in order, or None if the next frame has not ended."""
        if not self._front or (result := self._front[0].result) is None:
            return None
        head = self._front[0]
        if not head.is_run:
            self._front.popleft()
            self._untaken -= 1
        elif head.seq == head.last_seq:
            self._front.popleft()
        else:
            head.seq += 1
            head.result = Result(head.seq, Status.NOT_SENT, result.message)
        return result

    def statistics(self, opened: int = 0) -> Statistics:
        """Return a snapshot; `opened` is the stream's own count."""
        ready = sum(entry.last_seq - entry.seq + 1 for entry in self._front if entry.result is not None)
        return Statistics(
            offered=self._offered,
            sent=self._sent_count,
            resent=self._resent,
            waiting=len(self._queued),
            in_flight=len(self._sent),
            ready=ready,
            by_status=dict(self._by_status),
            out_of_order=self._out_of_order,
            opened=opened,
        )

    def _is_congested(self, now_ns: int, patience_ns: int | None) -> bool:
        """Whether frames wait where they cannot be replaced: in the buffers of the network."""
        if patience_ns is None or not self._drops_oldest or len(self._sent) < FRAMES_ON_THE_WAY:
            return False
        return now_ns - self._sent[0].sent_ns > patience_ns

    def _make_room(self) -> None:
        """Push out the oldest frame, or, while frames are spared, none."""
        if self._spares and len(self._queued) < self._queue_frames + SPARE_FRAMES:
            return
        self._spares = False
        while not self.has_room:  # several, if the last frames were spared: they are old by now
            self._push_out(self._queued.popleft(), PUSHED_OUT)

    def _end(self, entry: LedgerEntry, result: Result) -> None:
        entry.result = result
        entry.message = None
        self._untaken += 1
        self._by_status[result.status] += 1

    def _push_out(self, entry: LedgerEntry, reason: str) -> None:
        """End a frame that was never sent; add it to the previous run if that has the same reason."""
        self._by_status[Status.NOT_SENT] += 1
        last = self._front[-1] if self._front else None
        if last is not None and last.is_run and last.result is not None and last.result.message == reason:
            last.last_seq = entry.seq
            return
        entry.message = None
        entry.result = Result(entry.seq, Status.NOT_SENT, reason)
        self._front.append(entry)
