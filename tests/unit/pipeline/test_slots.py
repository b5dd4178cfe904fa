"""Slots move along their table and no other way, and the pool hands out only free slots."""

import itertools
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from forebay_server.engines import open_device
from forebay_server.service.errors import InvariantError
from forebay_server.service.pipeline.slots import TRANSITIONS, Slot, SlotPool, SlotState
from tests.support.clock import ManualClock
from tests.support.front_end import specs_of

STATES = list(SlotState)
ROUND = [
    SlotState.FREE,
    SlotState.RESERVED,
    SlotState.FILLING,
    SlotState.UPLOADING,
    SlotState.EXECUTING,
    SlotState.DOWNLOADING,
    SlotState.READY,
    SlotState.FREE,
]


def host_device():
    return open_device("cpu", clock=ManualClock())


class SlotRules(RuleBasedStateMachine):
    @initialize(count=st.integers(1, 4))
    def create(self, count):
        self.device = host_device()
        self.pool = SlotPool(tuple(Slot(i, self.device, specs_of()) for i in range(count)))
        self.states = dict.fromkeys(range(count), SlotState.FREE)
        self.free = deque(range(count))

    @rule()
    def reserve(self):
        slot = self.pool.try_reserve()
        if not self.free:
            assert slot is None
            return
        assert slot is not None
        assert slot.index == self.free.popleft(), "not the one that has been free longest"
        self.states[slot.index] = SlotState.RESERVED

    @rule(data=st.data(), state=st.sampled_from([s for s in STATES if s is not SlotState.FREE]))
    def move(self, data, state):
        index = data.draw(st.sampled_from(sorted(self.states)))
        slot = self.pool.slots[index]
        if self.states[index] is SlotState.FREE:
            return  # only the pool moves a free slot
        if state in TRANSITIONS[self.states[index]]:
            slot.move_to(state)
            self.states[index] = state
        else:
            with pytest.raises(InvariantError):
                slot.move_to(state)

    @rule(data=st.data())
    def release(self, data):
        index = data.draw(st.sampled_from(sorted(self.states)))
        slot = self.pool.slots[index]
        if SlotState.FREE in TRANSITIONS[self.states[index]]:
            self.pool.release(slot)
            self.states[index] = SlotState.FREE
            self.free.append(index)
        else:
            with pytest.raises(InvariantError):
                self.pool.release(slot)

    @precondition(lambda self: not self.free)
    @rule()
    def nothing_is_left(self):
        assert self.pool.try_reserve() is None

    @invariant()
    def the_pool_agrees(self):
        assert self.pool.free_count == len(self.free)
        assert {slot.index: slot.state for slot in self.pool.slots} == self.states

    def teardown(self):
        if hasattr(self, "pool"):
            self.pool.close()
            self.device.close()


SlotRules.TestCase.settings = settings(stateful_step_count=40)
TestSlotRules = SlotRules.TestCase


def test_the_round_of_the_design_is_in_the_table():
    for state, following in itertools.pairwise(ROUND):
        assert following in TRANSITIONS[state]
    assert SlotState.FREE in TRANSITIONS[SlotState.RESERVED]


def test_no_stage_can_be_left_out():
    for state in STATES:
        forward = TRANSITIONS[state] - {SlotState.FAILED, SlotState.FREE}
        assert len(forward) <= 1
    assert {s for s in STATES if SlotState.FREE in TRANSITIONS[s]} == {
        SlotState.RESERVED,
        SlotState.UPLOADING,  # of a batch that was taken back before its execution
        SlotState.READY,
        SlotState.FAILED,
    }


def test_every_state_but_free_can_fail_and_a_failed_slot_can_only_be_freed():
    for state in set(STATES) - {SlotState.FREE, SlotState.FAILED}:
        assert SlotState.FAILED in TRANSITIONS[state]
    assert TRANSITIONS[SlotState.FAILED] == {SlotState.FREE}
    assert SlotState.FAILED not in TRANSITIONS[SlotState.FREE]


def test_a_slot_holds_the_largest_batch_of_every_input_and_output():
    device = host_device()
    specs = specs_of(((4, 4, 3), (7,)), ((5,),), max_batch_size=3)
    slot = Slot(0, device, specs)
    assert [buffer.nbytes for buffer in slot.host_inputs] == [3 * 48, 3 * 7]
    assert [buffer.nbytes for buffer in slot.device_inputs] == [3 * 48, 3 * 7]
    assert [buffer.nbytes for buffer in slot.host_outputs] == [3 * 5]
    assert slot.buffers.inputs == slot.device_inputs
    assert slot.current_outputs == slot.device_outputs
    slot.close()
    slot.close()
    device.close()
