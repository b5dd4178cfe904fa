"""The packets of a video as they are, for servers that decode: H.264, H.265, motion JPEG; files, pipes and cameras.

Nothing is decoded, except the first picture of a file, which says whether the video is turned. The server decodes the
same bytes that the camera sent.
"""

import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forebay_server.engines.extras import install_hint
from forebay_server.service.cli.cut_pictures import Codec, PictureJoiner
from forebay_server.service.cli.video import DEFAULT_FPS, Source, SourceError, SourceInfo, without_password

if TYPE_CHECKING:
    from forebay.client.options import Encoding

OPEN_TIMEOUT_S = 10.0  # of a network stream
SILENCE_TIMEOUT_S = 10.0  # of an open one
STANDARD_INPUT = "-"
_ENCODINGS: dict[str, "Encoding"] = {"h264": "h264", "hevc": "h265", "mjpeg": "jpeg"}
_FILTERS = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}
_WITH_LENGTH = ("matroska", "mov", "flv", "avi")  # FFmpeg's names of containers whose header has the length
_START = b"\0\0\0\1"


class CannotPassError(Exception):
    """The video has to be decoded here; the message has the reason."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One access unit of H.264 or H.265 in Annex B form, or one JPEG file."""

    data: bytes


class PacketSource(Source):
    """The packets of one video. Thread: one at a time.

    Attributes:
        encoding: of the packets.
        parameter_sets: in Annex B form; empty where every keyframe has its own.
    """

    def __init__(
        self,
        container: Any,  # noqa: ANN401 - PyAV is imported late
        name: str,
        path: Path | None,
        *,
        is_live: bool,
    ) -> None:
        track = _track(container)
        codec = track.codec_context
        if codec.name not in _ENCODINGS:
            raise CannotPassError(f"its codec is {codec.name}, not H.264, H.265 or motion JPEG")
        frames, seconds = (0, 0.0) if is_live else (int(track.frames), _declared_s(container))
        super().__init__(SourceInfo(name, is_live, float(track.average_rate or DEFAULT_FPS), frames, seconds, path))
        self.encoding = _ENCODINGS[codec.name]
        extradata = bytes(codec.extradata or b"")
        self.parameter_sets = b"" if self.encoding == "jpeg" else annex_b_sets(codec.name, extradata)
        has_lengths = codec.name in _FILTERS and extradata[:1] == b"\1"
        self._container = container
        packets = _packets(container, track, _FILTERS[codec.name] if has_lengths else "")
        self._packets = _whole(packets, codec.name) if is_live and codec.name != "mjpeg" else _each(packets)

    def _read(self) -> Packet | None:  # type: ignore[override]  # a packet, where other sources have pictures
        import av

        try:
            return next(self._packets, None)
        except av.FFmpegError:  # damaged, or the camera has gone
            self.is_damaged = True
            return None

    def close(self) -> None:
        """Close the file or the connection."""
        self._packets.close()
        self._container.close()


def open_packets(name: str) -> PacketSource:
    """Open a video file, a network stream, or standard input (`-`).

    Raises:
        CannotPassError: it has to be decoded here.
        SourceError: it cannot be read at all.
    """
    try:
        import av
    except ImportError:
        raise CannotPassError(f"PyAV is not installed: {install_hint('video')}") from None
    is_live = "://" in name
    if not is_live and name != STANDARD_INPUT and not Path(name).is_file():
        raise CannotPassError("it is not a file or a network stream")
    shown = without_password(name) if is_live else Path(name).name
    options, silence_timeout_s = _network_options(name)
    timeouts_s = (OPEN_TIMEOUT_S, silence_timeout_s)
    try:
        container = av.open("pipe:0" if name == STANDARD_INPUT else name, options=options, timeout=timeouts_s)
    except (av.FFmpegError, OSError) as error:
        if is_live:
            raise SourceError(f"{shown} cannot be opened: {why_not_opened(av, error)}") from error
        raise CannotPassError("PyAV cannot read it") from None
    try:
        if not is_live and name != STANDARD_INPUT:
            _refuse_turned(av, name)
        if name == STANDARD_INPUT:
            return PacketSource(container, "standard input", None, is_live=False)
        return PacketSource(container, shown, None if is_live else Path(name), is_live=is_live)
    except BaseException:
        container.close()
        raise


def why_not_opened(av: Any, error: Exception) -> str:  # noqa: ANN401 - the module
    """Return what to look at when a network stream cannot be opened."""
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there: are the address and the port right?"
    if isinstance(error, (av.HTTPUnauthorizedError, av.HTTPForbiddenError)):  # RTSP has HTTP's codes
        return "the user or the password is wrong"
    if isinstance(error, av.HTTPNotFoundError):
        return "there is nothing of this name: is the path right?"
    return "is it there, and are the user and password right?"


def _network_options(name: str) -> tuple[dict[str, str], float | None]:
    """Return FFmpeg's options, and the silence after which PyAV ends a read; None where FFmpeg's own option does.

    PyAV takes the GIL to look at the clock before and after each wait of FFmpeg, some sixty times for a frame over
    RTSP, and each time it may have to wait for the thread that sends the frame before.
    """
    if not name.startswith("rtsp"):
        return {}, SILENCE_TIMEOUT_S
    return {"rtsp_transport": "tcp", "timeout": str(round(SILENCE_TIMEOUT_S * 1e6))}, None


def _track(container: Any) -> Any:  # noqa: ANN401
    if not container.streams.video:
        raise CannotPassError("it has no video, only sound or data")
    return container.streams.video[0]


def _declared_s(container: Any) -> float:  # noqa: ANN401
    """Return the length that the container declares, in s; 0 where FFmpeg only estimates it from the bytes."""
    has_header = container.format.name.startswith(_WITH_LENGTH)
    return float(container.duration or 0) / 1e6 if has_header else 0.0


def _packets(container: Any, track: Any, filter_name: str) -> Iterator[Any]:  # noqa: ANN401
    """Yield PyAV's packets in Annex B form."""
    from av.bitstream import BitStreamFilterContext

    annex_b = BitStreamFilterContext(filter_name, track) if filter_name else None
    for packet in container.demux(track):
        if not packet.size:
            continue  # the end
        yield from [packet] if annex_b is None else annex_b.filter(packet)


def _each(packets: Iterator[Any]) -> Generator[Packet, None, None]:
    for packet in packets:
        yield Packet(bytes(packet))


def _whole(packets: Iterator[Any], codec: Codec) -> Generator[Packet, None, None]:
    joiner = PictureJoiner(codec)
    for packet in packets:
        for data in joiner.take(bytes(packet), is_keyframe=packet.is_keyframe):
            yield Packet(data)
    for data in joiner.rest():
        yield Packet(data)


def _refuse_turned(av: Any, name: str) -> None:  # noqa: ANN401
    """Raise CannotPassError if the container says that pictures are to be shown turned."""
    with av.open(name) as container:
        try:
            frame = next(container.decode(_track(container)), None)
        except av.FFmpegError:
            return
    if frame is not None and frame.rotation:
        raise CannotPassError("it is turned, and the server shows pictures as they are coded")


def annex_b_sets(codec: str, extradata: bytes) -> bytes:
    """Return the parameter sets of a container's extradata, each after a start code.

    Args:
        codec: h264 or hevc.
        extradata: avcC, hvcC (ISO/IEC 14496-15), or Annex B already.

    Raises:
        CannotPassError: it is broken.
    """
    if extradata[:1] != b"\1":
        return extradata
    try:
        units = _avcc_units(extradata) if codec == "h264" else _hvcc_units(extradata)
        return b"".join(_START + unit for unit in units)
    except (struct.error, IndexError):
        raise CannotPassError("its parameter sets are broken") from None


def _avcc_units(data: bytes) -> Iterator[bytes]:
    position = 5
    for mask in (31, 255):
        count, position = data[position] & mask, position + 1
        for _ in range(count):
            unit, position = _sized(data, position)
            yield unit


def _hvcc_units(data: bytes) -> Iterator[bytes]:
    position = 23
    for _ in range(data[22]):
        (count,) = struct.unpack_from(">H", data, position + 1)
        position += 3
        for _ in range(count):
            unit, position = _sized(data, position)
            yield unit


def _sized(data: bytes, position: int) -> tuple[bytes, int]:
    (size,) = struct.unpack_from(">H", data, position)
    end = position + 2 + size
    if end > len(data):
        raise IndexError
    return data[position + 2 : end], end
