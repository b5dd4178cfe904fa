"""Picture files for `forebay stream`: JPEG and PNG files are sent as they are, whole or not; the server judges them."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from forebay_server.service.cli.video import DEFAULT_FPS, PICTURE_SUFFIXES, Picture, Source, SourceError, SourceInfo

Kind = Literal["jpeg", "png"]
JPEG_QUALITY = 95
_KINDS: dict[str, Kind] = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png"}
_HEADS: dict[Kind, bytes] = {"jpeg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n"}


@dataclass(frozen=True, slots=True)
class PictureFile:
    """One file.

    Attributes:
        name: within its folder.
        data: its contents.
    """

    name: str
    data: bytes

    def decoded(self) -> Picture | None:
        """Return the pixels; None if it is not a whole picture."""
        import cv2

        if not self.data:
            return None
        picture = cv2.imdecode(np.frombuffer(self.data, np.uint8), cv2.IMREAD_COLOR)
        return None if picture is None else np.asarray(picture, np.uint8)

    def as_kind(self, kind: Kind) -> bytes:
        """Return the file as a file of this kind; as it is if it is one already, or cannot be decoded."""
        if self.data.startswith(_HEADS[kind]):
            return self.data
        picture = self.decoded()
        return self.data if picture is None else encoded(picture, kind)


class PictureFiles(Source):
    """The files of a folder by name, or one file; a file that cannot be read is listed in `skipped`.

    Attributes:
        encoding: the kind of most files; files of another kind are converted to it.
    """

    has_mixed_sizes = True

    def __init__(self, path: Path) -> None:
        paths = [path] if path.is_file() else sorted(each for each in path.iterdir() if is_picture(each))
        if not paths:
            raise SourceError(f"no pictures in {path} ({' '.join(PICTURE_SUFFIXES)})")
        super().__init__(SourceInfo(path.name or str(path), is_live=False, fps=DEFAULT_FPS, declared_frames=0))
        kinds = Counter(_KINDS.get(each.suffix.lower()) for each in paths)
        self.encoding: Kind = "png" if kinds["png"] > len(paths) / 2 else "jpeg"
        self._paths = iter(paths)
        if others := len(paths) - kinds[self.encoding]:
            how = f"JPEG of quality {JPEG_QUALITY}" if self.encoding == "jpeg" else "PNG"
            self.remark = f"{others} of {len(paths)} files are no {self.encoding.upper()} and are sent as {how}"

    def _read(self) -> PictureFile | None:  # type: ignore[override]  # a file, where other sources have pictures
        for path in self._paths:
            try:
                return PictureFile(path.name, path.read_bytes())
            except OSError as error:
                self.skipped.append(f"{path.name} cannot be read: {error.strerror}")
        return None


def is_picture(path: Path) -> bool:
    """Whether the name is that of a picture file."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def encoded(picture: Picture, kind: Kind) -> bytes:
    """Return a picture as a file."""
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if kind == "jpeg" else []
    return cv2.imencode(f".{kind}", picture, options)[1].tobytes()
