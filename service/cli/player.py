"""A clip played as a camera over a real stream: open loop, every frame sent at its due time, answered or not.

Latencies count from the time at which a frame was *due*, so a player that falls behind cannot hide it. Owner: the event
loop.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

import forebay
import forebay.aio
from forebay.client.clock import Clock
from forebay.client.options import Encoding
from forebay_server.service.cli.video import Picture, SourceError, open_source

RECENT = 50  # number of results in the live figures
JPEG_QUALITY = 85


@dataclass(slots=True)
class CameraLog:
    """Observations of one camera so far.

    Attributes:
        latencies_ms: of OK results, from the intended sending to the arrival.
        ages_ms: of OK results, from the capture to the arrival.
        arrivals_ns: times of the latest answers.
        findings: detections by the index of the clip's frame.
        disorders: results whose seq was not above the previous one.
    """

    name: str
    offered: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    ages_ms: list[float] = field(default_factory=list)
    arrivals_ns: deque[int] = field(default_factory=lambda: deque(maxlen=RECENT))
    findings: dict[int, Sequence[forebay.Detection]] = field(default_factory=dict)
    detections: int = 0
    frames_with_person: int = 0
    disorders: int = 0
    last_seq: int = 0
    statistics: forebay.Statistics = field(default_factory=forebay.Statistics)
    error: str = ""

    @property
    def fps(self) -> float:
        """Answers per second lately."""
        if len(self.arrivals_ns) < 2:
            return 0.0
        return (len(self.arrivals_ns) - 1) * 1e9 / max(1, self.arrivals_ns[-1] - self.arrivals_ns[0])


class ClipReader:
    """An endless clip: after its last frame it continues with its first."""

    def __init__(self, path: str, first_index: int = 0) -> None:
        self._path = path
        self._source = open_source(path)
        self.index = -1
        for _ in range(first_index):
            self.read(1)

    @property
    def fps(self) -> float:
        """Of the clip."""
        return self._source.info.fps

    def read(self, step: int) -> Picture:
        """Return the frame `step` further on; `index` is its position in the clip."""
        picture = None
        for _ in range(step):
            picture = self._source.read()
            self.index += 1
            if picture is None:
                picture = self._rewind()
        if picture is None:
            raise SourceError(f"{self._path} has no frames")
        return picture

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def _rewind(self) -> Picture | None:
        self._source.close()
        self._source = open_source(self._path)
        self.index = 0
        return self._source.read()


@dataclass(frozen=True, slots=True)
class Plan:
    """The part of one camera: `frames` frames, the n-th at `start_ns + n / fps`."""

    clip: str
    encoding: Encoding
    fps: float
    frames: int
    start_ns: int
    first_index: int


async def play(client: forebay.aio.Client, log: CameraLog, plan: Plan, clock: Clock) -> None:
    """Play one camera to its end and fill its log."""
    reader = ClipReader(plan.clip, plan.first_index)
    picture = reader.read(1)
    height, width = picture.shape[:2]
    # The budget is two frames' time: a demo should show detections even on a machine that is busy with other work.
    budget_ms = 2000 / plan.fps
    stream = client.stream(
        log.name, model="detector", encoding=plan.encoding, width=width, height=height, budget_ms=budget_ms
    )
    dues: dict[int, tuple[int, int]] = {}  # seq -> due time, index in the clip; results remove their entry
    collector = asyncio.create_task(_collect(stream, log, dues, clock))
    try:
        await stream.open()
        step = max(1, round(reader.fps / plan.fps))
        for number in range(plan.frames):
            due_ns = plan.start_ns + round(number * 1e9 / plan.fps)
            await clock.sleep(max(0.0, (due_ns - clock.now_ns()) / 1e9))
            captured_ns = clock.now_ns()
            frame = _jpeg(picture) if plan.encoding == "jpeg" else picture
            seq = await stream.send(frame, capture_time_ns=captured_ns)
            dues[seq] = due_ns, reader.index  # before the result can come: `send` under "drop_oldest" does not suspend
            log.offered += 1
            picture = reader.read(step)
        await stream.close()
        await collector
    except forebay.ForebayError as error:
        log.error = str(error)
    finally:
        await stream.abort()
        await asyncio.gather(collector, return_exceptions=True)
        log.statistics = stream.statistics()
        reader.close()


async def _collect(stream: forebay.aio.Stream, log: CameraLog, dues: dict[int, tuple[int, int]], clock: Clock) -> None:
    async for result in stream:
        due_ns, index = dues.pop(result.seq)
        now_ns = clock.now_ns()
        log.by_status[result.status.value] += 1
        log.disorders += result.seq <= log.last_seq
        log.last_seq = result.seq
        if result.is_answered:
            log.arrivals_ns.append(now_ns)
        if result.is_ok:
            log.latencies_ms.append((now_ns - due_ns) / 1e6)
            log.ages_ms.append(result.age_ms or 0.0)
            log.findings[index] = result.detections
            log.detections += len(result.detections)
            log.frames_with_person += any(found.label == "person" for found in result.detections)


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the value that `share` (0..1) of the values do not exceed; None without values."""
    return float(np.quantile(values, share, method="higher")) if len(values) else None


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    import cv2

    _, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return encoded.tobytes()
