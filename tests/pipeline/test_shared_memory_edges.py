"""Ordering across processes: each edge removed once, and the simulated device must find the race."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.engines.errors import RaceError
from forebay_server.service.request import Completion
from tests.pipeline.test_ordering_edges import DeviceWithoutDownloadedSync, DeviceWithoutWaits
from tests.support.lane import ROW_BYTES
from tests.support.shared_lane import SharedLaneDriver

SLOT_COUNTS = [1, 2, 3]


@pytest.fixture
def open_lane():
    """Opens lanes whose sockets are closed at the end: after a race they cannot be closed in order."""
    lanes = []

    def open_(*args, **options):
        lanes.append(SharedLaneDriver(*args, **options))
        return lanes[-1]

    yield open_
    for lane in lanes:
        lane.hang_up()


@pytest.mark.parametrize("slot_count", SLOT_COUNTS)
@pytest.mark.parametrize("gather_below_bytes", [0, ROW_BYTES + 1])
def test_frames_of_another_process_have_no_race(open_lane, slot_count, gather_below_bytes):
    lane = open_lane(slot_count, gather_below_bytes=gather_below_bytes)
    lane.run(batches=20)  # each slot of the front-end process is used several times
    assert lane.device.races == ()
    assert len(lane.far.answers) == 40
    lane.check_answers()
    assert sorted(lane.far.free) == [lane.memory.layout.slot_offset(1, slot) for slot in range(8)]
    lane.close()


@given(slot_count=st.sampled_from(SLOT_COUNTS), steps=st.lists(st.sampled_from(["form", "h2d", "execute", "d2h"])))
def test_no_interleaving_of_the_stages_races(slot_count, steps):
    lane = SharedLaneDriver(slot_count)
    for step in steps:
        if step == "form":
            lane.form()
        elif lane.waiting[step]:
            lane.step(step)
    lane.run(batches=0)
    assert lane.device.races == ()
    lane.check_answers()
    lane.close()


def test_requests_of_several_rows_have_no_race_and_their_own_rows(open_lane):
    lane = open_lane(2)
    for _ in range(3):
        lane.come([5, 6, 7], [9])
        lane.batch_of(lane.arrived.requests)
        lane.run(batches=0)
    assert lane.device.races == ()
    lane.check_answers()
    assert [batch_size for batch_size, _ in lane.far.answers.values()] == [4] * 6
    lane.close()


@pytest.mark.parametrize("slot_count", SLOT_COUNTS)
def test_an_answer_before_the_inputs_were_read_races(open_lane, slot_count):
    lane = open_lane(slot_count)
    batch = lane.form(rows=1)
    lane.step("h2d")
    request = batch.requests[0]
    lane.sink.post([Completion(request, outputs=(), batch_size=1)])  # the edge: answers follow `executed`
    lane.far.read()
    with pytest.raises(RaceError):
        lane.come([8])  # the front-end process has its slot again, and uses it
    assert lane.device.races


@pytest.mark.parametrize("slot_count", SLOT_COUNTS)
def test_outputs_read_before_downloaded_is_known_race(open_lane, slot_count):
    lane = open_lane(slot_count, DeviceWithoutDownloadedSync)
    lane.form()
    lane.step("h2d")
    lane.step("execute")
    with pytest.raises(RaceError):
        lane.step("d2h")


@pytest.mark.parametrize("stage", ["execute", "d2h"])
def test_a_stage_that_does_not_wait_for_the_one_before_it_races(open_lane, stage):
    lane = open_lane(2, DeviceWithoutWaits, unwaiting=stage)
    lane.form()
    lane.step("h2d")
    lane.step("execute")
    if stage == "d2h":
        lane.step("d2h")
    assert lane.device.races


def test_outputs_of_a_cancelled_request_are_not_written(open_lane):
    lane = open_lane(2)
    (token,) = lane.come([3])
    (request,) = lane.arrived.requests
    _, outputs, _ = lane.far.open[token]
    lane.far.bytes[outputs : outputs + ROW_BYTES] = 0xA7
    lane.batch_of([request])
    request.is_cancelled = True
    lane.run(batches=0)
    assert np.all(lane.far.bytes[outputs : outputs + ROW_BYTES] == 0xA7)
    assert token in lane.far.answers  # its memory comes back all the same
    lane.close()
