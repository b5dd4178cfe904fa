"""Makes sequences of detections for which the true tracks are known: people who cross, turn, hide and stop.

Each person has a height that follows from the place in the picture (perspective), a speed relative to it, and a course
that wanders, turns at random times and sometimes stops. People nearer to the camera hide those behind. The detector
misses people, gives lower scores and less exact boxes to those who are hidden, and finds things that are not there.
Everything follows from a seed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 1920, 1080
FRAMES_PER_S = 30
INTERVAL_NS = 10**9 // FRAMES_PER_S
CLOCK_JITTER_NS = 2_000_000  # of a camera's capture times, standard deviation
HORIZON = 250.0  # pixels from the top; a person whose feet are there has a height of SMALLEST_PERSON
SMALLEST_PERSON, GROWTH = 60.0, 0.35  # pixels, and pixels of height per pixel below the horizon
TURNS_PER_S, STOPS_PER_S, STARTS_PER_S = 0.25, 0.05, 0.5
HIDDEN_FROM_TRUTH = 0.9  # people who are hidden by more than this are not looked for
MISS_RATE, HIDDEN_MISS_RATE = 0.04, 0.85  # of people in full sight, and of people who are hidden altogether
FALSE_PER_FRAME = 0.6


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame of a sequence: the truth and the detections.

    Attributes:
        capture_ns: by the camera's clock.
        true_ids: shape (people,).
        true_boxes: x1, y1, x2, y2 in pixels; shape (people, 4).
        boxes: of the detections, in the same form.
        scores: of the detections.
    """

    capture_ns: int
    true_ids: NDArray[np.int64]
    true_boxes: NDArray[np.float32]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]


class _People:
    """Places and courses of all people; a place is that of the feet, in pixels."""

    def __init__(self, count: int, chance: np.random.Generator) -> None:
        self._chance = chance
        self.ids = np.arange(count)
        self._next_id = count
        self.place = chance.uniform((0, HORIZON), (WIDTH, HEIGHT), (count, 2))
        self.course = chance.uniform(0, 2 * np.pi, count)
        self.speed = self._speeds(count)
        self.is_walking = np.ones(count, bool)
        self.breadth = chance.uniform(0.33, 0.45, count)
        self.stature = chance.uniform(0.9, 1.1, count)
        self.gait = chance.uniform(0, 2 * np.pi, count)

    def _speeds(self, count: int) -> NDArray[np.float64]:
        """Heights per second: most people walk, some run."""
        is_running = self._chance.random(count) < 0.2
        return np.where(is_running, self._chance.uniform(1.2, 2.2, count), self._chance.uniform(0.4, 1.0, count))

    def heights(self) -> NDArray[np.float64]:
        return (SMALLEST_PERSON + GROWTH * np.maximum(self.place[:, 1] - HORIZON, 0)) * self.stature

    def move(self, seconds: float) -> None:
        chance, count = self._chance, len(self.ids)
        self.course += chance.normal(0, 0.6 * np.sqrt(seconds), count)
        turns = chance.random(count) < TURNS_PER_S * seconds
        self.course[turns] += chance.uniform(-np.pi, np.pi, turns.sum())
        self.is_walking &= chance.random(count) >= STOPS_PER_S * seconds
        self.is_walking |= chance.random(count) < STARTS_PER_S * seconds
        path = self.heights() * self.speed * self.is_walking * seconds
        self.place[:, 0] += path * np.cos(self.course)
        self.place[:, 1] += path * np.sin(self.course) * 0.4  # the ground is seen at a slant
        self.gait += 2 * np.pi * 1.8 * seconds * self.is_walking
        self._replace_gone()

    def _replace_gone(self) -> None:
        x, y = self.place.T
        gone = np.flatnonzero((x < -60) | (x > WIDTH + 60) | (y < HORIZON - 40) | (y > HEIGHT + 60))
        count = len(gone)
        is_left = self._chance.random(count) < 0.5
        self.ids[gone] = self._next_id + np.arange(count)
        self._next_id += count
        self.place[gone, 0] = np.where(is_left, -40, WIDTH + 40)
        self.place[gone, 1] = self._chance.uniform(HORIZON, HEIGHT, count)
        self.course[gone] = np.where(is_left, 0, np.pi) + self._chance.normal(0, 0.4, count)
        self.speed[gone] = self._speeds(count)
        self.is_walking[gone] = True

    def boxes(self) -> NDArray[np.float64]:
        height = self.heights()
        half = height * self.breadth * (1 + 0.15 * np.sin(self.gait)) / 2
        x, y = self.place.T
        return np.stack((x - half, y - height, x + half, y), 1)


def pictures(seed: int, people: int = 16, seconds: float = 20.0) -> list[Picture]:
    """Return a sequence."""
    chance = np.random.default_rng(seed)
    crowd = _People(people, chance)
    found = []
    for index in range(int(seconds * FRAMES_PER_S)):
        if index:
            crowd.move(1 / FRAMES_PER_S)
        jitter_ns = float(np.clip(chance.normal(0, CLOCK_JITTER_NS), -INTERVAL_NS / 3, INTERVAL_NS / 3))
        found.append(_picture(index * INTERVAL_NS + int(jitter_ns), crowd, chance))
    return found


def _picture(capture_ns: int, crowd: _People, chance: np.random.Generator) -> Picture:
    whole = crowd.boxes()
    boxes = np.clip(whole, 0, (WIDTH, HEIGHT, WIDTH, HEIGHT))
    size = boxes[:, 2:] - boxes[:, :2]
    inside = size.prod(1) / (whole[:, 2:] - whole[:, :2]).prod(1)
    hidden = _hidden(boxes, crowd.place[:, 1])
    looked_for = np.flatnonzero((inside > 0.3) & (hidden <= HIDDEN_FROM_TRUTH))
    ids, boxes, size, hidden = crowd.ids[looked_for], boxes[looked_for], size[looked_for], hidden[looked_for]
    is_found = chance.random(len(ids)) >= MISS_RATE + (HIDDEN_MISS_RATE - MISS_RATE) * hidden
    inexact = boxes + np.tile(size, 2) * chance.normal(0, 1, boxes.shape) * (0.03 + 0.1 * hidden)[:, None]
    scores = np.clip(0.85 - 0.7 * hidden + chance.normal(0, 0.08, len(ids)), 0.05, 0.99)
    false_boxes, false_scores = _false(chance)
    return Picture(
        capture_ns,
        ids.copy(),
        boxes.astype(np.float32),
        np.concatenate((inexact[is_found], false_boxes)).astype(np.float32),
        np.concatenate((scores[is_found], false_scores)).astype(np.float32),
    )


def _hidden(boxes: NDArray[np.float64], nearness: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of each box that the nearer box which covers most of it covers."""
    sides = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    shared = np.maximum(sides, 0).prod(-1) / np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(1), 1)[:, None]
    is_nearer = nearness[None] > nearness[:, None]
    return np.asarray(np.where(is_nearer, shared, 0).max(1))


def _false(chance: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    count = chance.poisson(FALSE_PER_FRAME)
    corner = chance.uniform((0, HORIZON), (WIDTH - 100, HEIGHT - 200), (count, 2))
    height = chance.uniform(60, 200, count)
    size = np.stack((height * chance.uniform(0.3, 0.6, count), height), 1)
    return np.concatenate((corner, corner + size), 1), np.clip(chance.exponential(0.2, count) + 0.1, 0, 0.95)


def kept_frames(seed: int, count: int, removed: float, burst: float) -> NDArray[np.intp]:
    """Return the indices of the frames that are left.

    Args:
        seed: of the choice.
        count: of all frames.
        removed: share to remove, 0 to below 1.
        burst: mean number of frames that are removed one after the other; 1 / (1 - removed) is independent chance.
    """
    if not removed:
        return np.arange(count)
    chance = np.random.default_rng(seed + 1_000_000)
    ends, begins = 1 / burst, removed / (1 - removed) / burst
    is_kept, kept = True, []
    for index in range(count):
        if is_kept:
            kept.append(index)
        is_kept = chance.random() >= begins if is_kept else chance.random() < ends
    return np.asarray(kept)
