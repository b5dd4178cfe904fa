"""Each ordering edge of docs/architecture.md, removed once: the simulated device must find the race."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.engines.device_simulated import SimulatedDevice, SimulatedEvent, SimulatedStream
from forebay_server.engines.errors import RaceError
from forebay_server.service.pipeline.d2h import release_frames
from forebay_server.service.pipeline.slots import SlotState
from tests.support.lane import ROW_BYTES, LaneDriver

SLOT_COUNTS = [1, 2, 3]
EVENTS_OF_A_SLOT = 6  # upload_started, uploaded, execute_started, executed, download_started, downloaded
DOWNLOADED = 5


class UnwaitingStream(SimulatedStream):
    """A device stream that forgets to wait for other streams."""

    def wait(self, event) -> None:
        pass


class DeviceWithoutWaits(SimulatedDevice):
    """Gives one stage an unwaiting stream."""

    def __init__(self, *, unwaiting, **options) -> None:
        super().__init__(**options)
        self._unwaiting = unwaiting

    def create_stream(self, name, **options):
        if name.endswith(self._unwaiting):
            return UnwaitingStream(self._core, name)
        return super().create_stream(name, **options)


class UnwaitedEvent(SimulatedEvent):
    """An event that the host believes without waiting for it."""

    def sync(self) -> None:
        pass


class DeviceWithoutDownloadedSync(SimulatedDevice):
    """Gives every slot a `downloaded` event on which no thread waits."""

    _created = 0

    def create_event(self):
        kind = self._created % EVENTS_OF_A_SLOT
        self._created += 1
        return UnwaitedEvent(self._core) if kind == DOWNLOADED else super().create_event()


@pytest.mark.parametrize("slot_count", SLOT_COUNTS)
@pytest.mark.parametrize("gather_below_bytes", [0, ROW_BYTES + 1])
def test_the_whole_pipeline_has_no_race(slot_count, gather_below_bytes):
    lane = LaneDriver(slot_count, gather_below_bytes=gather_below_bytes)
    lane.run(batches=10)
    assert lane.device.races == ()
    assert len(lane.completions) == 20
    lane.check_answers()
    assert lane.arena.leased_count == 0
    assert {slot.state for slot in lane.slots} == {SlotState.FREE}
    lane.close()


@given(slot_count=st.sampled_from(SLOT_COUNTS), steps=st.lists(st.sampled_from(["form", "h2d", "execute", "d2h"])))
def test_no_interleaving_of_the_stages_races(slot_count, steps):
    lane = LaneDriver(slot_count)
    for step in steps:
        if step == "form":
            lane.form()
        elif lane.waiting[step]:
            lane.step(step)
    lane.run(batches=0)
    assert lane.device.races == ()
    lane.check_answers()
    lane.close()


@pytest.mark.parametrize("slot_count", SLOT_COUNTS)
@pytest.mark.parametrize("stage", ["execute", "d2h"])
def test_a_stage_that_does_not_wait_for_the_one_before_it_races(stage, slot_count):
    lane = LaneDriver(slot_count, DeviceWithoutWaits, unwaiting=stage)
    lane.form()
    lane.step("h2d")
    lane.step("execute")
    if stage == "d2h":
        lane.step("d2h")
    assert lane.device.races


@pytest.mark.parametrize("slot_count", SLOT_COUNTS)
def test_outputs_read_before_downloaded_is_known_race(slot_count):
    lane = LaneDriver(slot_count, DeviceWithoutDownloadedSync)
    lane.form()
    lane.step("h2d")
    lane.step("execute")
    with pytest.raises(RaceError):
        lane.step("d2h")


@pytest.mark.parametrize("slot_count", SLOT_COUNTS)
def test_a_slot_that_is_used_again_before_its_download_races(slot_count):
    lane = LaneDriver(slot_count)
    early = lane.slots[lane.form().slot_index]
    lane.step("h2d")
    lane.step("execute")
    for _ in range(slot_count - 1):  # the others are taken as they should be
        lane.form()
        lane.step("h2d")
    early.state = SlotState.READY  # the edge: a slot is FREE only after `downloaded` was synchronised
    lane.pipeline.pool.release(early)
    assert lane.form().slot_index == early.index
    lane.step("h2d")
    assert lane.device.races


@pytest.mark.parametrize("slot_count", SLOT_COUNTS)
def test_a_frame_buffer_that_is_used_again_before_its_upload_is_known_races(slot_count):
    lane = LaneDriver(slot_count)
    batch = lane.form(rows=1)
    host = batch.requests[0].frame.host
    lane.step("h2d")
    release_frames(batch)  # the edge: buffers return to the arena only after `executed` was synchronised
    with pytest.raises(RaceError):
        host.write_view()[0] = 1


@pytest.mark.parametrize("slot_count", SLOT_COUNTS)
def test_a_frame_buffer_may_be_used_again_once_its_batch_was_answered(slot_count):
    lane = LaneDriver(slot_count)
    batch = lane.form(rows=1)
    host = batch.requests[0].frame.host
    lane.run(batches=0)
    host.write_view()[0] = 1
    assert lane.device.races == ()
    lane.close()


def test_executions_of_one_instance_on_two_device_streams_race():
    lane = LaneDriver(slot_count=2)
    lane.form()
    lane.form()
    lane.step("h2d")
    lane.step("h2d")
    lane.step("execute")
    lane.pipeline.execute.device_stream = lane.device.create_stream("another compute stream")
    batch = lane.step("execute")
    assert lane.device.races
    assert batch.error is not None
