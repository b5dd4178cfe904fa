"""Writes annotated frames as a clip. OpenCV, imported on first use."""

from pathlib import Path
from typing import TYPE_CHECKING, Self

from forebay_server.service.cli.video import Picture

if TYPE_CHECKING:
    import cv2

CODES = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v"}


class CannotWriteError(OSError):
    """A picture or a clip cannot be written. The message names the file."""


class ClipWriter:
    """A clip of frames of one size, that of the first; later ones are scaled to it. Use it in `with`."""

    def __init__(self, path: Path, fps: float) -> None:
        """Prepare a clip; the file appears with the first frame.

        Raises:
            ValueError: no container is known for the suffix.
        """
        if path.suffix.lower() not in CODES:
            raise ValueError(f"{path}: a clip's name ends in {', '.join(CODES)}")
        self._path = path
        self._fps = fps
        self._size = (0, 0)
        self._writer: cv2.VideoWriter | None = None

    def write(self, picture: Picture) -> None:
        """Append a frame. Raises CannotWriteError."""
        import cv2

        height, width = picture.shape[:2]
        if self._writer is None:
            self._size = (width, height)
            try:
                self._path.open("wb").close()  # OpenCV reports neither the failure nor its reason
            except OSError as error:
                raise CannotWriteError(f"cannot write {self._path}: {error.strerror}") from None
            code = cv2.VideoWriter.fourcc(*CODES[self._path.suffix.lower()])
            self._writer = cv2.VideoWriter(str(self._path), code, self._fps, self._size)
            if not self._writer.isOpened():
                raise CannotWriteError(f"cannot write {self._path}")
        scaled = picture if (width, height) == self._size else cv2.resize(picture, self._size)
        self._writer.write(scaled)

    def close(self) -> None:
        """Finish the file. Idempotent. Raises CannotWriteError."""
        import cv2

        if self._writer is not None:
            self._writer.release()
            self._writer = None
            # OpenCV reports no error for frames that the disk did not take, so read the result back.
            if not cv2.VideoCapture(str(self._path)).read()[0]:
                raise CannotWriteError(f"cannot write {self._path}: the existing file cannot be read")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
