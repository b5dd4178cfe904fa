"""The part of Open about video, checked. Pure, except that it looks for the library."""

from dataclasses import dataclass

from forebay.wire import frames_pb2 as pb
from forebay_server.service.errors import InvalidRequestError, InvalidSessionError, UnsupportedError
from forebay_server.service.frontend.frames.video.access_unit import CodecName, UnitReader
from forebay_server.service.frontend.frames.video.codec import VideoUnavailableError, require_codec

MOST_OPEN_SETS_BYTES = 16 << 10
LEAST_WINDOW = 24
"""Frames in flight where pictures may be held back: 16 pictures shown before one that was sent earlier, its neighbours,
and a few on their way. With less, a client waits for a result that waits for the client's next frame."""

CODECS: dict[int, CodecName] = {pb.ENCODING_H264: "h264", pb.ENCODING_H265: "hevc"}
"""Encodings of video -> FFmpeg's name of the codec."""


@dataclass(frozen=True, slots=True)
class VideoRequest:
    """The constant facts of a stream of video.

    Attributes:
        codec: of its frames.
        sets: parameter sets in Annex B form; empty if they come with the first keyframe.
        reorder_frames: pictures that may be shown before one that was sent earlier; None where that is not known.
    """

    codec: CodecName
    sets: bytes
    reorder_frames: int | None

    def window(self, wanted: int) -> int:
        """Return the frames in flight that the stream needs at least, `wanted` if no picture is held back."""
        return wanted if self.reorder_frames == 0 else max(wanted, LEAST_WINDOW)


def video_request(request: pb.Open) -> VideoRequest | None:
    """Return the stream's constant facts; None if its frames are no video.

    Raises:
        UnsupportedError: this server cannot decode it, or not together with tracks.
        InvalidSessionError: the parameter sets are broken.
    """
    codec = CODECS.get(request.encoding)
    if codec is None:
        return None
    word = pb.Encoding.Name(request.encoding).removeprefix("ENCODING_")
    try:
        require_codec(codec)
    except VideoUnavailableError:
        raise UnsupportedError(
            f"open.encoding: this server cannot decode {word}, it was installed without its extra 'video'; send JPEG"
        ) from None
    if len(request.parameter_sets) > MOST_OPEN_SETS_BYTES:
        raise InvalidSessionError(
            f"open.parameter_sets has {len(request.parameter_sets)} bytes; give at most {MOST_OPEN_SETS_BYTES}"
        )
    reorder_frames = _reorder_frames(codec, request.parameter_sets) if request.parameter_sets else None
    if request.track and reorder_frames:
        raise UnsupportedError("open.track: tracks need pictures in the order of sending; encode without B-frames")
    return VideoRequest(codec, request.parameter_sets, reorder_frames)


def _reorder_frames(codec: CodecName, sets: bytes) -> int | None:
    reader = UnitReader(codec)
    try:
        reader.read_sets(sets)
    except InvalidRequestError as error:
        raise InvalidSessionError(f"open.parameter_sets: {error.message.removeprefix('frame ')}") from None
    found = [sequence.reorder_frames for sequence in reader.sequences.values()]
    return None if None in found else max(each for each in found if each is not None)
