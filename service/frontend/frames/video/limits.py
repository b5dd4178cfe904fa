"""How many streams of video a process decodes, with how much memory, and who decodes. Thread: any."""

import threading

from forebay_server.service.errors import OverloadedError, TooManyStreamsError
from forebay_server.service.frontend.frames.video.codecs import VideoCodecs
from forebay_server.service.frontend.frames.video.parameter_sets import Sequence

_SPARE_PICTURES = 3  # being decoded, being shown, and one that libavcodec keeps for concealing
_DECODER_BYTES = 4 << 20  # tables of one decoder


class VideoPlace:
    """A stream's right to a decoder, and the memory that it has reserved.

    Attributes:
        codecs: opens the decoder.
        reserved_bytes: of memory.
    """

    __slots__ = ("_limits", "codecs", "reserved_bytes")

    def __init__(self, limits: "VideoLimits", codecs: VideoCodecs) -> None:
        self._limits = limits
        self.codecs = codecs
        self.reserved_bytes = 0

    def reserve(self, sequence: Sequence) -> None:
        """Reserve the memory for decoding `sequence`, instead of the present reservation. Raises OverloadedError."""
        pictures = sequence.references + _SPARE_PICTURES
        self._limits.change(self, _DECODER_BYTES + pictures * sequence.picture_bytes)

    def give_back(self) -> None:
        """Give up the decoder. Idempotent."""
        self._limits.leave(self)


class VideoLimits:
    """See the module.

    Args:
        most_streams: decoders at a time.
        most_bytes: memory of all decoders together.
        codecs: opens decoders.
    """

    def __init__(self, most_streams: int, most_bytes: int, codecs: VideoCodecs) -> None:
        self._codecs = codecs
        self._most_streams = most_streams
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._places: set[VideoPlace] = set()
        self._reserved_bytes = 0

    @property
    def streams(self) -> int:
        """Decoders in use."""
        return len(self._places)

    @property
    def reserved_bytes(self) -> int:
        """Memory that they have reserved."""
        return self._reserved_bytes

    def take(self) -> VideoPlace:
        """Return a place for a stream that opens. Raises TooManyStreamsError."""
        place = VideoPlace(self, self._codecs)
        with self._lock:
            if len(self._places) >= self._most_streams:
                raise TooManyStreamsError(
                    f"the server decodes {self._most_streams} streams of video, its limit", retry_after_ms=1000
                )
            self._places.add(place)
        return place

    def change(self, place: VideoPlace, nbytes: int) -> None:
        """Reserve `nbytes` for a place, instead of its present ones. Raises OverloadedError, changing nothing."""
        with self._lock:
            reserved = self._reserved_bytes - place.reserved_bytes + nbytes
            if reserved > self._most_bytes:
                raise OverloadedError(
                    f"decoding this video takes {nbytes >> 20} MiB, and the server's decoders may take "
                    f"{self._most_bytes >> 20} MiB together; send smaller pictures, or fewer reference frames",
                    retry_after_ms=1000,
                )
            self._reserved_bytes = reserved
            place.reserved_bytes = nbytes

    def leave(self, place: VideoPlace) -> None:
        """End a place. Idempotent."""
        with self._lock:
            self._places.discard(place)
            self._reserved_bytes -= place.reserved_bytes
            place.reserved_bytes = 0
