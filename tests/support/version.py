"""A model version with all its threads, without a server: opened as the registry does, answered into a list."""

import threading
from contextlib import contextmanager
from itertools import count

import numpy as np

from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.device_simulated import SimulatedDevice
from forebay_server.service.models.config import describe
from forebay_server.service.models.opening import open_version
from forebay_server.service.models.placement import open_device_of_kind
from forebay_server.service.models.repository import Repository
from forebay_server.service.models.version_context import VersionContext
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.pipeline.slots import SlotState
from forebay_server.service.results.wants import Wants
from forebay_server.service.worker_pool import WorkerPool
from tests.support.guard import HANG_GUARD_S
from tests.support.real_server import ROW_BYTES
from tests.support.requests import frame_request

TENSORS = Wants(options=None, tensor_indices=(0,))


class Answers:
    """Implements CompletionSink: keeps completions, and lets a test wait for them."""

    def __init__(self):
        self.completions = []
        self._changed = threading.Condition()

    def post(self, completions):
        with self._changed:
            self.completions.extend(c for c in completions if c.request.stream.name != "calibration")
            self._changed.notify_all()

    def wait_for(self, number):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.completions) >= number, HANG_GUARD_S), self.completions


class Workshop:
    """Opens versions of the models of one repository and sends them requests."""

    def __init__(self, root, *, device=None, permits=64):
        self.clock = MonotonicClock()
        self.device = device
        self.devices = []
        self.versions = []
        self.answers = Answers()
        self.fatal = []
        self.before_buffers = lambda: None
        self.open_memory = None
        self.permits = Permits(permits)
        self.pool = WorkerPool(1, self.fatal.append)
        self._root = root
        self._ids = count(1)

    def context(self, **fields):
        return VersionContext(
            self.clock,
            self.pool,
            self.answers,
            self.permits,
            self.fatal.append,
            {},
            self._open_device,
            before_buffers=self.before_buffers,
            open_memory=self.open_memory,
            **fields,
        )

    def _open_device(self, kind, clock):
        self.devices.append(open_device_of_kind(kind, clock) if self.device is None else self.device(clock))
        return self.devices[-1]

    def open(self, name="sim"):
        (entry,) = [entry for entry in Repository([self._root]).models() if entry.name == name]
        self.versions.append(open_version(describe(entry), "1", None, self.context()))
        return self.versions[-1]

    def request(self, version, stream=None, deadline_ns=None):
        """A request whose row identifies it."""
        request_id = next(self._ids)
        lease = version.arena.lease()
        lease.host.write_view()[:ROW_BYTES] = request_id % 251
        return frame_request(
            request_id, lease, stream=stream, arrival_ns=self.clock.now_ns(), deadline_ns=deadline_ns, wants=TENSORS
        )

    def send(self, version, number):
        requests = [self.request(version) for _ in range(number)]
        for request in requests:
            version.arrive(request)
        return requests

    def check(self, requests):
        """Every request has one completion, and the good ones carry their own row."""
        self.answers.wait_for(len(requests))
        completed = [completion.request.id for completion in self.answers.completions]
        assert sorted(completed) == sorted(request.id for request in requests)
        for completion in self.answers.completions:
            if completion.error is None:
                row = np.full((1, ROW_BYTES), completion.request.id % 251, np.uint8)
                np.testing.assert_array_equal(completion.outputs[0], row)


def check_idle(workshop, version):
    """After a close: everything is back and every thread has ended."""
    assert workshop.permits.taken_count == 0
    assert version.arena.leased_count == 0
    assert {slot.state for lane in version.lanes for slot in lane.pool.slots} == {SlotState.FREE}
    assert all(lane.pool.free_count == lane.slot_count for lane in version.lanes)
    assert all(stage.join(0) for lane in version.lanes for stage in lane.stages)
    assert version.former.join(0)


@contextmanager
def workshop_of(root, **options):
    workshop = Workshop(root, **options)
    try:
        yield workshop
    finally:
        for version in workshop.versions:  # left by a test that failed
            version.former.stop()
            for lane in version.lanes:
                getattr(lane.execute.device_stream, "release", int)()
                lane.channels[0].close()
        workshop.pool.close()


def simulated_device(**options):
    return lambda clock: SimulatedDevice(clock=clock, **options)
