"""Who decodes a stream of video: a decoder of the model's GPU once it is there, and else the CPU."""

import threading

import numpy as np
import pytest

from forebay_server.engines.device import DeviceKind
from forebay_server.engines.errors import BackendUnavailableError, DeviceMemoryError
from forebay_server.service.frontend.frames.video.access_unit import UnitReader
from forebay_server.service.frontend.frames.video.codec import DamagedUnitError, LibavCodec
from forebay_server.service.frontend.frames.video.codecs import (
    HEADROOM_BYTES,
    MOST_DECODERS,
    UntilReady,
    VideoCodecs,
    VideoStream,
    most_of_process,
)
from forebay_server.service.frontend.frames.video.decoder_store import (
    KEPT_NS,
    RETRY_AFTER_NS,
    DecoderKind,
    DecoderStore,
)
from forebay_server.service.frontend.frames.video.device_codec import MOST_ERRORS
from forebay_server.service.frontend.frames.video.substitute import WithSubstitute
from forebay_server.service.models.description import InstanceGroup, ModelDescription
from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.settings import MAX_FRONT_ENDS
from tests.support.clock import ManualClock
from tests.support.device_video import MOST, Gpu, SimulatedVideoDecoder
from tests.support.guard import HANG_GUARD_S
from tests.support.videos import clip

PICTURE = PictureInput(32, 32, "RGB")


class Streams(Gpu):
    """A GPU, and decoders of streams as streams get them."""

    def open(self, unit, codec="h264", **fields):
        return self.codecs.open(stream_of(codec, **fields), sequence_of(unit, codec))

    def ready(self, unit, codec="h264"):
        """A decoder of the device, for which a first stream has waited."""
        first = self.open(unit, codec)
        self.codecs.store.join()
        first.close()
        found = self.open(unit, codec)
        assert isinstance(found, WithSubstitute)
        return found


@pytest.fixture
def gpu():
    return Streams()


def stream_of(codec="h264", kind=DeviceKind.CUDA, image=PICTURE, sets=b""):
    groups = (InstanceGroup(gpus=(Gpu.INDEX,)),)
    return VideoStream(
        codec, lambda: sets, ModelDescription("m", "simulated", 8, image=image, device_kind=kind, groups=groups)
    )


def sequence_of(unit, codec="h264"):
    return UnitReader(codec).read(unit.data).sequence


def rows(codec, units):
    """The row of each picture, by the number of its unit."""
    found = {}
    for number, unit in enumerate(units):
        for picture in codec.decode(unit.data, number):
            found[picture.number] = np.zeros(PICTURE.shape, np.uint8)
            assert picture.place(found[picture.number], PICTURE, MOST) == (64, 64)
            codec.settle()
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
        codec.settle()
    assert np.abs(found.astype(int) - expected).mean() < 0.5
    assert gpu.device.races == ()


def test_the_cpu_decodes_until_a_decoder_is_there(gpu):
    units = clip(8)
    first = gpu.open(units[0])
    assert isinstance(first, UntilReady)
    assert len(rows(first, units)) == 8
    gpu.codecs.store.join()
    assert not first.takes(sequence_of(units[0]))
    first.close()
    assert isinstance(gpu.open(units[0]), WithSubstitute)
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
    assert isinstance(gpu.open(large[0]), UntilReady)


def test_streams_beyond_the_decoders_are_the_cpus_until_one_is_free(gpu):
    unit = clip(1)[0]
    opened = [gpu.ready(unit) for _ in range(2)]
    third = gpu.open(unit)
    gpu.codecs.store.join()
    assert third.takes(sequence_of(unit))
    assert len(gpu.decoders) == 2
    opened[0].close()
    assert not third.takes(sequence_of(unit))
    third.close()
    assert isinstance(gpu.open(unit), WithSubstitute)
    assert len(gpu.decoders) == 2


def test_the_processes_of_a_server_have_no_more_decoders_than_the_driver_has_channels_for():
    assert most_of_process(0) == most_of_process("auto") == MOST_DECODERS
    assert all(0 < count * most_of_process(count) <= MOST_DECODERS for count in range(1, MAX_FRONT_ENDS + 1))


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
    assert isinstance(gpu.open(units[0]), UntilReady)


def test_a_good_unit_takes_doubts_away(gpu):
    units = clip(2)
    decoder = gpu.ready(units[0])
    for _ in range(2):
        for number in range(MOST_ERRORS - 1):
            with pytest.raises(DamagedUnitError):
                decoder.decode(SimulatedVideoDecoder.BROKEN, number)
        (picture,) = decoder.decode(units[0].data, 20)
        assert not picture.is_damaged
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
    taken = [store.take(kind) for _ in range(3)]
    assert [each is not None for each in taken] == [True, True, False]
    store.discard(taken[0])
    store.join()
    assert closed == taken[:1]


class Kept:
    """A decoder that only notes whether it was closed."""

    def __init__(self, kind):
        self.kind, self.is_closed = kind, False

    def close(self):
        self.is_closed = True


KIND, OTHER = DecoderKind(0, "h264", (64, 64), 1), DecoderKind(0, "h264", (128, 96), 1)


class Held:
    """A store whose decoders are made when the test says so.

    Attributes:
        made: decoders so far.
        most_open: of them at a time.
        errors: raised by the next ones, first come first.
    """

    def __init__(self, most=8):
        self.made, self.errors, self.clock, self._go_on = [], [], ManualClock(), threading.Event()
        self.most_open = 0
        self.store = DecoderStore(self._make, most, self.clock)

    def _make(self, kind):
        assert self._go_on.wait(HANG_GUARD_S)
        if self.errors:
            raise self.errors.pop(0)
        self.made.append(Kept(kind))
        self.most_open = max(self.most_open, sum(not each.is_closed for each in self.made))
        return self.made[-1]

    def pause(self):
        self._go_on.clear()

    def settle(self):
        self._go_on.set()
        self.store.join()


def test_a_stream_that_ends_takes_its_order_back():
    held = Held()
    for stream in range(5):
        held.store.order(KIND, stream)
    for stream in range(1, 5):
        held.store.withdraw(KIND, stream)
    held.settle()
    assert len(held.made) == 1


def test_decoders_are_bounded_whether_they_are_used_or_kept():
    held = Held(most=2)
    held.store.order(KIND, "one")
    held.settle()
    taken = held.store.take(KIND)
    for kind in (OTHER, OTHER._replace(references=2)):
        held.store.order(kind, "other")
        held.settle()
        held.store.withdraw(kind, "other")
    assert [each.is_closed for each in held.made] == [False, True, False]
    held.store.give_back(KIND, taken)
    held.settle()
    assert sum(not each.is_closed for each in held.made) == 2


def test_a_decoder_that_a_stream_waits_for_makes_no_way_for_another_kind():
    held = Held(most=1)
    held.store.order(KIND, "one")
    held.settle()
    for _ in range(3):
        assert not held.store.order(OTHER, "other")
        held.settle()
    assert [each.is_closed for each in held.made] == [False]
    held.store.withdraw(KIND, "one")  # it takes it, or has ended
    held.store.order(OTHER, "other")
    held.settle()
    assert [each.is_closed for each in held.made] == [True, False]
    assert held.store.take(OTHER) is held.made[1]


def test_there_are_never_more_decoders_than_the_most():
    held = Held(most=3)
    for stream in range(3):
        held.store.order(KIND, stream)
    held.settle()
    held.pause()
    for stream in range(3):
        held.store.withdraw(KIND, stream)
        held.store.order(OTHER, stream)
    held.settle()
    assert held.most_open == 3
    assert [each.kind for each in held.made if not each.is_closed] == [OTHER] * 3


def test_an_order_is_given_up_where_others_took_the_kept_decoders_meanwhile():
    held = Held(most=3)
    for stream in range(2):
        held.store.order(KIND, stream)
    held.settle()
    for stream in range(2):
        held.store.withdraw(KIND, stream)
    held.pause()
    held.store.order(OTHER._replace(references=2), "is made first")
    held.store.order(OTHER, "other")
    taken = [held.store.take(KIND) for _ in range(2)]
    held.settle()
    assert held.most_open == 3
    held.store.give_back(KIND, taken[0])
    held.store.order(OTHER, "other")
    held.settle()
    assert held.store.take(OTHER) is not None


def test_kept_decoders_make_way_where_memory_is_short():
    held = Held()
    for stream in range(2):
        held.store.order(KIND, stream)
    held.settle()
    for stream in range(2):
        held.store.withdraw(KIND, stream)
    held.errors += [DeviceMemoryError("no memory"), DeviceMemoryError("no memory")]
    held.store.order(OTHER, "large")
    held.settle()
    assert [each.is_closed for each in held.made] == [True, True, False]
    assert held.store.take(OTHER) is held.made[2]


def test_where_memory_is_short_a_decoder_stays_for_the_stream_that_waits_for_it():
    held = Held()
    held.store.order(KIND, "one")
    held.settle()
    held.errors.append(DeviceMemoryError("no memory"))
    held.store.order(OTHER, "other")
    held.settle()
    assert [(each.kind, each.is_closed) for each in held.made] == [(KIND, False)]


def test_an_unforeseen_error_leaves_the_thread_alive():
    held = Held()
    held.errors.append(RuntimeError("a bug"))
    held.store.order(KIND, "one")
    held.store.order(OTHER, "other")
    held.settle()
    assert [each.kind for each in held.made] == [OTHER]
    held.clock.advance(RETRY_AFTER_NS)
    held.store.order(KIND, "one")
    held.settle()
    assert held.store.take(KIND) is not None


def test_a_kind_that_the_gpu_lacks_holds_up_no_other():
    held = Held()
    held.errors.append(BackendUnavailableError("too small"))
    held.store.order(KIND, "one")
    held.settle()
    held.store.order(OTHER, "other")
    held.settle()
    assert [each.kind for each in held.made] == [OTHER]


def test_a_decoder_that_no_stream_wants_is_closed_after_a_while():
    held = Held()
    for stream in range(2):
        held.store.order(KIND, stream)
    held.settle()
    taken = held.store.take(KIND)
    held.clock.advance(KEPT_NS - 1)
    held.store.give_back(KIND, taken)
    held.store.look()
    held.settle()
    assert not any(each.is_closed for each in held.made)
    held.clock.advance(1)
    held.store.look()
    held.settle()
    assert [each.is_closed for each in held.made] == [False, True]
    assert held.store.take(KIND) is taken
