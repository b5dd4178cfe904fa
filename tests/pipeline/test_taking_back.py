"""A batch that the former takes back while it waits in its lane: none of it is executed, and its slot comes back."""

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.device_host import HostDevice
from forebay_server.engines.device_simulated import FaultPlan, SimulatedDevice
from forebay_server.engines.errors import ExecutionError
from forebay_server.service.pipeline.slots import SlotState
from tests.support.guard import HANG_GUARD_S
from tests.support.lane import LaneDriver

DEVICES = {"host": HostDevice, "simulated": SimulatedDevice}


class Former:
    """Notices of a lane to the former: freed slots, requests to run again."""

    def __init__(self, freed=lambda slot_index: None):
        self.freed = []
        self.arrived = []
        self._freed = freed

    def arrive(self, request):
        self.arrived.append(request)

    def compute_ended(self, batch, ended_ns, h2d_ns, execute_ns):
        assert batch.claim.is_started

    def slot_freed(self, lane_index, slot_index, d2h_ns):
        self.freed.append(slot_index)
        self._freed(slot_index)


def take_back(batch):
    """Take a batch back as the former does, and let its frames go at once; whether that worked."""
    if not batch.claim.withdraw():
        return False
    for request in batch.requests:
        request.frame.release()
    batch.requests = ()
    return True


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("stage", ["h2d", "execute"])
def test_a_batch_can_be_taken_back_until_it_starts(device, stage):
    lane = LaneDriver(2, DEVICES[device])
    lane.pipeline.d2h.listener = former = Former()
    batch = lane.form()
    if stage == "execute":
        lane.step("h2d")
    is_possible = device == "host" or stage == "h2d"  # elsewhere the upload goes on: the frames must stay
    assert take_back(batch) is is_possible
    lane.run(batches=0)
    assert len(lane.completions) == (0 if is_possible else 2)
    assert former.freed == [0]
    assert {slot.state for slot in lane.slots} == {SlotState.FREE}
    assert lane.arena.leased_count == 0
    assert [pipeline_stage.busy_since_ns for pipeline_stage in lane.pipeline.stages] == [0, 0, 0]
    lane.close()


@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_that_executes_stays(device):
    lane = LaneDriver(2, DEVICES[device])
    batch = lane.form()
    lane.step("h2d")
    lane.step("execute")
    assert not take_back(batch)
    lane.run(batches=0)
    lane.check_answers()
    assert len(lane.completions) == 2
    lane.close()


@given(
    device=st.sampled_from(sorted(DEVICES)),
    slot_count=st.sampled_from([1, 2, 3]),
    steps=st.lists(st.sampled_from(["form", "h2d", "execute", "d2h", "take back"]), max_size=60),
)
def test_no_interleaving_with_the_stages_loses_or_mixes_anything(device, slot_count, steps):
    lane = LaneDriver(slot_count, DEVICES[device])
    formed = taken_back = 0
    for step in steps:
        if step == "form":
            formed += len(batch.requests) if (batch := lane.form()) is not None else 0
        elif step == "take back":
            for batch in [*lane.waiting["h2d"], *lane.waiting["execute"]]:
                rows = len(batch.requests)
                taken_back += rows if take_back(batch) else 0
        elif lane.waiting[step]:
            lane.step(step)
    lane.run(batches=0)
    assert len(lane.completions) == formed - taken_back
    lane.check_answers()
    if device == "simulated":
        assert lane.device.races == ()
    assert lane.arena.leased_count == 0
    assert {slot.state for slot in lane.slots} == {SlotState.FREE}
    lane.close()


def test_a_failed_upload_of_a_batch_that_was_taken_back_afterwards_is_nobodys_failure():
    lane = LaneDriver(2, HostDevice)
    lane.pipeline.d2h.listener = former = Former()
    batch = lane.form()
    requests, batch.requests = batch.requests, None  # makes the upload fail
    lane.step("h2d")
    assert batch.error is not None
    batch.requests = requests
    assert take_back(batch)
    lane.run(batches=0)
    assert (lane.completions, former.arrived, former.freed) == ([], [], [0])
    assert {slot.state for slot in lane.slots} == {SlotState.FREE}
    lane.close()


def test_a_failed_batch_that_was_not_taken_back_in_time_is_answered_by_the_lane():
    lane = LaneDriver(1)
    lane.device.arm(FaultPlan(fail={("copy_h2d", 0): ExecutionError("as the test asks")}))
    batch = lane.form(rows=1)
    lane.step("h2d")
    lane.step("execute")
    assert not take_back(batch)
    lane.run(batches=0)
    assert len(lane.completions) == 1
    lane.close()


def test_threads_that_meet_give_each_request_one_end():
    lane = LaneDriver(4, HostDevice, clock=MonotonicClock())
    freed = threading.Semaphore(0)
    lane.pipeline.start(Former(lambda slot_index: freed.release()))
    formed = taken_back = 0
    for number in range(600):
        batch = lane.form(rows=1)
        lane.waiting["h2d"].clear()
        formed += 1
        lane.pipeline.submit(batch)
        for _ in range((number % 12) ** 3):
            os.access("/", os.F_OK)  # lets go of the interpreter's lock, and keeps the core: the lane gets some way
        taken_back += take_back(batch)
        assert freed.acquire(timeout=HANG_GUARD_S)
    assert len(lane.completions) == formed - taken_back
    lane.check_answers()
    assert lane.arena.leased_count == 0
    assert {slot.state for slot in lane.slots} == {SlotState.FREE}
    lane.close()
