"""Pictures for the device in a lane: its results, and each ordering edge, removed once."""

import numpy as np
import pytest

from forebay_server.engines.device_simulated import FileDecoding, SimulatedDevice, SimulatedStream
from forebay_server.engines.errors import RaceError
from forebay_server.engines.pictures import Nv12Planes
from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.frames.decode.host_pictures import CpuPictures
from forebay_server.service.pictures.device_picture import LEAST_FILE_BYTES, FilePicture, file_place
from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.pipeline.arena import FrameArena, input_offsets
from forebay_server.service.pipeline.batch_pictures import LanePictures
from forebay_server.service.pipeline.d2h import release_frames
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.pipeline.slots import SlotState
from forebay_server.service.request import Batch
from tests.support.device_pictures import decode, planes_of, row_of_file, row_of_planes
from tests.support.jpegs import BASELINE, HEIGHT, OTHER_KINDS, WIDTH
from tests.support.lane import MAX_BATCH_SIZE, LaneDriver
from tests.support.requests import frame_request

PICTURE = PictureInput(24, 16, "RGB")
PIXELS = WIDTH * HEIGHT
JUNK = b"\xff\xd8" + bytes(100)
REFUSED = OTHER_KINDS["4:4:4"]


def decode_but_one(file):
    """The device decodes as libjpeg, but refuses one kind."""
    return None if file == REFUSED else decode(file)


DECODING = FileDecoding(decode_but_one)


class PictureLane(LaneDriver):
    """A lane whose model copies a picture of 24x16 to its output."""

    def __init__(self, slot_count=2, device_class=SimulatedDevice, files=DECODING, **options):
        self.refused = []
        lanes = LanePictures(PICTURE, PIXELS, CpuPictures(PIXELS), self.refused.append)
        super().__init__(
            slot_count, device_class, {"input_bytes": str(PICTURE.nbytes)}, pictures=lanes, files=files, **options
        )
        self.arena.close()
        row_bytes = (PICTURE.nbytes,)
        self.place = file_place(input_offsets(row_bytes)[0], row_bytes, 0, PIXELS)
        permits = Permits(MAX_BATCH_SIZE * (slot_count + 1))
        self.arena = FrameArena(self.device, self.engine.specs.inputs, permits, files=self.place)
        self.made = []  # the things of a decoder of planes

    def with_rows(self):
        lease = self.arena.lease()
        lease.host.write_view()[: PICTURE.nbytes] = 7
        return frame_request(next(self._ids), lease, arrival_ns=self.clock.now_ns())

    def with_file(self, file=BASELINE):
        lease = self.arena.lease()
        start = self.place.offset
        lease.host.write_view()[start : start + len(file)] = np.frombuffer(file, np.uint8)
        request = frame_request(next(self._ids), lease, arrival_ns=self.clock.now_ns())
        request.picture = FilePicture(start, len(file), (WIDTH, HEIGHT))
        return request

    def with_planes(self, ready=True):
        luma, chroma = planes_of(48, 32)
        decoder = self.device.create_stream("decoder")
        host, buffer = self.device.alloc_host(luma.nbytes + chroma.nbytes), None
        buffer = self.device.alloc_device(host.nbytes)
        event = self.device.create_event()
        self.made += [decoder, host, buffer, event]
        host.write_view()[:] = np.concatenate([luma.reshape(-1), chroma.reshape(-1)])
        decoder.copy_h2d(buffer, host, host.nbytes)
        decoder.record(event)
        request = frame_request(next(self._ids), self.arena.lease(), arrival_ns=self.clock.now_ns())
        request.picture = Nv12Planes(
            buffer, 0, luma.nbytes, luma.shape[1], (48, 32), (0.299, 0.114), False, event if ready else None
        )
        return request

    def form_of(self, *requests):
        index = self.pipeline.try_reserve()
        assert index is not None
        batch = Batch(next(self._ids), 0, index, list(requests), len(requests), len(requests), self.clock.now_ns())
        self.waiting["h2d"].append(batch)
        return batch

    def close(self):
        for made in self.made:
            made.close()
        super().close()


def output_of(completion):
    return completion.outputs[0].reshape(PICTURE.shape)


def test_a_batch_mixes_rows_files_and_planes():
    lane = PictureLane()
    lane.form_of(lane.with_file(), lane.with_rows(), lane.with_planes(), lane.with_file(OTHER_KINDS["grey"]))
    lane.run(batches=0)
    found = [output_of(completion) for completion in lane.completions]
    luma, chroma = planes_of(48, 32)
    expected = [
        row_of_file(BASELINE, PICTURE),
        np.full(PICTURE.shape, 7, np.uint8),
        row_of_planes(luma, chroma, (48, 32), PICTURE, matrix=6, is_full_range=False),
        row_of_file(OTHER_KINDS["grey"], PICTURE),
    ]
    for each, wanted in zip(found, expected, strict=True):
        assert np.abs(each.astype(int) - wanted).mean() < 1.0
    assert lane.device.races == ()
    assert lane.refused == []
    assert lane.arena.leased_count == 0
    lane.close()


def test_batches_follow_each_other_through_all_slots():
    lane = PictureLane(slot_count=3)
    formed = 0
    while formed < 9 or any(lane.waiting.values()):
        for stage in ("d2h", "execute", "h2d"):
            if lane.waiting[stage]:
                lane.step(stage)
        if formed < 9 and lane.pipeline.pool.free_count:
            lane.form_of(lane.with_file(), lane.with_file())
            formed += 1
    assert len(lane.completions) == 18
    assert all(completion.error is None for completion in lane.completions)
    assert lane.device.races == ()
    assert {slot.state for slot in lane.slots} == {SlotState.FREE}
    lane.close()


def test_a_file_that_the_device_refuses_is_decoded_here():
    lane = PictureLane()
    lane.form_of(lane.with_file(REFUSED), lane.with_file(), lane.with_file(REFUSED))
    lane.run(batches=0)
    for completion, file in zip(lane.completions, (REFUSED, BASELINE, REFUSED), strict=True):
        assert completion.error is None
        assert np.abs(output_of(completion).astype(int) - row_of_file(file, PICTURE)).mean() < 1.0
    assert lane.refused == [2]
    assert lane.device.races == ()
    lane.close()


def test_a_file_that_nothing_decodes_ends_its_own_frame_only():
    lane = PictureLane()
    lane.form_of(lane.with_file(), lane.with_file(JUNK), lane.with_rows())
    lane.run(batches=0)
    first, junk, rows = lane.completions
    assert first.error is None
    assert rows.error is None
    assert isinstance(junk.error, InvalidRequestError)
    assert junk.outputs is None
    assert lane.arena.leased_count == 0
    lane.close()


class UnwaitingExecution(SimulatedDevice):
    """Its execute stage does not wait for the upload."""

    def create_stream(self, name, **options):
        if name.endswith("execute"):
            return _Unwaiting(self._core, name)
        return super().create_stream(name, **options)


class _Unwaiting(SimulatedStream):
    def wait(self, event):
        pass


def test_an_execution_that_does_not_wait_for_the_pictures_races():
    lane = PictureLane(device_class=UnwaitingExecution)
    lane.form_of(lane.with_file())
    lane.step("h2d")
    lane.step("execute")
    assert lane.device.races


def test_uploaded_before_the_pictures_is_a_race(monkeypatch):
    lane = PictureLane()
    slot = lane.slots[lane.form_of(lane.with_file()).slot_index]
    write = lane.pipeline.h2d.pictures.write

    def too_late(batch, slot):
        lane.pipeline.h2d.device_stream.record(slot.uploaded)
        write(batch, slot)
        lane.pipeline.h2d.device_stream.record = lambda _: None  # the edge: the record comes after the pictures

    monkeypatch.setattr(lane.pipeline.h2d.pictures, "write", too_late)
    lane.step("h2d")
    lane.step("execute")
    assert lane.device.races
    assert slot.state is SlotState.FAILED


def test_a_file_that_is_overwritten_before_its_batch_was_executed_races():
    lane = PictureLane()
    batch = lane.form_of(lane.with_file())
    host = batch.requests[0].frame.host
    lane.step("h2d")
    release_frames(batch)  # the edge: buffers return to the arena only after `executed` was synchronised
    with pytest.raises(RaceError):
        host.write_view()[0] = 1


def test_planes_that_the_upload_does_not_wait_for_race():
    lane = PictureLane()
    batch = lane.form_of(lane.with_planes(ready=False))
    lane.step("h2d")
    assert lane.device.races
    assert batch.error is not None


def test_planes_that_are_overwritten_before_their_batch_was_executed_race():
    lane = PictureLane()
    batch = lane.form_of(lane.with_planes())
    decoder, host, buffer, _ = lane.made
    lane.step("h2d")
    with pytest.raises(RaceError):  # the edge: the decoder takes a surface back when its frame is released
        decoder.copy_h2d(buffer, host, host.nbytes)
    assert batch.requests[0].picture.buffer is buffer


def test_a_slot_whose_pictures_are_under_way_is_not_used_again():
    lane = PictureLane(slot_count=1)
    early = lane.slots[lane.form_of(lane.with_file()).slot_index]
    lane.step("h2d")
    lane.step("execute")
    early.state = SlotState.READY  # the edge: a slot is FREE only after `downloaded` was synchronised
    lane.pipeline.pool.release(early)
    lane.form_of(lane.with_file())
    lane.step("h2d")
    assert lane.device.races


def test_room_for_files_lies_in_the_pictures_row_or_behind_all_rows():
    own = file_place((0, 128), (1 << 20, 8), 0, 100)
    assert (own.offset, own.nbytes) == (0, 1 << 20)
    behind = file_place((0, 64), (60, 8), 0, 100)
    assert (behind.offset, behind.nbytes, behind.end) == (128, LEAST_FILE_BYTES, 128 + LEAST_FILE_BYTES)
