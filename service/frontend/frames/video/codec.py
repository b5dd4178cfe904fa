"""One decoder of libavcodec. The only module of the server that imports PyAV.

A decoder behind this seam takes whole access units in order and gives pictures, each with the number of its unit, in
the order in which they are shown. A GPU's is behind the same seam (`device_codec`).

Options: one thread, because the worker pool is the parallelism and frame threads would delay every picture; cropping to
the pixel. H.264 flags pictures that it has mended; H.265 does not, so errors are to end its units (`explode`): missing
references, and pixels that differ from the MD5 sums that some encoders add (`crccheck`). PyAV logs nothing.

Owner: one thread at a time, the worker that has the stream's turn. PyAV releases the GIL while it decodes.
"""

import contextlib
from collections.abc import Iterable
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.extras import install_hint
from forebay_server.service.frontend.frames.video.access_unit import CodecName
from forebay_server.service.frontend.frames.video.parameter_sets import Sequence
from forebay_server.service.frontend.frames.video.planes import Picture, Plane
from forebay_server.service.pictures.picture_input import PictureInput

with contextlib.suppress(ImportError):  # at start, and before front-end processes are forked: it starts no thread
    import av as _av  # noqa: F401


class VideoUnavailableError(Exception):
    """PyAV is not installed, or has no decoder for a codec. The message says how to install it."""


class DamagedUnitError(Exception):
    """The decoder cannot make a whole picture of a unit."""


class DecodedPicture(Protocol):
    """A decoded picture. It borrows the decoder's memory, until the decoder's next call."""

    @property
    def number(self) -> int:
        """Of its access unit."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, cropped as the stream says."""
        ...

    @property
    def is_damaged(self) -> bool:
        """Whether parts of it are guessed, or it cannot be had at all. Blocks: until it is decoded."""
        ...

    def place(self, target: NDArray[Any], model: PictureInput, most: int) -> tuple[int, int]:
        """Write it as the model takes it; see `planes.place_picture`. It is there after `VideoCodec.settle`."""
        ...


Pictures = Iterable[DecodedPicture]


class VideoCodec(Protocol):
    """A decoder of one stream."""

    @property
    def reorder_frames(self) -> int:
        """By how many pictures the next one may be held back, as far as is known."""
        ...

    @property
    def is_elsewhere(self) -> bool:
        """Whether it decodes by itself after `decode`: the thread has time for other streams meanwhile."""
        ...

    def takes(self, sequence: Sequence) -> bool:
        """Whether it decodes such pictures from the next keyframe on. If not, another decoder has to."""
        ...

    def decode(self, data: bytes, number: int) -> Pictures:
        """Decode a unit and return the pictures that can be shown now. Raises DamagedUnitError."""
        ...

    def settle(self) -> None:
        """Wait until pictures that were placed are in their targets. Raises ServiceError: they will not be."""
        ...

    def drain(self) -> Pictures:
        """Return the pictures that are held back. The next unit must be a keyframe."""
        ...

    def close(self) -> None:
        """Free its memory. Idempotent."""
        ...


def require_codec(name: CodecName) -> None:
    """See whether video can be decoded here.

    Raises:
        VideoUnavailableError: it is not installed, or cannot decode `name`.
    """
    try:
        import av
    except ImportError as error:
        raise VideoUnavailableError(f"video needs PyAV, which is not installed: {install_hint('video')}") from error
    try:
        av.Codec(name, "r")
    except ValueError as error:
        raise VideoUnavailableError(f"the FFmpeg of this PyAV has no decoder for {name}") from error


class LibavCodec:
    """See the module.

    Args:
        name: FFmpeg's name of the codec.
        most_pixels: larger pictures are an error.
        sets: parameter sets in Annex B form that come before the first unit; may be empty.
    """

    def __init__(self, name: CodecName, most_pixels: int, sets: bytes = b"") -> None:
        import av

        self._av = av
        self._sets = sets
        context = av.CodecContext.create(name, "r")
        context.thread_count = 1
        context.options = {
            "max_pixels": str(most_pixels),
            "flags": "+low_delay+unaligned",
            **({"err_detect": "explode+crccheck"} if name == "hevc" else {}),
        }
        self._context: Any = context
        self.is_elsewhere = False

    @property
    def reorder_frames(self) -> int:
        """By how many pictures the next one may be held back, as far as is known."""
        return int(self._context.reorder_depth)

    def takes(self, sequence: Sequence) -> bool:  # noqa: ARG002 - of the protocol
        """Yes."""
        return True

    def decode(self, data: bytes, number: int) -> Pictures:
        """Decode a unit and return the pictures that can be shown now. Raises DamagedUnitError."""
        if self._sets:
            data, self._sets = self._sets + data, b""
        packet = self._av.Packet(data)
        packet.pts = number
        try:
            frames = self._context.decode(packet)
        except (self._av.FFmpegError, ValueError) as error:
            raise DamagedUnitError from error
        return [_picture(frame) for frame in frames]

    def settle(self) -> None:
        """Nothing to wait for."""

    def drain(self) -> Pictures:
        """Return the pictures that are held back. The next unit must be a keyframe."""
        try:
            frames = self._context.decode(None)
        except (self._av.FFmpegError, ValueError):
            frames = []
        self._context.flush_buffers()
        return [_picture(frame) for frame in frames]

    def close(self) -> None:
        """Free its memory. Idempotent."""
        self._context = None


def _picture(frame: Any) -> Picture:  # noqa: ANN401 - PyAV is imported late
    name = frame.format.name
    return Picture(
        number=-1 if frame.pts is None else frame.pts,
        pixel_format=name,
        size=(frame.width, frame.height),
        matrix=int(frame.colorspace),
        is_full_range=int(frame.color_range) == 2 or name.startswith("yuvj"),
        planes=tuple(_plane(plane, is_deep=frame.format.components[0].bits > 8) for plane in frame.planes),
        is_damaged=bool(frame.is_corrupt),
    )


def _plane(plane: Any, *, is_deep: bool) -> Plane:  # noqa: ANN401
    """Return a plane's samples without the padding of its rows: a view of the decoder's memory."""
    samples: Any = np.frombuffer(plane, np.uint16 if is_deep else np.uint8)
    stride = plane.line_size // samples.itemsize
    return cast("Plane", samples.reshape(plane.height, stride)[:, : plane.width])
