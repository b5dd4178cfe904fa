"""Who decodes a stream of video: a decoder of the model's GPU once it is there, and else the CPU."""

import threading

import numpy as np
import pytest

from forebay_server.engines.device import DeviceKind
from forebay_server.engines.device_simulated import SimulatedDevice
from forebay_server.engines.errors import BackendUnavailableError, DeviceMemoryError
from forebay_server.service.frontend.frames.video.access_unit import UnitReader
from forebay_server.service.frontend.frames.video.codec import DamagedUnitError, LibavCodec
from forebay_server.service.frontend.frames.video.codecs import HEADROOM_BYTES, VideoCodecs, VideoStream
from forebay_server.service.frontend.frames.video.decoder_store import RETRY_AFTER_NS, DecoderKind, DecoderStore
from forebay_server.service.frontend.frames.video.device_codec import MOST_ERRORS, DeviceCodec
from forebay_server.service.models.description import InstanceGroup, ModelDescription
from forebay_server.service.pictures.picture_input import PictureInput
from tests.support.clock import ManualClock
from tests.support.device_video import SimulatedVideoDecoder
from tests.support.guard import HANG_GUARD_S
from tests.support.videos import clip

MOST = 1 << 24
PICTURE = PictureInput(32, 32, "RGB")


class Gpu:
    """A simulated device with decoders, and what happened to them."""

    def __init__(self):
        self.clock = ManualClock()
        self.device = SimulatedDevice(clock=self.clock)
        self.decoders, self.error = [], None
        self.codecs = VideoCodecs("auto", MOST, 2, self.clock, self._device, self._decoder)

    def _device(self, index):
        assert index == 1
        self.device.attach_thread()
        return self.device

    def _decoder(self, *arguments):
        if self.error is not None:
            raise self.error
        self.decoders.append(SimulatedVideoDecoder(*arguments))
        return self.decoders[-1]

    def open(self, unit, codec="h264", **fields):
        return self.codecs.open(stream_of(codec, **fields), sequence_of(unit, codec))

    def ready(self, unit, codec="h264"):
        """A decoder of the device, for which a first stream has waited."""
        first = self.open(unit, codec)
        self.codecs.store.join()
        first.close()
        found = self.open(unit, codec)
        assert isinstance(found, DeviceCodec)
        return found


@pytest.fixture
def gpu():
    return Gpu()


def stream_of(codec="h264", kind=DeviceKind.CUDA, image=PICTURE):
    groups = (InstanceGroup(gpus=(1,)),)
    return VideoStream(codec, b"", ModelDescription("m", "simulated", 8, image=image, device_kind=kind, groups=groups))


def sequence_of(unit, codec="h264"):
    return UnitReader(codec).read(unit.data).sequence


def rows(codec, units):
    """The row of each picture, by the number of its unit."""
    found = {}
    for number, unit in enumerate(units):
        for picture in codec.decode(unit.data, number):
            found[picture.number] = np.zeros(PICTURE.shape, np.uint8)
            assert picture.place(found[picture.number], PICTURE, MOST) == (64, 64)
    return found


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_pictures_of_a_device_are_those_of_the_cpu(gpu, codec):
    units = clip(12, codec)
    decoder = gpu.ready(units[0], codec)
    found, expected = rows(decoder, units), rows(LibavCodec(codec, MOST), units)
    decoder.close()
    assert sorted(found) == sorted(expected) == list(range(12))
    for number, row in found.items():
        assert np.abs(row.astype(int) - expected[number]).mean() < 0.5
    assert gpu.device.races == ()


def test_a_picture_comes_in_another_size_for_the_page(gpu):
    (unit,) = clip(1)
    other = PictureInput(16, 16, "RGB")
    found, expected = np.zeros(other.shape, np.uint8), np.zeros(other.shape, np.uint8)
    decoder = gpu.ready(unit)
    for codec, target in ((decoder, found), (LibavCodec("h264", MOST), expected)):
        (picture,) = codec.decode(unit.data, 0)
        assert picture.size == (64, 64)
        picture.place(target, other, MOST)
    assert np.abs(found.astype(int) - expected).mean() < 0.5
    assert gpu.device.races == ()


def test_the_cpu_decodes_until_a_decoder_is_there(gpu):
    units = clip(8)
    first = gpu.open(units[0])
    assert isinstance(first, LibavCodec)
    assert len(rows(first, units)) == 8
    gpu.codecs.store.join()
    assert not first.takes(sequence_of(units[0]))
    first.close()
    assert isinstance(gpu.open(units[0]), DeviceCodec)
    assert len(gpu.decoders) == 1


@pytest.mark.parametrize(
    "fields",
    [{"kind": DeviceKind.CPU}, {"image": None}],
)
def test_models_without_a_gpu_or_a_picture_are_the_cpus(gpu, fields):
    codec = gpu.open(clip(1)[0], **fields)
    gpu.codecs.store.join()
    assert codec.takes(sequence_of(clip(1)[0]))
    assert gpu.decoders == []


@pytest.mark.parametrize("pixel_format", ["yuv422p", "yuv420p10le", "yuv444p"])
def test_samples_of_other_kinds_are_the_cpus(gpu, pixel_format):
    units = clip(2, pixel_format=pixel_format)
    gpu.open(units[0])
    gpu.codecs.store.join()
    assert gpu.decoders == []


def test_the_setting_leaves_the_gpu_alone():
    def fail(*_):
        raise AssertionError("the GPU was asked")

    codecs = VideoCodecs("cpu", MOST, 2, ManualClock(), fail, fail)
    codecs.open(stream_of(), sequence_of(clip(1)[0]))
    codecs.store.join()


def test_a_decoder_that_comes_back_serves_the_next_stream(gpu):
    first, second = clip(6), clip(9, size=(64, 64))
    decoder = gpu.ready(first[0])
    rows(decoder, first[:4])
    decoder.close()
    decoder.close()
    again = gpu.open(second[0])
    assert len(rows(again, second)) == 9
    assert len(gpu.decoders) == 1
    assert gpu.decoders[0].streams == 2


def test_another_size_has_another_decoder(gpu):
    small, large = clip(2), clip(2, size=(128, 96))
    decoder = gpu.ready(small[0])
    assert decoder.takes(sequence_of(small[0]))
    assert not decoder.takes(sequence_of(large[0]))
    decoder.close()
    assert isinstance(gpu.open(large[0]), LibavCodec)


def test_idle_decoders_are_bounded(gpu):
    unit = clip(1)[0]
    opened = [gpu.ready(unit) for _ in range(4)]
    for decoder in opened:
        decoder.close()
    gpu.codecs.store.join()
    assert [each.is_closed for each in gpu.decoders] == [True, True, False, False]


def test_a_decoder_in_doubt_is_replaced_at_a_keyframe(gpu):
    units = clip(4)
    decoder = gpu.ready(units[0])
    for number in range(MOST_ERRORS):
        assert decoder.takes(sequence_of(units[0]))
        with pytest.raises(DamagedUnitError):
            decoder.decode(SimulatedVideoDecoder.BROKEN, number)
    assert not decoder.takes(sequence_of(units[0]))
    decoder.close()
    gpu.codecs.store.join()
    assert gpu.decoders[0].is_closed
    assert isinstance(gpu.open(units[0]), LibavCodec)


def test_a_good_unit_takes_doubts_away(gpu):
    units = clip(2)
    decoder = gpu.ready(units[0])
    for _ in range(2):
        for number in range(MOST_ERRORS - 1):
            with pytest.raises(DamagedUnitError):
                decoder.decode(SimulatedVideoDecoder.BROKEN, number)
        decoder.decode(units[0].data, 20)
    assert decoder.takes(sequence_of(units[0]))


@pytest.mark.parametrize("error", [DeviceMemoryError("no memory"), BackendUnavailableError("no engine")])
def test_after_an_error_a_decoder_is_ordered_again_later(gpu, error):
    unit = clip(1)[0]
    gpu.error = error
    waiting = gpu.open(unit)
    gpu.codecs.store.join()
    gpu.error = None
    assert waiting.takes(sequence_of(unit))
    gpu.codecs.store.join()
    assert gpu.decoders == []
    gpu.clock.advance(RETRY_AFTER_NS)
    assert waiting.takes(sequence_of(unit))
    gpu.codecs.store.join()
    assert not waiting.takes(sequence_of(unit))


def test_the_models_keep_their_memory(gpu, monkeypatch):
    total = gpu.device.memory()
    if total is not None:
        held = gpu.device.alloc_device(total.total_bytes - total.used_bytes - HEADROOM_BYTES + 1)
    gpu.open(clip(1)[0])
    gpu.codecs.store.join()
    assert gpu.decoders == []
    held.close()


def test_streams_that_wait_at_once_get_a_decoder_each():
    ordered, closed = threading.Event(), []
    kind = DecoderKind(0, "h264", (64, 64), 1)

    class Decoder:
        def close(self):
            closed.append(self)

    def make(_):
        assert ordered.wait(HANG_GUARD_S)
        return Decoder()

    store = DecoderStore(make, 8, ManualClock())
    for _ in range(2):
        store.order(kind, "one")
        store.order(kind, "other")
    ordered.set()
    store.join()
    assert store.order(kind, "third")
    taken = [store.take(kind) for _ in range(3)]
    assert [each is not None for each in taken] == [True, True, False]
    store.discard(taken[0])
    store.join()
    assert closed == taken[:1]
