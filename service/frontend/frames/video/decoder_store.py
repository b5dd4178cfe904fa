"""Decoders of GPUs that are ready for the next stream, and the thread that makes more (ADR 0215).

Making a decoder takes from 50 to 300 ms, as many as a stream of video cannot wait. So a stream orders one and is
decoded by the CPU until it is there; and a decoder that a stream gives back stays for the next one.

Owner: the lock. Thread: any; a thread of its own, which ends with the last job, opens and closes decoders.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable
from typing import NamedTuple

import structlog

from forebay_server.engines.errors import DeviceMemoryError, EngineError
from forebay_server.engines.video import DeviceVideoDecoder, VideoCodecName
from forebay_server.service.clock import Clock

RETRY_AFTER_NS = 30_000_000_000
"""After an error a decoder of the same kind is ordered no earlier: the GPU may have been out of memory."""

KEPT_NS = 60_000_000_000
"""So long a decoder waits for a stream: other programs and models need the memory, and another one takes 50 ms."""
LOOK_INTERVAL_S = 10.0

log = structlog.get_logger(__name__)


class DecoderKind(NamedTuple):
    """The streams that a decoder is for.

    Attributes:
        gpu: number of the GPU.
        codec: FFmpeg's name.
        size: (width, height) in pixels, as coded.
        references: pictures that a stream keeps at most.
    """

    gpu: int
    codec: VideoCodecName
    size: tuple[int, int]
    references: int


class _Kept(NamedTuple):
    """A decoder that no stream has."""

    kind: DecoderKind
    decoder: DeviceVideoDecoder
    since_ns: int


class DecoderStore:
    """See the module.

    Args:
        open_decoder: makes a decoder, on the thread of the store. Raises EngineError.
        most: decoders that there are at a time. Kept ones that no stream waits for make way for others.
        clock: source of monotonic nanoseconds.
    """

    def __init__(self, open_decoder: Callable[[DecoderKind], DeviceVideoDecoder], most: int, clock: Clock) -> None:
        self._open_decoder = open_decoder
        self._most = most
        self._taken = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._idle: deque[_Kept] = deque()  # oldest first
        self._waiting: set[tuple[DecoderKind, Hashable]] = set()
        self._under_way: Counter[DecoderKind] = Counter()  # jobs that make one
        self._retry_ns: dict[DecoderKind, int] = {}
        self._jobs: deque[Callable[[], None]] = deque()
        self._worker: threading.Thread | None = None
        self._reasons: set[str] = set()  # that are in the log

    def take(self, kind: DecoderKind) -> DeviceVideoDecoder | None:
        """Return a decoder that is ready, which is the caller's now; None if there is none."""
        with self._lock:
            for index, each in enumerate(self._idle):
                if each.kind == kind:
                    del self._idle[index]
                    self._taken += 1
                    return each.decoder
        return None

    def order(self, kind: DecoderKind, stream: Hashable) -> bool:
        """Return whether a decoder is ready; if not, have one made, unless that has just failed or there are too many.

        The stream waits until it withdraws. Streams that wait for the same kind get a decoder each, in any order.
        """
        with self._lock:
            self._waiting.add((kind, stream))
            lacking = self._lacking(kind) - self._under_way[kind]
            has_room = self._room() > self._under_way.total()
            if lacking > 0 and has_room and self._clock.now_ns() >= self._retry_ns.get(kind, 0):
                self._under_way[kind] += 1
                self._do(lambda: self._make(kind))
            return self._kept(kind) > 0

    def withdraw(self, kind: DecoderKind, stream: Hashable) -> None:
        """Note that a stream waits no more: it has ended, or takes one."""
        with self._lock:
            self._waiting.discard((kind, stream))

    def give_back(self, kind: DecoderKind, decoder: DeviceVideoDecoder) -> None:
        """Keep a decoder that was taken for another stream."""
        with self._lock:
            self._taken -= 1
            self._keep(kind, decoder)

    def discard(self, decoder: DeviceVideoDecoder) -> None:
        """Close a decoder that was taken."""
        with self._lock:
            self._taken -= 1
            self._do(decoder.close)

    def failed(self, kind: DecoderKind, error: Exception) -> None:
        """Note an error with a decoder of a kind: none is ordered for a while."""
        now_ns = self._clock.now_ns()
        with self._lock:
            later = {each: at_ns for each, at_ns in self._retry_ns.items() if at_ns > now_ns}
            self._retry_ns = later | {kind: now_ns + RETRY_AFTER_NS}
            self._note(error)

    def look(self) -> float:
        """Close decoders that were kept for KEPT_NS, and return in how many seconds to look again: for the upkeep."""
        until_ns = self._clock.now_ns() - KEPT_NS
        with self._lock:
            while self._idle and self._idle[0].since_ns <= until_ns:
                self._do(self._idle.popleft().decoder.close)
        return LOOK_INTERVAL_S

    def join(self) -> None:
        """Wait until every job is done."""
        worker = self._worker
        if worker is not None:
            worker.join()

    def _do(self, job: Callable[[], None]) -> None:
        """Have the store's thread do a job. The caller has the lock."""
        self._jobs.append(job)
        if self._worker is None:
            worker = threading.Thread(target=self._work, name="video decoders")
            try:
                worker.start()
            except RuntimeError:  # the machine has no thread left; the next job tries again
                log.exception("decoders of video are made and freed later")
            else:
                self._worker = worker

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._worker = None
                    return
                job = self._jobs.popleft()
            try:
                job()
            except Exception:  # any error ends this job, not the thread
                log.exception("a decoder of video was not made or freed in order")

    def _make(self, kind: DecoderKind) -> None:
        """Make a decoder, unless the streams that wanted it have gone, or others have taken its room."""
        made = None
        try:
            with self._lock:
                is_wanted = self._lacking(kind) > 0 and self._room() > 0
                spare = self._take_spare() if is_wanted and self._taken + len(self._idle) >= self._most else None
            if spare is not None:
                spare.close()
            if is_wanted:
                made = self._opened(kind)
        except Exception as error:
            self.failed(kind, error)
            if not isinstance(error, EngineError):
                raise
        finally:
            with self._lock:
                if made is not None:
                    self._keep(kind, made)
                self._under_way[kind] -= 1
                self._under_way += Counter()  # forgets what is 0

    def _lacking(self, kind: DecoderKind) -> int:
        """Return how many decoders there are too few for the streams that wait. The caller has the lock."""
        return sum(each == kind for each, _ in self._waiting) - self._kept(kind)

    def _room(self) -> int:
        """Return how many decoders more there may be. The caller has the lock.

        Those that a stream waits for stay: else two streams of different kinds would close each other's for ever.
        """
        spare = sum(max(0, -self._lacking(kind)) for kind in {each.kind for each in self._idle})
        return self._most - self._taken - len(self._idle) + spare

    def _take_spare(self, gpu: int | None = None) -> DeviceVideoDecoder | None:
        """Take out the decoder, of one GPU or of any, that was kept longest of those for which no stream waits.

        The caller has the lock.
        """
        for index, (kind, decoder, _) in enumerate(self._idle):
            if gpu in {None, kind.gpu} and self._lacking(kind) < 0:
                del self._idle[index]
                return decoder
        return None

    def _kept(self, kind: DecoderKind) -> int:
        return sum(each.kind == kind for each in self._idle)

    def _opened(self, kind: DecoderKind) -> DeviceVideoDecoder:
        """Open a decoder; where memory is short, free those that no stream waits for. Raises EngineError."""
        while True:
            try:
                return self._open_decoder(kind)
            except DeviceMemoryError:
                with self._lock:
                    spare = self._take_spare(kind.gpu)
                    if spare is None:
                        raise
            spare.close()

    def _keep(self, kind: DecoderKind, decoder: DeviceVideoDecoder) -> None:
        """Keep a decoder for streams to come. The caller has the lock."""
        self._idle.append(_Kept(kind, decoder, self._clock.now_ns()))

    def _note(self, error: Exception) -> None:
        """Write why the CPU decodes, once for each reason. The caller has the lock."""
        reason = str(error)
        if reason not in self._reasons and len(self._reasons) < 16:
            self._reasons.add(reason)
            log.info("video is decoded by the CPU", reason=reason)
