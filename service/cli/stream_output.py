"""Output of `forebay stream` for each result: a JSON line or the live view, and a frame of the annotated clip."""

import contextlib
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from forebay import Result
from forebay_server.loadtest.places import place_fault
from forebay_server.service.cli.clip_writer import CannotWriteError, ClipWriter
from forebay_server.service.cli.json_line import json_line
from forebay_server.service.cli.overlay import annotate, summary_of
from forebay_server.service.cli.video import DEFAULT_FPS, Picture

if TYPE_CHECKING:
    from rich.text import Text

SHOWN_PER_S = 5
_NOT_IN_FILE_NAMES = re.compile(r"[^\w.]+")


class Sink(Protocol):
    """Receives the results of all cameras. Owner: the event loop."""

    def show(self, camera: str, index: int, file: str, result: Result) -> None:
        """Take the result of the camera's frame `index`, which comes from a file of this name, if not empty."""
        ...


class JsonLines:
    """One object for each frame, for each camera in order, on standard output."""

    def show(self, camera: str, index: int, file: str, result: Result) -> None:
        """Print a line; standard output is flushed at its end (`standard_streams`)."""
        sys.stdout.write(f"{json_line(camera, index, file, result)}\n")


class LiveView:
    """A line for each camera on a terminal, rewritten a few times a second by a thread of rich."""

    def __init__(self) -> None:
        from rich.live import Live
        from rich.text import Text

        self._text = Text  # not markup: labels and messages may have brackets
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._latest: dict[str, tuple[int, str, Result]] = {}
        self._live = Live(self, refresh_per_second=SHOWN_PER_S, transient=True)

    def show(self, camera: str, index: int, file: str, result: Result) -> None:
        """Note the latest result; the lines are written for the few that are shown."""
        self._counts[camera][result.status.value] += 1
        self._latest[camera] = index, file, result

    def __rich__(self) -> "Text":
        # Copies in one step: the thread that shows results may add a camera or a status meanwhile.
        return self._text("\n".join(self._line(camera, *latest) for camera, latest in list(self._latest.items())))

    def _line(self, camera: str, index: int, file: str, result: Result) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in list(self._counts[camera].items()))
        age = "" if result.age_ms is None else f"  age {result.age_ms:.0f} ms"
        found = summary_of(result.detections) if result.is_ok else result.message
        return f"{camera}  {file or f'frame {index}'}  {counts}{age}  {found}"

    def __enter__(self) -> "LiveView":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()


class AnnotatedClip:
    """One camera's clip, with the found objects drawn into its frames. Thread: one at a time."""

    def __init__(self, path: Path, camera: str) -> None:
        """Prepare a clip; the file appears with the first frame. Raises ValueError if `path` is not a clip's name."""
        self.path = path
        self._camera = camera
        self._writer = ClipWriter(path, DEFAULT_FPS)

    def begin(self, fps: float) -> None:
        """Take the rate of frames, before the first of them."""
        self._writer = ClipWriter(self.path, fps)

    def draw(self, picture: Picture, result: Result) -> None:
        """Append a frame. Raises CannotWriteError."""
        note = summary_of(result.detections) if result.is_ok else result.status.value.replace("_", " ")
        self._writer.write(annotate(picture, result.detections, self._camera, note))

    def close(self) -> None:
        """Finish the file. Idempotent. Raises CannotWriteError."""
        self._writer.close()


def clips_for(path: Path | None, cameras: Sequence[str]) -> list[AnnotatedClip | None]:
    """Return a clip for each camera; with several cameras their names become part of the files' names.

    Raises:
        ValueError: `path` is not the name of a clip, or two cameras would write the same file.
    """
    if path is None:
        return [None] * len(cameras)
    if len(cameras) == 1:
        return [AnnotatedClip(path, cameras[0])]
    plain = [_NOT_IN_FILE_NAMES.sub("-", camera).strip("-") for camera in cameras]
    if len({*plain, ""}) <= len(plain):
        raise ValueError("--output: the cameras' names do not give different file names; give --camera for each source")
    return [
        AnnotatedClip(path.with_name(f"{path.stem}-{name}{path.suffix}"), camera)
        for name, camera in zip(plain, cameras, strict=True)
    ]


def check_places(clips: Sequence[AnnotatedClip | None], sources: Sequence[str]) -> None:
    """Find clips that cannot be written, before a source or a connection is opened.

    Raises:
        ValueError: a clip would be written over a source.
        CannotWriteError: a clip cannot be written.
    """
    for clip in clips:
        if clip is None:
            continue
        if any(_is_same(clip.path, source) for source in sources):
            raise ValueError(f"--output: {clip.path} is a source itself; name another file")
        if problem := place_fault(clip.path):
            raise CannotWriteError(f"--output: {problem}")


def _is_same(path: Path, source: str) -> bool:
    try:
        return path.samefile(source)
    except OSError:  # one of the two is not there, or is no file
        return False


@contextlib.contextmanager
def open_sink(*, is_json: bool) -> Iterator[Sink]:
    """Open the output of all cameras for the block: a live view on a terminal, else JSON lines."""
    if not sys.stdout.isatty() or is_json:
        yield JsonLines()
        return
    with LiveView() as view:
        yield view
