"""How `forebay stream` sends one source, and when. Pure."""

from dataclasses import dataclass

from forebay.client.keywords import StreamKeywords
from forebay.client.options import Encoding
from forebay_server.service.cli.stream_sources import Transcode

LONGEST_LAG_NS = 1_000_000_000  # a file that is further behind its rate goes on from now, without a burst of old frames


@dataclass(frozen=True, slots=True)
class CameraPlan:
    """How one source is sent.

    Attributes:
        name: of the camera.
        source: as the user gave it.
        transcode: whether videos are decoded here.
        encoding: the user's word; None: as the source has it.
        delivery: likewise; None: latest for live sources, every for others.
        keywords: arguments of the stream that are the same for every source.
        limit: number of frames after which it ends; None: all.
        is_looping: a file begins again at its end.
        has_title: lines for people begin with the name, since there are several cameras.
        has_model: the user named the model.
    """

    name: str
    source: str
    transcode: Transcode
    encoding: Encoding | None
    delivery: str | None
    keywords: StreamKeywords
    limit: int | None
    is_looping: bool
    has_title: bool
    has_model: bool


class Pace:
    """The due times of a file that is sent as if it were a live camera.

    Args:
        fps: frames per second; 0: every frame is due at once.
    """

    def __init__(self, fps: float) -> None:
        self._interval_ns = round(1e9 / fps) if fps else 0
        self._due_ns: int | None = None  # of the next frame; None before the first

    def wait_s(self, now_ns: int) -> float:
        """Return the time until the next frame is due, and count it as sent then."""
        if not self._interval_ns:
            return 0.0
        due_ns = now_ns if self._due_ns is None or now_ns - self._due_ns > LONGEST_LAG_NS else self._due_ns
        self._due_ns = due_ns + self._interval_ns
        return max(0, due_ns - now_ns) / 1e9
