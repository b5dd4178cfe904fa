"""Frames for the commands: a video file, a folder of pictures, a camera device, a network stream.

OpenCV reads all of them; PyAV, where it is installed, reads files that OpenCV cannot. A container's declared length may
be wrong, so frames are counted as they come.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from forebay.near_files import near_file
from forebay_server.engines.extras import install_hint
from forebay_server.service.cli.file_end import ends_early
from forebay_server.service.models.bare_files import FILE_SUFFIXES as MODEL_SUFFIXES

Picture = NDArray[np.uint8]  # (height, width, 3), blue first

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
VIDEO_SUFFIXES = (".avi", ".mkv", ".mov", ".mp4", ".ts", ".webm")  # common ones, for hints; any other is tried too
# Containers without an index estimate their length from bit rate and duration: an error of a tenth is normal; a larger
# one means a wrong declaration or a file that is cut short.
SHORT_BELOW = 0.9
DEFAULT_FPS = 25.0
URL_TIMEOUT_MS = 10_000  # OpenCV's own limit is 30 s


class SourceError(Exception):
    """A source cannot be read; the message has the reason and a remedy."""


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """A source's description of itself.

    Attributes:
        name: for people and as the camera's name.
        is_live: frames come at their own pace and old ones are worthless.
        fps: as declared, or a default if the declared value is nonsense.
        declared_frames: as declared; 0 without a declaration.
        declared_s: length in seconds, as declared where no number of frames is; 0 without a declaration.
        path: of the file; None for anything else.
    """

    name: str
    is_live: bool
    fps: float
    declared_frames: int
    declared_s: float = 0.0
    path: Path | None = None


class Source:
    """A sequence of frames. Thread: one at a time. Close it, or use it in `with`.

    Attributes:
        info: the source's description.
        has_changed: after the end: the next frames are another video, and `read` goes on with them.
        read_frames: number of frames read so far.
        skipped: files of a folder that are no pictures, with the reason.
        is_damaged: frames after the last one that was read cannot be read.
    """

    has_mixed_sizes = False  # whether frames may differ in size
    has_changed = False
    remark = ""  # for people, about the way in which frames are sent

    def __init__(self, info: SourceInfo) -> None:
        self.info = info
        self.read_frames = 0
        self.skipped: list[str] = []
        self.is_damaged = False

    def read(self) -> Picture | None:
        """Return the next frame, or None at the end. Blocks: on the disk, the device or the network."""
        picture = self._read()
        self.read_frames += picture is not None
        return picture

    def __iter__(self) -> Iterator[Picture]:
        while (picture := self.read()) is not None:
            yield picture

    @property
    def shortfall(self) -> str:
        """After the end: the fault in the number of frames, or empty. Blocks: on the disk."""
        info, read = self.info, self.read_frames
        if info.is_live:
            return ""
        is_short = read < info.declared_frames * SHORT_BELOW
        if not (is_short or self.is_damaged or (info.path is not None and ends_early(info.path))):
            return ""
        if read < info.declared_frames:
            return f"{info.name} declares {info.declared_frames} frames, but ends after {read}: cut short or damaged"
        if read / info.fps < info.declared_s:
            ends = f"ends after {read} frames ({read / info.fps:.1f} s)"
            return f"{info.name} declares {info.declared_s:.1f} s, but {ends}: cut short or damaged"
        return f"{info.name} ends in the middle of its data, after {read} frames: cut short or damaged"

    def close(self) -> None:
        """Close the file or the device. Idempotent."""

    def _read(self) -> Picture | None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class CaptureSource(Source):
    """Any source that cv2.VideoCapture opens."""

    def __init__(self, capture: Any, name: str, target: str | int, *, is_live: bool) -> None:  # noqa: ANN401 - of cv2
        import cv2

        path = None if is_live else Path(str(target))
        fps, declared = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        is_sane = 0 < declared < 1e9 and not is_live
        rate = fps if 0 < fps <= 1000 else DEFAULT_FPS
        info = SourceInfo(name, is_live, rate, int(declared) if is_sane else 0, path=path)
        super().__init__(info)
        self._capture = capture

    def _read(self) -> Picture | None:
        is_there, picture = self._capture.read()
        return picture if is_there else None

    def close(self) -> None:
        """Close the file or the device."""
        self._capture.release()


class FolderSource(Source):
    """The pictures of a folder by name; a file that is no picture is skipped and listed in `skipped`."""

    has_mixed_sizes = True

    def __init__(self, folder: Path, fps: float) -> None:
        self._paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
        if not self._paths:
            raise SourceError(f"no pictures in {folder} ({' '.join(PICTURE_SUFFIXES)})")
        super().__init__(SourceInfo(folder.name or str(folder), is_live=False, fps=fps, declared_frames=0))
        self._next = 0

    def _read(self) -> Picture | None:
        import cv2

        while self._next < len(self._paths):
            path = self._paths[self._next]
            self._next += 1
            picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if picture is not None:
                return np.asarray(picture, np.uint8)
            self.skipped.append(f"{path.name} is not a picture that can be read")
        return None


class PyAvSource(Source):
    """A file that only PyAV can read."""

    def __init__(self, container: Any, path: Path) -> None:  # noqa: ANN401 - av is an extra
        track = container.streams.video[0]
        fps = float(track.average_rate or DEFAULT_FPS)
        super().__init__(SourceInfo(path.name, False, fps, int(track.frames), path=path))  # noqa: FBT003
        self._container = container
        self._frames = container.decode(track)

    def _read(self) -> Picture | None:
        import av

        try:
            frame = next(self._frames, None)
        except av.FFmpegError:
            self.is_damaged = True
            return None
        return None if frame is None else frame.to_ndarray(format="bgr24")

    def close(self) -> None:
        """Close the file."""
        self._container.close()


def open_source(name: str) -> Source:
    """Open a video file, a folder, a device (`0` or `/dev/video0`) or a URL (`rtsp://...`).

    Raises:
        SourceError: the source cannot be read.
    """
    try:
        return _open(name)
    except OSError as error:
        shown = without_password(name) if "://" in name else name
        raise SourceError(f"{shown} cannot be read: {error.strerror}") from None


def _open(name: str) -> Source:
    """Do `open_source`. Raises OSError for errors of the file system."""
    path = Path(name)
    if name.isdigit() or name.startswith("/dev/"):
        return _open_capture(int(name) if name.isdigit() else name, f"device {name}", is_live=True)
    if "://" in name:
        return _open_capture(name, without_password(name), is_live=True)
    if path.is_dir():
        return FolderSource(path, DEFAULT_FPS)
    if not path.exists():
        kinds = "(a video file, a folder of pictures, a device such as 0, or a URL)"
        raise SourceError(f"{name} does not exist {kinds}{near_file(path, (*VIDEO_SUFFIXES, *PICTURE_SUFFIXES))}")
    if path.suffix.lower() in MODEL_SUFFIXES:
        raise SourceError(f"{name} is a model file, no video: serve it with `forebay serve {name}`")
    path.open("rb").close()  # OpenCV does not report the reason
    try:
        return _open_capture(name, path.name, is_live=False)
    except SourceError:
        return _open_with_pyav(path)


def _open_capture(target: str | int, name: str, *, is_live: bool) -> Source:
    import cv2

    _quieten()
    is_url = isinstance(target, str) and "://" in target
    capture = cv2.VideoCapture(target, cv2.CAP_FFMPEG, _url_limits()) if is_url else cv2.VideoCapture(target)
    if not capture.isOpened():
        capture.release()
        hint = "is it connected, and not in use by another program?" if is_live else "not a video that can be read"
        raise SourceError(f"{name} cannot be opened: {hint}")
    return CaptureSource(capture, name, target, is_live=is_live)


def _open_with_pyav(path: Path) -> Source:
    try:
        import av
    except ImportError:
        mend = install_hint("video")
        text = f"{path.name} is not a video that OpenCV can read (PyAV is tried, too, if it is there: {mend})"
        raise SourceError(text) from None
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        cut = ": it ends early, before its index: cut short" if ends_early(path) else ""
        raise SourceError(f"{path.name} is not a video that OpenCV or PyAV can read{cut}") from error
    if not container.streams.video:
        container.close()
        raise SourceError(f"{path.name} holds no video, only sound or data")
    return PyAvSource(container, path)


def _url_limits() -> list[int]:
    import cv2

    return [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, URL_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, URL_TIMEOUT_MS]


def _quieten() -> None:
    """Keep OpenCV's and FFmpeg's warnings off the terminal: this module's own messages report the errors."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET; read at the first capture
    import cv2

    set_level = getattr(getattr(cv2, "utils", None), "logging", None)
    if set_level is not None:
        set_level.setLogLevel(set_level.LOG_LEVEL_SILENT)


def without_password(url: str) -> str:
    """Return a URL without its password, for display: `rtsp://user:password@camera/1` becomes `rtsp://camera/1`."""
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path.partition('?')[0]}"
