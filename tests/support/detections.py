"""Builders and strategies of detections for trackers."""

import numpy as np
from hypothesis import strategies as st

from forebay_server.service.tracks.settings import TrackSettings
from forebay_server.service.tracks.tracker import Tracker

S = 10**9
FRAME_NS = S // 30


def frame(*objects, score=0.9, class_id=0):
    """The detections of squares of 100 pixels around points (x, y), or of (x, y, score), or of (x, y, score, class)."""
    rows = [(*values, *(score, class_id)[len(values) - 2 :]) for values in objects]
    boxes = np.array([(x - 50, y - 50, x + 50, y + 50) for x, y, *_ in rows], np.float32).reshape(-1, 4)
    return boxes, np.array([row[2] for row in rows], np.float32), np.array([row[3] for row in rows], np.int64)


def tracker_of(*frames, interval_ns=FRAME_NS, **settings):
    """A tracker that has seen these frames, the first at time 0, and the ids of the last one."""
    tracker = Tracker(TrackSettings(**settings))
    ids = np.zeros(0, np.int64)
    for index, detections in enumerate(frames):
        ids = tracker.update(index * interval_ns, *detections)
    return tracker, ids.tolist()


@st.composite
def crowds(draw, most_frames=12, most_objects=6):
    """Frames of objects that move, appear and vanish: (elapsed_ns, boxes, scores, classes) of each; boxes differ."""
    places = draw(st.lists(st.tuples(*[st.integers(0, 800)] * 2), min_size=1, max_size=most_objects, unique=True))
    places = np.array(places, np.float32)
    frames = []
    for _ in range(draw(st.integers(1, most_frames))):
        seed = draw(st.integers(0, 2**32 - 1))
        chance = np.random.default_rng(seed)
        places = places + chance.normal(0, 8, places.shape).astype(np.float32)
        seen = chance.random(len(places)) < 0.85
        half = chance.uniform(20, 30, (seen.sum(), 2)).astype(np.float32)
        boxes = np.concatenate((places[seen] - half, places[seen] + half), 1)
        classes = np.flatnonzero(seen) % 2
        scores = chance.uniform(0.05, 1.0, seen.sum()).astype(np.float32)
        frames.append((draw(st.sampled_from((0, FRAME_NS, 3 * FRAME_NS, S // 2, 2 * S))), boxes, scores, classes))
    return frames


NUMBERS = st.floats(width=32) | st.floats(-100, 1000, width=32)


@st.composite
def hostile_frames(draw):
    """Frames of any numbers: (capture_ns, boxes, scores, classes) of each, from any clock."""
    frames = []
    for _ in range(draw(st.integers(1, 5))):
        count = draw(st.integers(0, 6))
        boxes = draw(st.lists(st.tuples(*[NUMBERS] * 4), min_size=count, max_size=count))
        scores = draw(st.lists(st.floats(width=32) | st.floats(0, 1, width=32), min_size=count, max_size=count))
        classes = draw(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 1), min_size=count, max_size=count))
        capture_ns = draw(st.integers(-(2**70), 2**70) | st.integers(0, 3 * S))
        arrays = np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(classes, np.int64)
        frames.append((capture_ns, *arrays))
    return frames
