"""A network camera that may go away: it is opened again, with longer and longer pauses, and given up after a while."""

from collections.abc import Callable
from typing import Any

from forebay_server.engines.clock import Clock
from forebay_server.service.cli.video import Source, SourceError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
GIVE_UP_AFTER_S = 60.0
SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "rtmps://", "srt://")


def may_come_back(name: str) -> bool:
    """Whether the end of a source means that a camera went away; a file behind a URL just ends."""
    return name.startswith(SCHEMES)


class Reopening(Source):
    """A live source that is opened again when it ends.

    A camera may come back with another video: another codec, or parameter sets that its packets do not repeat. Then the
    stream of frames ends with `has_changed`; the next `read` begins with the new video.

    Args:
        source: open now.
        reopen: opens it again. Raises SourceError.
        clock: source of monotonic nanoseconds; it also waits.
        tell: takes one line when the camera goes away and when it comes back.
    """

    def __init__(self, source: Source, reopen: Callable[[], Source], clock: Clock, tell: Callable[[str], None]) -> None:
        super().__init__(source.info)
        self.has_mixed_sizes = source.has_mixed_sizes
        self._source = source
        self._reopen = reopen
        self._clock = clock
        self._tell = tell
        self._is_given_up = False
        self._pause_s = FIRST_PAUSE_S
        self._give_up_ns: int | None = None  # None: the camera gives frames
        self._video = (self.encoding, self.parameter_sets)

    @property
    def encoding(self) -> Any:  # noqa: ANN401
        """Of the packets of a source that has packets."""
        return getattr(self._source, "encoding", None)

    @property
    def parameter_sets(self) -> bytes:
        """Likewise."""
        return getattr(self._source, "parameter_sets", b"")

    @property
    def shortfall(self) -> str:
        """After the end: why there are no more frames, or empty."""
        if not self._is_given_up:
            return ""
        return f"{self.info.name} went away and did not come back within {GIVE_UP_AFTER_S:g} s"

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _read(self) -> Any:  # noqa: ANN401 - as the source: a picture or a packet
        self.has_changed = False
        while (frame := self._source.read()) is None:
            if not self._open_again():
                self._is_given_up = True
                return None
            video = (self.encoding, self.parameter_sets)
            if video != self._video:
                self._video, self.has_changed = video, True
                self._tell(f"{self.info.name} sends another video than before ({self.encoding}): opening a new stream")
                return None
        self._pause_s, self._give_up_ns = FIRST_PAUSE_S, None
        return frame

    def _open_again(self) -> bool:
        """Wait for the camera; return whether it is there again. One that gives no frame does not count as back."""
        if self._give_up_ns is None:
            self._give_up_ns = self._clock.now_ns() + round(GIVE_UP_AFTER_S * 1e9)
            self._tell(f"{self.info.name} went away; trying to open it again")
        self._source.close()
        while True:
            until_ns = self._clock.now_ns() + round(self._pause_s * 1e9)
            if until_ns > self._give_up_ns:
                return False
            self._clock.sleep_until(until_ns)
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            try:
                self._source = self._reopen()
            except SourceError:
                continue
            self._tell(f"{self.info.name} is there again")
            return True
