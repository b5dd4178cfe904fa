"""Pictures as access units of H.264 or H.265, encoded before the run. The only file of the load generator with PyAV.

The units go round: the first one is a keyframe, and so is one of every KEYFRAME_INTERVAL, as cameras send them.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from forebay_server.loadtest.errors import UsageError
from forebay_server.loadtest.target import Encoding

KEYFRAME_INTERVAL = 30
FRAMES_PER_S = 30
_ENCODERS = {Encoding.H264: "libx264", Encoding.H265: "libx265"}
VIDEO = tuple(_ENCODERS)


def access_units(
    pictures: Sequence[npt.NDArray[np.uint8]], encoding: Encoding, *, bits_per_s: int | None = None
) -> list[bytes]:
    """Encode pictures without B-frames.

    Args:
        pictures: shape (height, width, 3), blue first.
        encoding: H264 or H265.
        bits_per_s: rate to keep to; None for constant quality.

    Raises:
        UsageError: PyAV is missing, or the pictures cannot be encoded.
    """
    try:
        import av
    except ImportError:
        raise UsageError(f"--encoding {encoding} needs PyAV: install Forebay with its extra 'video'") from None
    if not pictures:
        raise UsageError("no picture could be decoded")
    if len({picture.shape for picture in pictures}) > 1:
        raise UsageError("the pictures differ in size: give --size")
    encoder = _encoder(av, encoding, pictures[0].shape, bits_per_s)
    units: list[bytes] = []
    try:
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, "bgr24").reformat(format="yuv420p")
            frame.pts = index
            units += [bytes(packet) for packet in encoder.encode(frame)]
        units += [bytes(packet) for packet in encoder.encode(None)]
    except (av.FFmpegError, ValueError) as error:
        raise UsageError(f"the pictures cannot be encoded as {encoding}: {error}") from None
    return units


def _encoder(
    av: Any,  # noqa: ANN401 - PyAV is imported late
    encoding: Encoding,
    shape: tuple[int, ...],
    bits_per_s: int | None,
) -> Any:  # noqa: ANN401
    height, width = shape[:2]
    if height % 2 or width % 2:
        raise UsageError(f"--encoding {encoding} needs an even width and height, not {width}x{height}: give --size")
    encoder = av.CodecContext.create(_ENCODERS[encoding], "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, FRAMES_PER_S), Fraction(FRAMES_PER_S)
    encoder.gop_size, encoder.max_b_frames = KEYFRAME_INTERVAL, 0
    encoder.options = {"preset": "veryfast", "tune": "zerolatency"}
    if bits_per_s is None:
        encoder.options = {**encoder.options, "crf": "23"}
    else:
        encoder.bit_rate = bits_per_s
    if encoding is Encoding.H265:
        encoder.options = {**encoder.options, "x265-params": "log-level=none"}
    return encoder
