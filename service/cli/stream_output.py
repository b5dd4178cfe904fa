"""Output of `forebay stream` for each result: a JSON line or the live view, and a frame of the annotated clip."""

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from forebay import Detection, Result
from forebay_server.service.cli.clip_writer import ClipWriter
from forebay_server.service.cli.overlay import annotate, summary_of
from forebay_server.service.cli.video import Picture

SHOWN_PER_S = 5


class Sink(Protocol):
    """Receives the results."""

    def show(self, index: int, result: Result) -> None:
        """Take the result of the source's frame `index`."""
        ...


class JsonLines:
    """One object for each frame, in order, on standard output."""

    def show(self, index: int, result: Result) -> None:
        """Print a line."""
        sys.stdout.write(json.dumps(to_json(index, result)) + "\n")
        sys.stdout.flush()


class LiveView:
    """One line of a terminal, rewritten a few times a second."""

    def __init__(self) -> None:
        from rich.live import Live
        from rich.text import Text

        self._text = Text  # not markup: labels and messages may have brackets
        self._live = Live(refresh_per_second=SHOWN_PER_S, transient=True)
        self._counts: Counter[str] = Counter()

    def show(self, index: int, result: Result) -> None:
        """Show the latest result."""
        self._counts[result.status.value] += 1
        counts = ", ".join(f"{count} {status}" for status, count in self._counts.items())
        age = "" if result.age_ms is None else f"  age {result.age_ms:.0f} ms"
        found = summary_of(result.detections) if result.is_ok else result.message
        self._live.update(self._text(f"frame {index}  {counts}{age}  {found}"))

    def __enter__(self) -> "LiveView":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()


class Output:
    """A sink and, if asked for, a clip."""

    def __init__(self, sink: Sink, clip: ClipWriter | None, name: str) -> None:
        self._sink = sink
        self._clip = clip
        self._name = name

    def take(self, index: int, picture: Picture, result: Result) -> None:
        """Show a result and draw it into its frame. Raises OSError if the clip cannot be written."""
        self._sink.show(index, result)
        if self._clip is not None:
            note = summary_of(result.detections) if result.is_ok else result.status.value.replace("_", " ")
            self._clip.write(annotate(picture, result.detections, self._name, note))


@contextlib.contextmanager
def open_output(path: Path | None, name: str, fps: float, *, is_json: bool) -> Iterator[Output]:
    """Open the output for the block. Raises ValueError if `path` is not the name of a clip."""
    with contextlib.ExitStack() as stack:
        clip = None if path is None else stack.enter_context(ClipWriter(path, fps))
        sink: Sink = JsonLines()
        if sys.stdout.isatty() and not is_json:
            sink = stack.enter_context(LiveView())
        yield Output(sink, clip, name)


def to_json(index: int, result: Result) -> dict[str, Any]:
    """Return a result as the object of a JSON line; raw tensors are left out."""
    line: dict[str, Any] = {"frame": index, "seq": result.seq, "status": result.status.value}
    if result.message:
        line["message"] = result.message
    if result.is_answered:
        line |= {
            "age_ms": None if result.age_ms is None else round(result.age_ms, 3),
            "late_by_ms": round(result.late_by_ms, 3),
            "model_version": result.model_version,
            "timings": asdict(result.timings),
        }
    if result.is_ok:
        line["detections"] = [_detection(found) for found in result.detections]
        line["classes"] = [_rounded(asdict(found)) for found in result.classes]
    return line


def _detection(found: Detection) -> dict[str, Any]:
    """Return a detection without the fields that its model or its stream does not have."""
    line: dict[str, Any] = _rounded(asdict(replace(found, mask=None)))
    for name in ("keypoints", "rotated_box", "track_id"):
        if not line[name]:
            del line[name]
    del line["mask"]
    if found.mask is not None:
        polygons = [np.round(points, 2).ravel().tolist() for points in found.mask.polygons]
        runs = found.mask.run_lengths
        line["mask"] = {"polygons": polygons} if runs is None else {"run_lengths": asdict(runs)}
    return line


def _rounded(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_rounded(item) for item in value]
    return round(value, 5) if isinstance(value, float) else value
