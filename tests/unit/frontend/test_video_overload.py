"""Many streams that share decoders, simulated with the real decision: beyond the capacity no collapse.

Two workers serve the streams round robin, one unit at a time, as the worker pool does. Times are numbers: no thread
waits. ADR 0217 has the frames in time.
"""

import heapq
import itertools
import random
from collections import deque
from dataclasses import dataclass, field

import pytest

from forebay_server.service.frontend.frames.video.lag import Effort, Lag

WORKERS, DECODE_S, KEYFRAME_FACTOR, REFUSE_S = 2, 0.008, 2.5, 30e-6
CAPACITY = WORKERS / DECODE_S
BUDGET_S, SECONDS, WARM_UP_S = 0.1, 30.0, 8.0


@dataclass(frozen=True)
class Cameras:
    """Frames a second, frames from keyframe to keyframe, and the share of frames that no other needs."""

    fps: float
    gop: int
    share_of_unneeded: float = 0.0
    stalls: tuple[float, float] = (1e9, 0.0)  # seconds between moments without cores, and of each

    def frames_in_time(self, load, seed=1):
        """In a second, when the cameras offer `load` times the capacity."""
        return _Run(self, round(load * CAPACITY / self.fps), random.Random(seed)).frames_in_time()  # noqa: S311


@dataclass
class _Stream:
    first: int
    starts_s: float
    lag: Lag = field(default_factory=lambda: Lag(round(BUDGET_S * 1e9)))
    waiting: deque = field(default_factory=deque)
    needs_keyframe: bool = True
    is_in_ring: bool = False


class _Run:
    def __init__(self, cameras, count, draw):
        self.cameras, self.draw = cameras, draw
        self.streams = [_Stream(draw.randrange(cameras.gop), draw.random() / cameras.fps) for _ in range(count)]
        self.ring, self.free = deque(), WORKERS
        self.stalled_s = draw.expovariate(1 / cameras.stalls[0])
        self.numbers = itertools.count()
        self.events = [(stream.starts_s, next(self.numbers), stream, 0) for stream in self.streams]
        heapq.heapify(self.events)

    def frames_in_time(self):
        found = 0
        while self.events:
            now_s, _, stream, what = heapq.heappop(self.events)
            if isinstance(what, int):
                self.arrive(now_s, stream, what)
            else:
                found += what[1] and what[0] > WARM_UP_S and now_s - what[0] <= BUDGET_S
                self.free += 1
                stream.is_in_ring = bool(stream.waiting)
                if stream.waiting:
                    self.ring.append(stream)
            while self.free and self.ring:
                self.begin(now_s, self.ring.popleft())
        return found / (SECONDS - WARM_UP_S)

    def arrive(self, now_s, stream, number):
        if now_s >= SECONDS:
            return
        is_keyframe = (number + stream.first) % self.cameras.gop == 0
        is_needed = is_keyframe or self.draw.random() >= self.cameras.share_of_unneeded
        stream.waiting.append((now_s, is_keyframe, is_needed))
        if not stream.is_in_ring:
            stream.is_in_ring = True
            self.ring.append(stream)
        due_s = stream.starts_s + (number + 1) / self.cameras.fps
        heapq.heappush(self.events, (due_s, next(self.numbers), stream, number + 1))

    def begin(self, now_s, stream):
        arrived_s, is_keyframe, is_needed = stream.waiting.popleft()
        is_decoded = False
        if is_keyframe or not stream.needs_keyframe:
            waited_ns, now_ns = round((now_s - arrived_s) * 1e9), round(now_s * 1e9)
            effort = stream.lag.effort(waited_ns, now_ns, is_keyframe=is_keyframe)
            stream.needs_keyframe = effort is Effort.NONE
            is_decoded = effort is Effort.ALL or (effort is Effort.NEEDED and is_needed)
        cost_s = self.cost_s(now_s, is_keyframe=is_keyframe) if is_decoded else REFUSE_S
        self.free -= 1
        heapq.heappush(self.events, (now_s + cost_s, next(self.numbers), stream, (arrived_s, is_decoded)))

    def cost_s(self, now_s, *, is_keyframe):
        between_s, stall_s = self.cameras.stalls
        while self.stalled_s + stall_s < now_s:
            self.stalled_s += stall_s + self.draw.expovariate(1 / between_s)
        stalled_s = max(0.0, self.stalled_s + stall_s - now_s) if now_s >= self.stalled_s else 0.0
        gop = self.cameras.gop
        usual = (gop - KEYFRAME_FACTOR) / (gop - 1) * self.draw.uniform(0.8, 1.2)
        return stalled_s + DECODE_S * (KEYFRAME_FACTOR if is_keyframe else usual)


@pytest.mark.parametrize("cameras", [Cameras(15, 30), Cameras(25, 250), Cameras(25, 12), Cameras(25, 12, 0.5)])
def test_at_twice_the_capacity_as_many_frames_are_in_time_as_at_once(cameras):
    half, once, twice, eight = (cameras.frames_in_time(load) for load in (0.5, 1, 2, 8))
    assert half == pytest.approx(CAPACITY / 2, rel=0.05)
    assert once > 0.95 * CAPACITY
    assert twice > 0.9 * once
    assert eight > 0.75 * once


def test_cores_that_are_away_for_moments_cost_little_more_than_their_absence():
    cameras = Cameras(15, 30, stalls=(0.4, 0.1))
    half, once, twice = (cameras.frames_in_time(load) for load in (0.5, 1, 2))
    assert half > 0.8 * CAPACITY / 2
    assert twice > 0.8 * once > 0.4 * CAPACITY
