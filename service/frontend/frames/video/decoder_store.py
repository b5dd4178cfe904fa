"""Decoders of GPUs that are ready for the next stream, and the thread that makes more (ADR 0215).

Making a decoder takes from 50 to 300 ms, as many as a stream of video cannot wait. So a stream orders one and is
decoded by the CPU until it is there; and a decoder that a stream gives back stays for the next one.

Owner: the lock. Thread: any; a thread of its own, which ends with the last job, opens and closes decoders.
"""

import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import NamedTuple

import structlog

from forebay_server.engines.errors import EngineError
from forebay_server.engines.video import DeviceVideoDecoder, VideoCodecName
from forebay_server.service.clock import Clock

RETRY_AFTER_NS = 30_000_000_000
"""After an error a decoder of the same GPU is ordered no earlier: the GPU may have been out of memory."""

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


class DecoderStore:
    """See the module.

    Args:
        open_decoder: makes a decoder, on the thread of the store. Raises EngineError.
        most_idle: decoders that are kept for streams to come; the oldest one is closed for a newer one.
        clock: source of monotonic nanoseconds.
    """

    def __init__(self, open_decoder: Callable[[DecoderKind], DeviceVideoDecoder], most_idle: int, clock: Clock) -> None:
        self._open_decoder = open_decoder
        self._most_idle = most_idle
        self._clock = clock
        self._lock = threading.Lock()
        self._idle: deque[tuple[DecoderKind, DeviceVideoDecoder]] = deque()
        self._ordered: set[tuple[DecoderKind, Hashable]] = set()
        self._retry_ns: dict[int, int] = {}  # by GPU
        self._jobs: deque[Callable[[], None]] = deque()
        self._worker: threading.Thread | None = None
        self._reasons: set[str] = set()  # that are in the log

    def take(self, kind: DecoderKind) -> DeviceVideoDecoder | None:
        """Return a decoder that is ready, which is the caller's now; None if there is none."""
        with self._lock:
            for index, (each, decoder) in enumerate(self._idle):
                if each == kind:
                    del self._idle[index]
                    return decoder
        return None

    def order(self, kind: DecoderKind, stream: Hashable) -> bool:
        """Return whether a decoder is ready; if not, have one made, unless it is being made or has just failed."""
        with self._lock:
            if any(each == kind for each, _ in self._idle):
                return True
            is_early = self._clock.now_ns() < self._retry_ns.get(kind.gpu, 0)
            if not is_early and (kind, stream) not in self._ordered:
                self._ordered.add((kind, stream))
                self._do(lambda: self._make(kind, stream))
        return False

    def give_back(self, kind: DecoderKind, decoder: DeviceVideoDecoder) -> None:
        """Keep a decoder for another stream."""
        with self._lock:
            self._idle.append((kind, decoder))
            if len(self._idle) > self._most_idle:
                self._do(self._idle.popleft()[1].close)

    def discard(self, decoder: DeviceVideoDecoder) -> None:
        """Close a decoder."""
        with self._lock:
            self._do(decoder.close)

    def join(self) -> None:
        """Wait until every job is done."""
        worker = self._worker
        if worker is not None:
            worker.join()

    def _do(self, job: Callable[[], None]) -> None:
        """Have the store's thread do a job. The caller has the lock."""
        self._jobs.append(job)
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name="video decoders")
            self._worker.start()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._worker = None
                    return
                job = self._jobs.popleft()
            try:
                job()
            except EngineError as error:
                self._note(error)

    def _make(self, kind: DecoderKind, stream: Hashable) -> None:
        made: DeviceVideoDecoder | None = None
        try:
            made = self._open_decoder(kind)
        finally:
            with self._lock:
                self._ordered.discard((kind, stream))
                if made is not None:
                    self._idle.append((kind, made))
                else:
                    self._retry_ns[kind.gpu] = self._clock.now_ns() + RETRY_AFTER_NS

    def _note(self, error: EngineError) -> None:
        """Write why the CPU decodes, once for each reason."""
        reason = str(error)
        if reason not in self._reasons and len(self._reasons) < 16:
            self._reasons.add(reason)
            log.info("video is decoded by the CPU", reason=reason)
