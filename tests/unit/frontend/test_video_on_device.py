"""Sessions of video for a model on a GPU: each frame is answered once, in order, with its own picture."""

import functools
import random

import numpy as np
import pytest

from forebay.wire import frames_pb2 as pb
from forebay_server.engines.errors import BackendUnavailableError, DeviceMemoryError, ExecutionError
from forebay_server.engines.simulated.core import Machine
from forebay_server.engines.simulated.fault_plan import FaultPlan
from forebay_server.service.frontend.frames.recorder import StreamRecorder
from forebay_server.service.frontend.frames.video.access_unit import UnitReader
from forebay_server.service.frontend.frames.video.codecs import VideoStream
from forebay_server.service.frontend.frames.video.decoder_store import RETRY_AFTER_NS
from forebay_server.service.frontend.frames.video.substitute import ASK_AGAIN_NS
from forebay_server.service.journal.events import StreamRecord
from forebay_server.service.journal.pictures import PictureSlot
from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.worker_pool import WorkerPool
from tests.support.device_video import Gpu, SimulatedVideoDecoder
from tests.support.front_end import PICTURE, ManualPool, SessionHarness, specs_of
from tests.support.videos import clip, level, parameter_sets

ENCODINGS = {"h264": pb.ENCODING_H264, "hevc": pb.ENCODING_H265}
GOP = 4
START = b"\0\0\1"


class Stream:
    """A stream of a model on a simulated GPU: `send` sends units and lets each end."""

    def __init__(self, codec="h264", gpu=None, **fields):
        self.gpu = gpu or Gpu()
        fields = {"delivery": pb.DELIVERY_EVERY, **fields}
        self.harness = SessionHarness(encoding=ENCODINGS[codec], gpu=self.gpu, permits=64, **fields)
        self.harness.version.is_ordered = False
        self._sent, self._seqs, self.next_seq = [], [], 1

    def send(self, units):
        for unit in units:
            self.put(unit)
            self.harness.settle()

    def put(self, unit):
        """Send a unit."""
        self._sent.append(unit)
        self._seqs.append(self.next_seq)
        self.harness.send(self.next_seq, payload=unit.data)
        self.next_seq += 1

    def work(self, steps):
        """Have a worker do some steps."""
        for _ in range(steps):
            self.harness.pool.run_one()
        self.harness.sink.drain()

    def wait_for_decoder(self):
        self.gpu.codecs.store.join()

    def make_decoder(self, unit):
        """Have a decoder ready for the first keyframe of such a stream."""
        codecs, description = self.gpu.codecs, self.harness.version.description
        opened = codecs.open(VideoStream("h264", bytes, description), UnitReader("h264").read(unit.data).sequence)
        codecs.store.join()
        opened.close()

    def answered(self):
        """End the stream in order: each frame has one answer."""
        self.harness.session.stop_reading()
        self.harness.settle()
        assert [seq for seq, _ in self.harness.codes] == self._seqs

    def end(self):
        """End the stream in order; return the words of its results. Those that are OK have their own picture."""
        self.answered()
        for unit, result in zip(self._sent, self.harness.results, strict=True):
            if result.status.code == pb.STATUS_OK:
                grey = float(np.frombuffer(result.tensors[0].data, np.uint8).mean())
                assert grey == pytest.approx(level(unit.shown), abs=3), unit.shown
        return [word for _, word in self.harness.codes]

    def close(self):
        """Close the session, and everything of the device."""
        self.harness.session.abandon()
        ended = []
        self.harness.session.call_at_rest(lambda: ended.append("at rest"))
        assert not ended, "a worker frees the device's memory, and not the event loop"
        while self.harness.pool.run_one():
            pass
        self.harness.sink.drain()
        assert ended == ["at rest"]
        self.free()

    def free(self):
        """Close everything of the device, after the session is at rest."""
        self.wait_for_decoder()
        for decoder in self.gpu.decoders:
            decoder.close()
        self.gpu.device.close()  # fails if anything is left
        assert not self.harness.version.form()  # of cancelled requests nothing is executed
        assert not self.harness.version.arena.leases

    @property
    def streams_of_decoders(self):
        return [decoder.streams for decoder in self.gpu.decoders]


def without_sets(units, codec="h264"):
    """The units with no parameter sets in them."""
    sets = [part for unit in units[:1] for part in parameter_sets(unit, codec).split(START)[1:]]
    found = []
    for unit in units:
        data = unit.data
        for each in sets:
            data = data.replace(START + each, b"")
        found.append(type(unit)(data, unit.shown, unit.is_keyframe))
    assert not any(parameter_sets(unit, codec) for unit in found)
    return found


@pytest.mark.parametrize("codec", ENCODINGS)
def test_parameter_sets_that_come_only_once_are_known_to_the_decoder_that_joins_later(codec):
    units = clip(3 * GOP, codec, gop=GOP)
    stream = Stream(codec)
    stream.send(units[:GOP])
    stream.wait_for_decoder()
    stream.send(without_sets(units, codec)[GOP:])
    assert stream.end() == ["OK"] * len(units)
    assert stream.streams_of_decoders == [1]
    stream.close()


@pytest.mark.parametrize("codec", ENCODINGS)
def test_parameter_sets_of_the_opening_are_known_to_each_decoder(codec):
    units = clip(3 * GOP, codec, gop=GOP)
    stream = Stream(codec, parameter_sets=parameter_sets(units[0], codec))
    bare = without_sets(units, codec)
    stream.send(bare[:GOP])
    stream.wait_for_decoder()
    stream.send(bare[GOP:])
    assert stream.end() == ["OK"] * len(units)
    assert stream.streams_of_decoders == [1]
    stream.close()


@pytest.mark.parametrize("params", ["cabac=1", "sps-id=3"])
def test_parameter_sets_that_changed_on_the_way_are_the_ones_that_count(params):
    first, second = clip(2 * GOP, gop=GOP), clip(4 * GOP, gop=GOP, params=params)
    stream = Stream(parameter_sets=parameter_sets(first[0]))
    stream.gpu.error = DeviceMemoryError("no memory")
    stream.send(first)
    stream.send(second[:GOP])
    stream.wait_for_decoder()
    stream.gpu.error = None
    stream.harness.clock.advance(RETRY_AFTER_NS)
    bare = without_sets(second)
    stream.send(bare[GOP : 2 * GOP])  # orders a decoder
    stream.wait_for_decoder()
    stream.send(bare[2 * GOP :])
    assert stream.end() == ["OK"] * 6 * GOP
    assert stream.streams_of_decoders == [1]
    stream.close()


@pytest.mark.parametrize("params", ["cabac=1", "sps-id=3"])
def test_a_decoder_of_the_device_takes_new_parameter_sets(params):
    first, second = clip(2 * GOP, gop=GOP), clip(2 * GOP, gop=GOP, params=params)
    stream = Stream()
    stream.send(first[:GOP])
    stream.wait_for_decoder()
    stream.send(first[GOP:])
    stream.send(second)
    assert stream.end() == ["OK"] * 4 * GOP
    assert stream.streams_of_decoders == [1]
    stream.close()


@pytest.mark.parametrize("codec", ENCODINGS)
def test_pictures_that_are_held_back_are_shown_before_the_decoder_changes(codec):
    first, second = clip(12, codec, gop=6, bframes=2), clip(12, codec, gop=6, bframes=2, size=(128, 96))
    stream = Stream(codec)
    stream.gpu.error = DeviceMemoryError("no memory")
    stream.send(first)
    stream.send(second)
    assert stream.end() == ["OK"] * 24
    stream.close()


def test_leading_pictures_of_the_keyframe_at_which_the_decoder_changes_are_refused():
    units = clip(24, "hevc", gop=8, bframes=2, params="open-gop=1")
    kinds = [unit.data[unit.data.rindex(START) + 3] >> 1 & 63 for unit in units]
    keyframe = kinds.index(21, 1)
    following = next(number for number in range(keyframe + 1, 24) if kinds[number] not in {8, 9})
    leading = following - keyframe - 1
    assert leading
    stream = Stream("hevc")
    stream.send(units[:keyframe])
    stream.wait_for_decoder()
    stream.send(units[keyframe:following])
    words = stream.end()
    assert words == ["OK"] * (keyframe + 1) + ["NEEDS_KEYFRAME"] * leading
    assert stream.streams_of_decoders == [1]
    stream.close()


def test_a_stream_that_the_device_refuses_is_decoded_by_the_cpu_without_the_loss_of_a_frame():
    units = clip(6 * GOP, gop=GOP)
    stream = Stream()
    stream.send(units[:GOP])
    stream.wait_for_decoder()
    (decoder,) = stream.gpu.decoders
    decoder.is_refusing = True
    stream.send(units[GOP : 3 * GOP])
    assert decoder.refused == 1
    stream.harness.clock.advance(ASK_AGAIN_NS)
    stream.send(units[3 * GOP : 4 * GOP])
    assert decoder.refused == 2
    decoder.is_refusing = False
    stream.harness.clock.advance(ASK_AGAIN_NS)
    stream.send(units[4 * GOP :])
    assert stream.end() == ["OK"] * 6 * GOP
    assert decoder.streams == 1
    stream.close()


@pytest.mark.parametrize(
    ("error", "word"), [(ExecutionError("the picture is lost"), "INVALID"), (RuntimeError("a bug"), "FAILED")]
)
def test_a_picture_that_cannot_be_had_ends_its_group(error, word):
    units = clip(4 * GOP, gop=GOP)
    stream = Stream()
    stream.send(units[:GOP])
    stream.wait_for_decoder()
    stream.send(units[GOP : GOP + 2])
    (decoder,) = stream.gpu.decoders
    decoder.loss = error
    stream.send(units[GOP + 2 :])
    assert stream.end() == ["OK"] * (GOP + 2) + [word, "NEEDS_KEYFRAME"] + ["OK"] * 2 * GOP
    stream.close()


@pytest.mark.parametrize("how", ["fail", "fail_late"])
def test_a_picture_that_the_device_does_not_bring_back_ends_its_frame(how):
    units = clip(3 * GOP, gop=GOP)
    stream = Stream()
    stream.send(units[:GOP])
    stream.wait_for_decoder()
    stream.send(units[GOP : GOP + 1])
    stream.gpu.device.arm(FaultPlan(**{how: {("copy_d2h", 0): ExecutionError("the copy failed")}}))
    stream.send(units[GOP + 1 :])
    words = stream.end()
    assert words == ["OK"] * (GOP + 1) + ["FAILED"] + ["OK"] * (2 * GOP - 2)
    stream.close()


def test_a_damaged_keyframe_leaves_the_stream_to_the_device():
    units = clip(5 * GOP, gop=GOP)
    stream = Stream()
    stream.send(units[:GOP])
    stream.wait_for_decoder()
    stream.send(units[GOP : 2 * GOP])
    broken = type(units[0])(units[0].data[:-30] + stream.gpu.decoders[0].BROKEN, units[2 * GOP].shown, is_keyframe=True)
    stream.send([broken, *units[2 * GOP + 1 :]])
    words = stream.end()
    assert words == ["OK"] * 2 * GOP + ["INVALID"] + ["NEEDS_KEYFRAME"] * (GOP - 1) + ["OK"] * 2 * GOP
    assert stream.streams_of_decoders == [1]
    stream.close()


def test_frames_of_two_devices_that_a_worker_takes_by_turns_are_each_on_its_own():
    machine, pool, units = Machine(2), ManualPool(), clip(3 * GOP, gop=GOP)
    streams = [Stream(gpu=Gpu(machine), pool=pool) for _ in range(2)]
    for stream in streams:
        stream.send(units[:GOP])
        stream.wait_for_decoder()
    for unit in units[GOP:]:
        for stream in streams:
            stream.put(unit)
        for stream in streams:
            stream.harness.settle()
    for stream in streams:
        assert stream.end() == ["OK"] * len(units)
        assert stream.streams_of_decoders == [1]
        stream.close()


class Workers(WorkerPool):
    """A pool whose threads do everything."""

    def run_one(self):
        """Nothing: see the class."""
        return False


@pytest.mark.parametrize("bframes", [0, 2])
@pytest.mark.parametrize("threads", [1, 3])
def test_workers_take_frames_of_many_streams_and_devices_at_once(threads, bframes):
    units, errors, rested = clip(4 * GOP, gop=GOP, bframes=bframes), [], []
    machine, pool = Machine(6), Workers(threads, errors.append)
    streams = [Stream(gpu=Gpu(machine), pool=pool) for _ in range(machine.device_count)]
    for stream in streams[1:]:  # the CPU decodes the first one, until its decoder is there
        stream.make_decoder(units[0])
    for unit in units:
        for stream in streams:
            stream.put(unit)
    for stream in streams:
        stream.harness.session.stop_reading()
        stream.harness.session.call_at_rest(functools.partial(rested.append, stream))
    pool.close()
    assert errors == []
    assert set(rested) == set(streams)
    for stream in streams:
        assert stream.end() == ["OK"] * len(units)
        stream.free()
    assert [sum(stream.streams_of_decoders) for stream in streams[1:]] == [1] * 5


@pytest.mark.parametrize("image", [PICTURE, PictureInput(64, 64, "RGB")])
def test_the_operators_page_has_a_picture_beside_the_models(image):
    units, slot = clip(2 * GOP, gop=GOP), PictureSlot()
    record = StreamRecord("camera", "m", "1", "frames", 1, picture=slot)
    recorder = StreamRecorder(record, lambda _: None, ENCODINGS["h264"], is_video=True)
    specs = specs_of([image.shape], [image.shape])
    stream = Stream(recorder=recorder, image=image, specs=specs)
    stream.send(units[:GOP])
    stream.wait_for_decoder()
    stream.send(units[GOP : GOP + 1])
    slot.is_wanted = slot.is_looked_at = True
    stream.send(units[GOP + 1 :])
    assert stream.end() == ["OK"] * len(units)
    assert (slot.latest.seq, slot.latest.size) == (GOP + 2, (64, 64))
    assert np.frombuffer(slot.latest.payload, np.uint8).mean() == pytest.approx(level(GOP + 1), abs=3)
    stream.close()


def test_a_frame_whose_picture_for_the_page_fails_leaves_its_buffer_alone():
    units, slot = clip(3 * GOP, gop=GOP), PictureSlot()
    record = StreamRecord("camera", "m", "1", "frames", 1, picture=slot)
    recorder = StreamRecorder(record, lambda _: None, ENCODINGS["h264"], is_video=True)
    stream = Stream(recorder=recorder)
    stream.send(units[:GOP])
    stream.wait_for_decoder()
    stream.send(units[GOP : GOP + 1])
    slot.is_wanted = slot.is_looked_at = True
    stream.gpu.device.arm(FaultPlan(fail={("alloc_host", 0): DeviceMemoryError("no memory")}))
    stream.send(units[GOP + 1 :])  # fails if a buffer was written after its release
    assert stream.end() == ["OK"] * (GOP + 1) + ["FAILED"] + ["OK"] * (2 * GOP - 2)
    stream.close()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_stream_that_ends_between_two_steps_of_a_frame_leaves_nothing_behind(steps):
    units = clip(3 * GOP, gop=GOP)
    stream = Stream()
    stream.send(units[:GOP])
    stream.wait_for_decoder()
    stream.send(units[GOP : GOP + 1])
    for unit in units[GOP + 1 : GOP + 3]:
        stream.put(unit)
    stream.work(steps)
    stream.close()


@pytest.mark.parametrize("is_on_device", [False, True])
def test_a_stream_that_ends_while_its_picture_is_written_ends_in_order(is_on_device):
    units = clip(3 * GOP, gop=GOP)
    stream = Stream()
    stream.send(units[:GOP])
    if is_on_device:
        stream.wait_for_decoder()
    stream.send(units[GOP : 2 * GOP])
    stream.harness.version.arena.on_write = stream.harness.session.abandon
    stream.harness.send(2 * GOP + 1, payload=units[2 * GOP].data)
    stream.harness.settle()
    stream.close()


def test_a_stream_of_another_kind_gets_a_decoder_once_it_is_of_the_usual_one():
    deep, usual = clip(GOP, gop=GOP, pixel_format="yuv420p10le"), clip(3 * GOP, gop=GOP)
    stream = Stream()
    stream.send(deep)
    stream.send(usual[:GOP])
    stream.wait_for_decoder()
    stream.send(usual[GOP:])
    assert stream.end() == ["OK"] * 4 * GOP
    assert stream.streams_of_decoders == [1]
    stream.close()


@functools.cache
def groups_of(codec):
    """Groups of pictures of three kinds."""
    kinds = ({}, {"size": (128, 96)}, {"bframes": 1, "gop": 6})
    clips = [clip(3 * kind.get("gop", GOP), codec, **{"gop": GOP, **kind}) for kind in kinds]
    return [split(units) for units in clips]


def split(units):
    """The units by their groups of pictures."""
    found = []
    for unit in units:
        if unit.is_keyframe:
            found.append([])
        found[-1].append(unit)
    return found


LOSSES = None, None, ExecutionError("the picture is lost"), RuntimeError("a bug")


def disturb(stream, chance):
    """Let something happen to the GPU, or to what is sent."""
    gpu = stream.gpu
    match chance.randrange(8):
        case 0:
            errors = DeviceMemoryError("no memory"), BackendUnavailableError("no engine")
            gpu.error = chance.choice([*errors, None, None, None, None])
        case 1:
            stream.harness.clock.advance(RETRY_AFTER_NS)
        case 2:
            for decoder in gpu.decoders:
                decoder.is_refusing, decoder.loss = chance.random() < 0.1, chance.choice(LOSSES)
        case 3:
            stream.next_seq += 1
        case 4 | 5:
            stream.wait_for_decoder()


def damaged(unit, chance):
    """The unit, or one that a device refuses, or one that nothing decodes."""
    data = unit.data
    match chance.randrange(30):
        case 0:
            data += SimulatedVideoDecoder.BROKEN
        case 1:
            data = data[: len(data) // 2]
        case 2:
            data = b"no video"
    return type(unit)(data, unit.shown, unit.is_keyframe)


@pytest.mark.parametrize("codec", ENCODINGS)
@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_each_frame_is_answered_once_and_nothing_is_left(codec, seed):
    chance = random.Random(seed)  # noqa: S311 - the same events each time
    fields = chance.choice([{}, {"delivery": pb.DELIVERY_LATEST, "latency_budget_ms": 60_000}])
    stream = Stream(codec, **fields)
    kind = groups_of(codec)[0]
    for _ in range(20):
        disturb(stream, chance)
        kind = chance.choice(groups_of(codec)) if chance.random() < 0.2 else kind
        for unit in chance.choice(kind):
            stream.put(damaged(unit, chance))
            stream.work(chance.choice([0, 1, 2, 3, 20, 20]))
        if chance.random() < 0.5:
            stream.harness.settle()
    if chance.random() < 0.7:
        stream.answered()
    stream.close()
