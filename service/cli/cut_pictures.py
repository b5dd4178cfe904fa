"""Keyframes that arrive in several packets: some cameras repeat their parameter sets before each slice.

A parameter set begins the next picture (H.264 7.4.1.2.3, H.265 7.4.2.4.4), so FFmpeg cuts there. GStreamer's payloaders
with `config-interval=-1` send such streams where the encoder writes several slices, as x264 does for low latency.

The first keyframe of a stream waits for the packet after it, which shows whether keyframes are cut. If they are, every
keyframe waits; other packets never do. Pure.
"""

from collections.abc import Iterator
from typing import Literal

Codec = Literal["h264", "hevc"]

_START = b"\0\0\1"


class PictureJoiner:
    """Joins the parts of keyframes of one stream.

    Args:
        codec: of the packets, which are in Annex B form.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec: Codec = codec
        self._held: bytes | None = None
        self._waits = True  # keyframes do
        self._are_cut = False

    def take(self, data: bytes, *, is_keyframe: bool) -> Iterator[bytes]:
        """Take a packet in and yield what is whole."""
        held, self._held = self._held, None
        if held is not None:
            at = rest_at(data, self._codec)
            if at is not None:
                self._are_cut = True
                self._held = held + _START + data[at:]
                return
            self._waits = self._are_cut
            yield held
        if is_keyframe and self._waits:
            self._held = data
        else:
            yield data

    def rest(self) -> Iterator[bytes]:
        """Yield what still waits at the end."""
        if self._held is not None:
            yield self._held
            self._held = None


def rest_at(data: bytes, codec: Codec) -> int | None:
    """Return where the slices of a packet begin that goes on with the picture before it; else None."""
    at = data.find(_START) + 3
    while at >= 3 and at + 2 < len(data):
        if codec == "h264" and data[at] & 31 in {1, 5}:
            return None if data[at + 1] & 0x80 else at  # first_mb_in_slice is 0
        if codec == "hevc" and data[at] >> 1 & 63 < 32:
            return None if data[at + 2] & 0x80 else at  # first_slice_segment_in_pic_flag
        at = data.find(_START, at) + 3
    return None
