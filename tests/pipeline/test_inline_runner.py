"""A batch that is alone in its lane and has little to do goes through all stages on the former's thread."""

import dataclasses

import pytest

from forebay_server.engines.device_host import HostDevice
from forebay_server.engines.device_simulated import SimulatedDevice
from forebay_server.service.pipeline.slots import SlotState
from tests.support.batching import MS, CoreRig, StrictLane, cost_model
from tests.support.lane import LaneDriver


def submitted(device_class, **expected):
    """A lane whose threads do not run, a batch that was submitted to it, and the value that `submit` returned."""
    lane = LaneDriver(2, device_class)
    batch = dataclasses.replace(lane.form(rows=2), **expected)
    return lane, batch, lane.pipeline.submit(batch)


def test_a_short_batch_on_an_empty_lane_is_answered_before_submit_returns():
    lane, batch, is_through = submitted(HostDevice, is_quick=True)
    assert is_through
    assert [completion.request for completion in lane.completions] == list(batch.requests)
    assert [completion.error for completion in lane.completions] == [None, None]
    assert {slot.state for slot in lane.slots} == {SlotState.FREE}
    assert lane.arena.leased_count == 0
    assert [stage.busy_since_ns for stage in lane.pipeline.stages] == [0, 0, 0]
    lane.pipeline.close()


@pytest.mark.parametrize(
    ("device_class", "expected"),
    [
        (HostDevice, {"is_quick": False}),
        (SimulatedDevice, {"is_quick": True}),
    ],
    ids=["it takes long", "the device is asynchronous"],
)
def test_any_other_batch_goes_from_thread_to_thread(device_class, expected):
    lane, batch, is_through = submitted(device_class, **expected)
    assert not is_through
    assert lane.completions == []
    assert lane.pipeline.channels[0].receive() is batch


@pytest.mark.parametrize("longer_ns", [0, 1])
def test_the_former_says_which_batch_is_alone_and_whether_it_is_quick(longer_ns):
    cost = cost_model()
    rig = CoreRig(cost=cost, inline_ns=int(cost.least_work_ns(1)) + longer_ns)
    (first,) = rig.arrive() and rig.batches
    rig.arrive()
    rig.advance(5)
    second = rig.batches[1]
    assert (first.is_alone, second.is_alone) == (True, False)
    assert (first.is_quick, second.is_quick) == (bool(longer_ns), False)


def test_the_former_looks_at_its_inbox_again_at_once_after_a_batch_that_went_through():
    class ThroughLane(StrictLane):
        def submit(self, batch):
            super().submit(batch)
            return True

    rig = CoreRig(lanes=[ThroughLane()])
    rig.arrive(step=False)
    rig.arrive(step=False)
    assert rig.core.step(rig.now_ns) == rig.now_ns
    assert rig.core.step(rig.now_ns + MS) != rig.now_ns + MS  # it is still in flight: its notices have not come


class HangsInTheNextBatch:
    """A former that runs the next batch through the last stage as soon as the slot is free, and hangs there."""

    def __init__(self, stage, since_ns):
        self._stage = stage
        self._since_ns = since_ns
        self.was_busy = None

    def compute_ended(self, batch, ended_ns, h2d_ns, execute_ns):
        self.was_busy = bool(self._stage.busy_since_ns)

    def slot_freed(self, lane_index, slot_index, d2h_ns):
        self._stage.busy_since_ns = self._since_ns


def test_the_end_of_a_batch_does_not_hide_that_the_next_one_hangs():
    lane = LaneDriver(2, HostDevice)
    last = lane.pipeline.d2h
    former = last.listener = HangsInTheNextBatch(last, since_ns=7)
    batch = lane.form()
    for stage in lane.pipeline.stages:
        stage.process(batch)
    assert former.was_busy
    assert last.busy_since_ns == 7
    lane.pipeline.close()
