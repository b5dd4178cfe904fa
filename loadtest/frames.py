"""The frames to send: the bundled clip, a video, a folder of pictures, or synthetic ones, encoded before the run.

Frames are decoded, resized and encoded once, kept in memory and sent over and over, so that the generator's cost
per frame does not depend on where the pictures come from. The only file of the load generator that sees OpenCV.
"""

import importlib.resources
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from forebay.encodings import LAYOUTS, VALUES
from forebay.near_files import near_file
from forebay_server.loadtest.errors import UsageError
from forebay_server.loadtest.target import Encoding
from forebay_server.loadtest.video import KEYFRAME_INTERVAL, VIDEO, access_units

Picture = npt.NDArray[np.uint8]  # (height, width, 3), blue first
MAX_PICTURES = 120  # four seconds at 30 fps; more would only cost memory
MAX_BYTES = 256 << 20
HEAD_START = 7  # frames of the source between one stream and the next, so that cameras show different pictures
_PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
_SEGMENT_BYTES = 65_533  # most content of one JPEG comment segment


@dataclass(frozen=True, slots=True, kw_only=True)
class FramesSpec:
    """The source of the frames.

    `source`: a video file, a folder of pictures, "synthetic", or "" for the bundled clip. `size`: (width, height) to
    resize to; None: unchanged. `quality`: of JPEG, 1 to 100. `tensor_bytes`: of TENSOR frames, 0: the server's size.
    """

    source: str = ""
    size: tuple[int, int] | None = None
    quality: int = 85
    tensor_bytes: int = 0


@dataclass(frozen=True, slots=True)
class FrameSource:
    """Encoded frames, and a description of their source."""

    payloads: tuple[bytes, ...]
    encoding: Encoding
    width: int
    height: int
    note: str

    def first_index(self, stream: int) -> int:
        """Return the index of a stream's first frame. Cameras show different pictures, and video begins at a keyframe.

        A server answers video before the first keyframe with NEEDS_KEYFRAME and does not decode it.
        """
        if self.encoding in VIDEO:
            return KEYFRAME_INTERVAL * (stream % math.ceil(len(self.payloads) / KEYFRAME_INTERVAL))
        return stream * HEAD_START

    def payload(self, index: int, *, scale: float = 1.0, size_bytes: int = 0) -> bytes:
        """Return frame `index` modulo their number; a JPEG is padded to `scale` times its size or `size_bytes`."""
        payload = self.payloads[index % len(self.payloads)]
        wanted = size_bytes or round(len(payload) * scale)
        return pad_jpeg(payload, wanted) if wanted > len(payload) and self.encoding is Encoding.JPEG else payload


def tensors(input_bytes: int, seed: int, note: str = "synthetic tensors") -> FrameSource:
    """Return eight random tensors of `input_bytes` each."""
    if input_bytes <= 0:
        raise UsageError("the server does not fix the input's size: give --shape")
    rng = np.random.default_rng(seed)
    payloads = tuple(rng.integers(0, 64, input_bytes, np.uint8).tobytes() for _ in range(8))
    return FrameSource(payloads, Encoding.TENSOR, 0, 0, f"{note}, {input_bytes} bytes")


def pictures(spec: FramesSpec, encoding: Encoding) -> FrameSource:
    """Read and encode up to MAX_PICTURES pictures; any encoding but TENSOR. Raises UsageError."""
    raw, note = _read(spec.source)
    layout = LAYOUTS.get(VALUES[encoding])
    if encoding in VIDEO:
        sized = [_resize(picture, spec.size) for picture in raw]
        units = access_units(sized, encoding)
        note = f"{note}, {len(units)} access units, {_size(units)}"
        return FrameSource(tuple(units), encoding, sized[0].shape[1], sized[0].shape[0], note)
    encoded: list[bytes] = []
    shape = (0, 0)
    for picture in raw:
        resized = _resize(picture, spec.size)
        if layout is not None and shape not in {(0, 0), resized.shape[:2]}:
            raise UsageError("the pictures differ in size: give --size")
        shape = (resized.shape[0], resized.shape[1])
        if layout is not None and (fault := layout.fault(shape[1], shape[0])):
            raise UsageError(f"--encoding {encoding} {fault}: give --size")
        encoded.append(encode(resized, encoding, spec.quality))
        if len(encoded) >= MAX_PICTURES or sum(map(len, encoded)) > MAX_BYTES:
            break
    if not encoded:
        raise UsageError(f"no picture could be decoded from {spec.source or 'the bundled clip'}")
    note = f"{note}, {len(encoded)} pictures, {_size(encoded)}"
    return FrameSource(tuple(encoded), encoding, shape[1], shape[0], note)


def encode(picture: Picture, encoding: Encoding, quality: int) -> bytes:
    """Return one picture in a wire encoding."""
    import cv2

    match encoding:
        case Encoding.TENSOR | Encoding.H264 | Encoding.H265:
            raise UsageError(f"pictures cannot be sent as {encoding}s")
        case Encoding.JPEG:
            return _file(picture, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality])
        case Encoding.PNG:
            return _file(picture, ".png", [])
        case Encoding.BGR8:
            return picture.tobytes()
        case Encoding.RGB8:
            return picture[:, :, ::-1].tobytes()
        case Encoding.MONO8:
            return cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).tobytes()
        case Encoding.NV12:
            return _nv12(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420).reshape(-1))


def _file(picture: Picture, suffix: str, options: list[int]) -> bytes:
    import cv2

    done, data = cv2.imencode(suffix, picture, options)
    if not done:
        raise UsageError(f"OpenCV cannot encode a picture as {suffix}")
    return data.tobytes()


def _nv12(planar: npt.NDArray[Any]) -> bytes:
    """Return the bytes of I420 (Y, U and V one after the other) with U and V interleaved."""
    luma, chroma = np.split(planar, [planar.size * 2 // 3])
    return luma.tobytes() + chroma.reshape(2, -1).T.tobytes()


def pad_jpeg(payload: bytes, wanted_bytes: int) -> bytes:
    """Return the same picture with comment segments behind its first marker, `wanted_bytes` long or a little less."""
    missing = wanted_bytes - len(payload)
    segments = []
    while missing > 4:
        content = min(missing - 4, _SEGMENT_BYTES)
        segments.append(b"\xff\xfe" + (content + 2).to_bytes(2, "big") + bytes(content))
        missing -= content + 4
    return b"".join((payload[:2], *segments, payload[2:]))


def check_source(source: str) -> None:
    """Raise UsageError if there is no such video or folder."""
    path = Path(source)
    if source not in {"", "synthetic"} and not (path.is_dir() or path.is_file()):
        raise UsageError(f"there is no video or folder {source}{near_file(path)}")


def _read(source: str) -> tuple[Iterator[Picture], str]:
    check_source(source)
    if source == "synthetic":
        return _synthetic(), "synthetic pictures"
    if source:
        path = Path(source)
        if path.is_dir():
            return _folder(path), f"pictures of {path.name}"
        return _video(path)
    with importlib.resources.as_file(importlib.resources.files("forebay_server.models") / "pedestrians.mp4") as clip:
        if clip.is_file():
            return _video(clip)
    return _synthetic(), "synthetic pictures (the bundled clip is not installed)"


def _video(path: Path) -> tuple[Iterator[Picture], str]:
    import cv2

    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise UsageError(f"{path.name} is no video that OpenCV can read")
    declared = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    decoded = list(_decoded(capture))
    note = path.name
    # A container's declared length may be wrong; only frames that can be decoded count.
    if len(decoded) < min(declared, MAX_PICTURES):
        note += f" (declares {declared} frames, only {len(decoded)} can be decoded)"
    return iter(decoded), note


def _decoded(capture: Any) -> Iterator[Picture]:  # noqa: ANN401  # cv2.VideoCapture, whose stubs need OpenCV
    try:
        for _ in range(MAX_PICTURES):
            done, picture = capture.read()
            if not done:
                return
            yield picture
    finally:
        capture.release()


def _folder(path: Path) -> Iterator[Picture]:
    import cv2

    for file in sorted(path.iterdir()):
        if file.suffix.lower() in _PICTURE_SUFFIXES and (picture := cv2.imread(str(file))) is not None:
            yield picture.astype(np.uint8, copy=False)


def _synthetic(count: int = 30, width: int = 640, height: int = 480) -> Iterator[Picture]:
    rng = np.random.default_rng(0)
    slope = np.linspace(0, 255, width, dtype=np.uint8)
    for index in range(count):
        picture = np.repeat(np.roll(slope, index * 16)[None, :, None], height, axis=0).repeat(3, axis=2)
        x, y = rng.integers(0, width - 80), rng.integers(0, height - 160)
        picture[y : y + 160, x : x + 80] = rng.integers(0, 255, 3)
        yield picture


def _resize(picture: Picture, size: tuple[int, int] | None) -> Picture:
    if size is None or (picture.shape[1], picture.shape[0]) == size:
        return picture
    import cv2

    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _size(encoded: list[bytes]) -> str:
    return f"{sum(map(len, encoded)) / len(encoded) / 1000:.1f} KB each"
