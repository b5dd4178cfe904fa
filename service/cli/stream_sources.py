"""The frames of `forebay stream`: packets and picture files as they are where the server can decode, else pictures."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from forebay_server.engines.clock import MonotonicClock
from forebay_server.service.cli.looping import Looping
from forebay_server.service.cli.packets import STANDARD_INPUT, CannotPassError, Packet, PacketSource, open_packets
from forebay_server.service.cli.picture_files import PictureFile, PictureFiles, encoded, is_picture
from forebay_server.service.cli.reopening import Reopening, may_come_back
from forebay_server.service.cli.video import Picture, Source, SourceError, open_source, without_password

if TYPE_CHECKING:
    from forebay.client.encode import FrameData
    from forebay.client.keywords import StreamKeywords
    from forebay.client.options import Encoding

Transcode = Literal["never", "auto", "always"]
Frame = Picture | Packet | PictureFile
WAITING_PACKETS = 32  # in the client: each that is dropped costs all up to the next keyframe
MOST_NAME_CHARACTERS = 64


def transcode_of(word: str, *, needs_pictures: bool) -> Transcode:
    """Return the checked word of `--transcode`. Raises ValueError."""
    if word not in {"never", "auto", "always"}:
        raise ValueError(f"--transcode must be never, auto or always, not {word}")
    if needs_pictures and word == "never":
        raise ValueError("--transcode never leaves no pictures for --output and --encoding")
    return "always" if needs_pictures else cast("Transcode", word)


def is_endless(name: str) -> bool:
    """Whether a source has no beginning to go back to: a device, a network stream, standard input."""
    return name == STANDARD_INPUT or "://" in name or name.isdigit() or name.startswith("/dev/")


def names_of(sources: Sequence[str]) -> list[str]:
    """Return a camera's name for each source, all of them different: where a name is taken, it gets a number."""
    names: dict[str, None] = {}
    for own in map(_name_of, sources):
        ends = ("", *(f" ({number})" for number in range(2, len(names) + 2)))
        candidates = (own[: MOST_NAME_CHARACTERS - len(end)] + end for end in ends)
        names[next(name for name in candidates if name not in names)] = None
    return list(names)


def _name_of(source: str) -> str:
    if source == STANDARD_INPUT:
        return "standard input"
    if "://" in source:
        return without_password(source)
    if source.isdigit() or source.startswith("/dev/"):
        return f"device {source}"
    return Path(source).name or Path(source).resolve().name or source


def open_frames(name: str, transcode: Transcode, *, is_looping: bool, tell: Callable[[str], None]) -> Source:
    """Open a source of frames; a network camera is opened again when it goes away, a loop when it ends.

    Raises:
        SourceError: the source cannot be read.
    """
    source, reopen = _open(name, transcode)
    if is_looping and not is_endless(name):
        return Looping(source, reopen)
    if not may_come_back(name):
        return source
    return Reopening(source, reopen, MonotonicClock(), tell)


def _open(name: str, transcode: Transcode) -> tuple[Source, Callable[[], Source]]:
    """Return a source, and how it is opened again. Raises SourceError."""
    if _is_of_files(name):
        return _files(name), partial(_files, name)
    if transcode == "always":
        return open_source(name), partial(open_source, name)
    try:
        return open_packets(name), partial(_packets_again, name)
    except CannotPassError as error:
        if transcode == "never" or name == STANDARD_INPUT:
            raise SourceError(f"{name} cannot be sent without decoding it here: {error}") from None
        return open_source(name), partial(open_source, name)


def _is_of_files(name: str) -> bool:
    path = Path(name)
    return not is_endless(name) and (path.is_dir() or (is_picture(path) and path.is_file()))


def _files(name: str) -> Source:
    try:
        return PictureFiles(Path(name))
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {error.strerror}") from None


def _packets_again(name: str) -> Source:
    try:
        return open_packets(name)
    except CannotPassError as error:  # not the first time: it is another video now
        raise SourceError(str(error)) from None


def keywords_for(
    source: Source, first: Frame, keywords: "StreamKeywords", encoding: "Encoding | None"
) -> "StreamKeywords":
    """Return the arguments for opening the stream, completed from the first frame.

    Args:
        source: has been opened.
        first: its first frame.
        keywords: of every source.
        encoding: the user's word; None: the one of the source, pixels where it has none.
    """
    if isinstance(first, PictureFile):
        files = cast("PictureFiles", source)
        return {**keywords, "encoding": encoding or files.encoding}
    if not isinstance(first, Packet):
        height, width = first.shape[:2]
        return {**keywords, "encoding": encoding or "bgr8", "width": width, "height": height}
    packets = cast("PacketSource", source)
    sets = packets.parameter_sets
    is_latest = keywords.get("delivery") == "latest"
    queue = WAITING_PACKETS if is_latest and packets.encoding != "jpeg" else 1
    return {**keywords, "encoding": packets.encoding, "parameter_sets": sets, "queue_frames": queue}


def payload_of(frame: Frame, encoding: "Encoding") -> "FrameData":
    """Return the contents of a frame. Blocks: it may encode or decode a picture."""
    if isinstance(frame, Packet):
        return frame.data
    if isinstance(frame, PictureFile):
        if encoding == "jpeg" or encoding == "png":  # noqa: PLR1714 - mypy narrows no set
            return frame.as_kind(encoding)
        picture = frame.decoded()
        if picture is None:
            raise SourceError(
                f"{frame.name} is not a picture that can be read; without --encoding the server judges it"
            )
        return picture
    return encoded(frame, "jpeg") if encoding == "jpeg" else frame


def picture_of(frame: Frame) -> Picture | None:
    """Return the pixels of a frame, to draw into; None if it has none that can be decoded here."""
    if isinstance(frame, PictureFile):
        return frame.decoded()
    return None if isinstance(frame, Packet) else frame


def file_of(frame: Frame) -> str:
    """Return the name of a frame's file; empty if it has no file of its own."""
    return frame.name if isinstance(frame, PictureFile) else ""
