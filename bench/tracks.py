"""How well tracks last when frames are missing: HOTA on generated sequences, and the CPU time of an update.

Sequences of `track_scenes` lose 0, 30 or 60 % of their frames, scattered or in bursts, as under load. The tracker gets
the capture times of those that are left. Beside it, the same tracker gets times that only count frames, as trackers do
that know no time. Both are scored on the frames that are left. HOTA is in points of 100; seeds are fixed, so that it
repeats exactly. They are others than those with which the tracker's constants were chosen.
"""

import time
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from forebay_server.bench.hota import Frame, hota, overlap_of
from forebay_server.bench.rows import Row, Spread
from forebay_server.bench.track_scenes import INTERVAL_NS, Picture, kept_frames, pictures
from forebay_server.service.tracks.settings import TrackSettings
from forebay_server.service.tracks.tracker import Tracker

SEEDS = range(8)
LOSSES = {
    "all frames": (0.0, 1.0),
    "30 % removed, scattered": (0.3, 1 / 0.7),
    "30 % removed, bursts of 6": (0.3, 6.0),
    "60 % removed, scattered": (0.6, 2.5),
    "60 % removed, bursts of 9": (0.6, 9.0),
}
"""Name -> share that is removed, and mean length of a gap in frames; scattered is independent chance."""
POINTS_FOR_30 = -5.0  # of the tracker in time with 30 % removed, over frame numbers with all frames
POINTS_FOR_60 = 0.1  # over frame numbers with the same frames: above
CROWDS = (10, 50, 200)
CROWD_FRAMES = 120


def sequence_score(sequence: Sequence[Picture], kept: NDArray[np.intp], *, is_in_time: bool) -> float:
    """Track the frames that are left and return the points of HOTA.

    Args:
        sequence: all frames.
        kept: indices of those that are left.
        is_in_time: give capture times; otherwise frame numbers, as times of a camera that loses nothing.
    """
    tracker, frames = Tracker(TrackSettings()), []
    numbers: dict[int, int] = {}
    for place, index in enumerate(kept):
        picture = sequence[index]
        capture_ns = picture.capture_ns if is_in_time else place * INTERVAL_NS
        ids = tracker.update(capture_ns, picture.boxes, picture.scores, np.zeros(len(picture.scores), np.int64))
        is_tracked = ids > 0
        given = np.array([numbers.setdefault(each, len(numbers)) for each in ids[is_tracked].tolist()], np.int64)
        frames.append(Frame(picture.true_ids, given, overlap_of(picture.true_boxes, picture.boxes[is_tracked])))
    return 100 * hota(frames).hota


def scores(seeds: Sequence[int]) -> dict[str, tuple[list[float], list[float]]]:
    """Return for every loss the points in time and by frame numbers, one for each sequence."""
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in LOSSES}
    for seed in seeds:
        sequence = pictures(seed)
        for name, (removed, burst) in LOSSES.items():
            kept = kept_frames(seed, len(sequence), removed, burst)
            for points, is_in_time in zip(found[name], (True, False), strict=True):
                points.append(sequence_score(sequence, kept, is_in_time=is_in_time))
    return found


def update_us(objects: int, repeats: int) -> Spread:
    """Return the CPU time of an update in µs: every object is seen in every frame, a tenth of them with a low score."""
    chance = np.random.default_rng(objects)
    corner, velocity = chance.uniform(0, 1500, (objects, 2)), chance.uniform(-5, 5, (objects, 2))
    size = np.stack((chance.uniform(30, 60, objects), chance.uniform(80, 160, objects)), 1)
    corners = [corner + velocity * index + chance.normal(0, 2, corner.shape) for index in range(CROWD_FRAMES)]
    frames = [np.concatenate((each, each + size), 1).astype(np.float32) for each in corners]
    scores = np.where(np.arange(objects) % 10, 0.9, 0.3).astype(np.float32)
    classes = np.zeros(objects, np.int64)
    measured = []
    for _ in range(repeats + 1):  # the first one warms up
        tracker = Tracker(TrackSettings())
        before_s = time.thread_time()
        for index, boxes in enumerate(frames):
            # other objects have the low scores in each frame
            tracker.update(index * INTERVAL_NS, boxes, np.roll(scores, index), classes)
        measured.append((time.thread_time() - before_s) * 1e6 / len(frames))
    return Spread.of(measured[1:])


def rows(*, is_quick: bool) -> Iterator[Row]:
    """Score all sequences, or two if quick, and time updates."""
    found = scores(SEEDS[:2] if is_quick else SEEDS)
    whole = found["all frames"][1]
    for name, (in_time, by_frames) in found.items():
        yield Row(f"HOTA, {name}: by capture times", Spread.of(in_time), is_higher_better=True)
        yield Row(f"HOTA, {name}: by frame numbers", Spread.of(by_frames), is_higher_better=True)
    for name, (in_time, by_frames) in found.items():
        if name.startswith("30 %"):
            yield _difference(f"{name}: by capture times, over frame numbers with all frames", in_time, whole)
        if name.startswith("60 %"):
            yield _difference(f"{name}: by capture times over frame numbers", in_time, by_frames)
    for objects in CROWDS:
        yield Row(f"an update, {objects} objects: CPU", update_us(objects, 3 if is_quick else 9), "us")


def _difference(name: str, points: Sequence[float], others: Sequence[float]) -> Row:
    least = POINTS_FOR_30 if name.startswith("30 %") else POINTS_FOR_60
    differences = Spread.of([first - second for first, second in zip(points, others, strict=True)])
    return Row(f"HOTA, {name}", differences, budget=least, bar=least, is_higher_better=True, note="points, by sequence")
