"""The frames of `forebay stream`: the packets of a video as they are where the server can decode, else pictures."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, cast

import typer

from forebay_server.engines.clock import MonotonicClock
from forebay_server.service.cli.packets import STANDARD_INPUT, CannotPassError, Packet, PacketSource, open_packets
from forebay_server.service.cli.reopening import Reopening, may_come_back
from forebay_server.service.cli.video import Source, SourceError, open_source

if TYPE_CHECKING:
    from forebay.client.encode import FrameData
    from forebay.client.keywords import StreamKeywords
    from forebay_server.service.cli.video import Picture

Transcode = Literal["never", "auto", "always"]
JPEG_QUALITY = 95
WAITING_PACKETS = 32  # in the client: each that is dropped costs all up to the next keyframe


def transcode_of(word: str, *, needs_pictures: bool) -> Transcode:
    """Return the checked word of `--transcode`. Raises ValueError."""
    if word not in {"never", "auto", "always"}:
        raise ValueError(f"--transcode must be never, auto or always, not {word}")
    if needs_pictures and word == "never":
        raise ValueError("--transcode never leaves no pictures for --output and --encoding")
    return "always" if needs_pictures else cast("Transcode", word)


def open_frames(name: str, transcode: Transcode) -> Source:
    """Open a source of pictures or packets; a network camera is opened again when it goes away. Raises SourceError."""
    source, reopen = _open(name, transcode)
    if not may_come_back(name):
        return source
    return Reopening(source, reopen, MonotonicClock(), lambda line: typer.echo(f"forebay: {line}", err=True))


def _open(name: str, transcode: Transcode) -> tuple[Source, Callable[[], Source]]:
    """Return a source, and how it is opened again. Raises SourceError."""

    def packets() -> Source:
        try:
            return open_packets(name)
        except CannotPassError as error:  # not the first time: it is another video now
            raise SourceError(str(error)) from None

    def pictures() -> Source:
        return open_source(name)

    if transcode == "always":
        return pictures(), pictures
    try:
        return open_packets(name), packets
    except CannotPassError as error:
        if transcode == "never" or name == STANDARD_INPUT:
            raise SourceError(f"{name} cannot be sent without decoding it here: {error}") from None
        return pictures(), pictures


def keywords_for(source: Source, first: "Picture | Packet", keywords: "StreamKeywords") -> "StreamKeywords":
    """Return the arguments for opening the stream, completed from the first frame."""
    if not isinstance(first, Packet):
        height, width = first.shape[:2]
        return {**keywords, "width": width, "height": height}
    packets = cast("PacketSource", source)
    sets = packets.parameter_sets
    is_latest = keywords.get("delivery") == "latest"
    queue = WAITING_PACKETS if is_latest and packets.encoding != "jpeg" else 1
    return {**keywords, "encoding": packets.encoding, "parameter_sets": sets, "queue_frames": queue}


def payload_of(frame: "Picture | Packet", *, is_jpeg: bool) -> "FrameData":
    """Return the contents of a frame."""
    if isinstance(frame, Packet):
        return frame.data
    return _jpeg(frame) if is_jpeg else frame


def _jpeg(picture: "Picture") -> bytes:
    import cv2

    _, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return encoded.tobytes()
