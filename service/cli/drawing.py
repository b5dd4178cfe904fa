"""Drawings of the demo's detections; frames are read from the clip again, to keep drawing out of the measurement."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from forebay import Detection
from forebay_server.service.cli.clip_writer import CannotWriteError, ClipWriter
from forebay_server.service.cli.overlay import annotate, summary_of, tile
from forebay_server.service.cli.video import Picture, open_source

Findings = Mapping[int, Sequence[Detection]]


def draw_picture(path: Path, clip: str, cameras: Sequence[tuple[str, Findings]]) -> None:
    """Write one picture with the best frame of each camera side by side. Raises CannotWriteError."""
    import cv2

    chosen = [(name, *_best(findings)) for name, findings in cameras]
    frames = _frames_at(clip, {index for _, index, _ in chosen})
    pictures = [annotate(frames[index], found, name, summary_of(found)) for name, index, found in chosen]
    if not cv2.imwrite(str(path), tile(pictures)):
        raise CannotWriteError(f"cannot write {path}")


def draw_clip(path: Path, clip: str, name: str, findings: Findings, fps: float) -> None:
    """Write the answered frames of the clip, in their order, as a film."""
    frames_by_index = sorted(findings)
    with ClipWriter(path, fps) as writer, open_source(clip) as source:
        for index, picture in enumerate(source):
            if index > frames_by_index[-1]:
                return
            if index in findings:
                found = findings[index]
                writer.write(annotate(picture, found, name, summary_of(found)))


def _best(findings: Findings) -> tuple[int, Sequence[Detection]]:
    """Return the frame with the most detections at the highest confidence."""
    return max(findings.items(), key=lambda item: sum(found.score for found in item[1]))


def _frames_at(clip: str, indexes: set[int]) -> dict[int, Picture]:
    with open_source(clip) as source:
        frames: dict[int, Picture] = {}
        for index, picture in enumerate(source):
            if index in indexes:
                frames[index] = picture
            if len(frames) == len(indexes):
                break
        return frames
