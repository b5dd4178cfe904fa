"""Cameras beside clients that take all they can get, in virtual time: the real shares in front of the real former.

A permit is in use from its arrival until compute has ended, as on the CPU. Clients see no transport but
`ROUND_TRIP_NS`. Only frames sent after `WARM_UP_NS` count: a client that comes to a full server is refused until it is
known.
"""

import heapq
import itertools

import numpy as np

from forebay_server.bench.virtual_lane import VirtualLane
from forebay_server.bench.virtual_time import cost_of
from forebay_server.service.batching.core import FormerCore
from forebay_server.service.batching.egress_time import EgressTime
from forebay_server.service.batching.settings import BatchingSettings
from forebay_server.service.pipeline.shares import Share, Shares
from forebay_server.service.request import Delivery, Request, StreamKey

MS = 1_000_000
SECOND_NS = 1_000_000_000
ROUND_TRIP_NS = 2 * MS
RETRY_NS = 20 * MS
WARM_UP_NS = SECOND_NS


class Client:
    """One stream, or the calls of one connection.

    Args:
        budget_ns: of each of its frames, None for none.
        fps: of a camera; None for a greedy client.
        window: of a greedy client: how many it has in flight.
        weight: as how many streams it counts.
        are_calls: whether its requests have no order.
    """

    def __init__(self, budget_ns, *, fps=None, window=0, weight=1, are_calls=False):
        self.budget_ns, self.fps, self.window = budget_ns, fps, window
        self.key = StreamKey("client", Delivery.EVERY, is_ordered=not are_calls, weight=weight)
        self.share = Share(weight)
        self.sent = self.executed = self.in_time = self.refused = 0

    @property
    def in_time_share(self):
        return self.in_time / self.sent


class Lease:
    """The permit of one request, see service.request.FrameBuffer."""

    def __init__(self, shares, share):
        self._shares, self._share = shares, share
        self.is_released = False

    def release(self):
        if not self.is_released:
            self.is_released = True
            self._shares.give_back(self._share)


class Sharing:
    """One run."""

    def __init__(self, executor, permits, clients, seconds, seed=1):
        self.now_ns = 0
        self.shares = Shares(permits)
        self._lane = VirtualLane(0, executor.costs, lambda: self.now_ns, seed=seed)
        settings = BatchingSettings(executor.max_batch_size)
        self._core = FormerCore([self._lane], cost_of(executor), settings, egress_time=EgressTime())
        self._events = []  # (instant, order, client or lane event)
        self._numbers = itertools.count()
        self._clients = {}  # by request
        self._end_ns = int(seconds * SECOND_NS)
        phases = np.random.default_rng(seed).uniform(0, 1, len(clients)).tolist()
        for client, phase in zip(clients, phases, strict=True):
            frames = int(seconds * client.fps) if client.fps else client.window
            for frame in range(frames):
                self._at(int((phase + frame) * SECOND_NS / client.fps) if client.fps else 0, client)

    def run(self):
        wake_ns = None
        while self._events or wake_ns is not None:
            due = [self._events[0][0]] if self._events else []
            self.now_ns = max(self.now_ns, min(due if wake_ns is None else [*due, wake_ns]))
            while self._events and self._events[0][0] <= self.now_ns:
                what = heapq.heappop(self._events)[2]
                self._send(what) if isinstance(what, Client) else self._apply(what)
            wake_ns = self._core.step(self.now_ns)
            for event in self._lane.events:
                self._at(event.at_ns, event)
            self._lane.events.clear()
            for completion in self._core.take_ended():
                self._answered(completion.request, ROUND_TRIP_NS)
        assert self.shares.in_use == 0

    def _at(self, at_ns, what):
        heapq.heappush(self._events, (at_ns, next(self._numbers), what))

    def _send(self, client):
        if self.now_ns >= self._end_ns:
            return
        is_counted = self.now_ns >= WARM_UP_NS
        client.sent += is_counted
        if not self.shares.take(client.share, self.now_ns):
            client.refused += is_counted
            self._again(client, RETRY_NS)
            return
        deadline_ns = None if client.budget_ns is None else self.now_ns + client.budget_ns
        lease = Lease(self.shares, client.share)
        number = next(self._numbers)
        request = Request(number, client.key, 1, None, deadline_ns, self.now_ns, 1, lease, lambda _: None)
        self._clients[number] = client
        self._core.arrive(request, self.now_ns)

    def _again(self, client, after_ns):
        if client.window:
            self._at(self.now_ns + after_ns, client)

    def _answered(self, request, after_ns):
        client = self._clients.pop(request.id)
        self._again(client, after_ns)
        return client

    def _apply(self, event):
        batch = event.batch
        if not event.is_slot_freed:
            for request in batch.requests:
                request.frame.release()
            self._core.compute_ended(batch, event.at_ns, event.h2d_ns, event.execute_ns)
            return
        for request in batch.requests:
            client = self._answered(request, ROUND_TRIP_NS)
            if request.arrival_ns >= WARM_UP_NS:
                client.executed += 1
                client.in_time += request.deadline_ns is None or self.now_ns <= request.deadline_ns
        self._lane.unreserve(batch.slot_index)
        self._core.slot_freed(batch.lane_index, batch.slot_index, event.d2h_ns)
