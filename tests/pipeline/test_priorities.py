"""Which threads of a lane are nicer than the process: those that execute a model that is behind others, on the CPU."""

import os
import sys
import threading

import pytest

from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.device_host import LOW_NICENESS, HostDevice
from forebay_server.engines.device_simulated import SimulatedDevice
from forebay_server.service.pipeline.model_priority import ModelPriority
from tests.support.guard import HANG_GUARD_S
from tests.support.lane import LaneDriver

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads have no niceness of their own")

BEHIND = ModelPriority(level=1)


class Former:
    """Waits for the end of a batch: every stage has begun then."""

    def __init__(self):
        self.is_done = threading.Event()

    def arrive(self, request):
        pass

    def compute_ended(self, batch, ended_ns, h2d_ns, execute_ns):
        pass

    def slot_freed(self, lane_index, slot_index, d2h_ns):
        self.is_done.set()


@pytest.mark.parametrize(
    ("device_class", "priority", "added"),
    [
        (HostDevice, BEHIND, LOW_NICENESS),
        (HostDevice, ModelPriority(), 0),
        (HostDevice, ModelPriority(level=-1), 0),
        (SimulatedDevice, BEHIND, 0),
    ],
    ids=["behind", "normal", "first", "a device that ranks its streams"],
)
def test_only_what_executes_a_model_behind_others_is_nicer(device_class, priority, added):
    lane, former = LaneDriver(2, device_class, clock=MonotonicClock(), priority=priority), Former()
    usual = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    expected = [usual, min(19, usual + added), usual]
    lane.pipeline.start(former)
    assert not lane.pipeline.submit(lane.form())
    lane.waiting["h2d"].clear()
    assert former.is_done.wait(HANG_GUARD_S)
    threads = [stage._thread.native_id for stage in lane.pipeline.stages]
    assert [os.getpriority(os.PRIO_PROCESS, thread) for thread in threads] == expected
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == usual
    lane.close()
