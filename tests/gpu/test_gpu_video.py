"""NVDEC: pictures as libavcodec's, in the order of decoding, and nothing that input can break for others."""

import collections
import random
from pathlib import Path

import numpy as np
import pytest

from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.device import DeviceKind
from forebay_server.engines.errors import EngineError
from forebay_server.engines.video import open_video
from forebay_server.service.frontend.frames.video.access_unit import UnitReader
from forebay_server.service.frontend.frames.video.codec import DamagedUnitError, LibavCodec
from forebay_server.service.frontend.frames.video.codecs import VideoCodecs, VideoStream
from forebay_server.service.frontend.frames.video.substitute import WithSubstitute
from forebay_server.service.models.description import InstanceGroup, ModelDescription
from forebay_server.service.pictures.picture_input import PictureInput

pytest.importorskip("av")
from tests.support.videos import encode, parameter_sets, without_vui

cv2 = pytest.importorskip("cv2")
MOST = 50_000_000
DETECTOR = PictureInput(416, 416, "BGR")
MUTATIONS = 1000


def frames_of_clip(count, size=(1280, 720)):
    clip = cv2.VideoCapture(str(Path(__file__).resolve().parents[2] / "models" / "pedestrians.mp4"))
    frames = [cv2.cvtColor(cv2.resize(clip.read()[1], size), cv2.COLOR_BGR2RGB) for _ in range(count)]
    clip.release()
    return frames


@pytest.fixture
def opened():
    """Open the GPU's decoder of a stream, once it is ready; all are closed at the end."""
    codecs, found = VideoCodecs("auto", MOST, 64, MonotonicClock()), []

    def open_(codec, unit):
        stream, sequence = stream_of(codec), sequence_of(codec, unit)
        waiting = codecs.open(stream, sequence)
        codecs.store.join()
        waiting.close()
        found.append(codecs.open(stream, sequence))
        assert isinstance(found[-1], WithSubstitute)
        return found[-1].device

    yield open_
    for each in found:
        each.close()


def stream_of(codec, picture=DETECTOR):
    model = ModelDescription(
        "m", "tensorrt", 8, image=picture, device_kind=DeviceKind.CUDA, groups=(InstanceGroup(gpus=(0,)),)
    )
    return VideoStream(codec, lambda: b"", model)


def sequence_of(codec, unit):
    reader = UnitReader(codec)
    return reader.read(unit.data).sequence


def rows(codec, units, picture=DETECTOR):
    """The rows of each unit by its number."""
    found = {}
    for number, unit in enumerate(units):
        for each in codec.decode(unit.data, number):
            target = np.zeros(picture.shape, picture.dtype)
            assert not each.is_damaged
            each.place(target, picture, MOST)
            codec.settle()
            found[each.number] = target
    for each in codec.drain():
        target = np.zeros(picture.shape, picture.dtype)
        each.place(target, picture, MOST)
        found[each.number] = target
    return found


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize(("bframes", "size"), [(0, (1280, 720)), (2, (1280, 720)), (0, (1920, 1080)), (0, (642, 362))])
def test_pictures_are_those_of_the_cpu(opened, codec, bframes, size, measured):
    units = encode(frames_of_clip(24, size), codec, gop=8, bframes=bframes)
    found = rows(opened(codec, units[0]), units)
    expected = rows(LibavCodec(codec, MOST), units)
    assert sorted(found) == sorted(expected) == list(range(len(units)))
    differences = [np.abs(found[n].astype(int) - expected[n]) for n in expected]
    measured(f"mean {max(d.mean() for d in differences):.4f}, largest {max(d.max() for d in differences)}")
    assert max(difference.mean() for difference in differences) < 0.5


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_each_picture_comes_with_its_own_unit(opened, codec):
    units = encode(frames_of_clip(12), codec, gop=6, bframes=2)
    gpu = opened(codec, units[0])
    for number, unit in enumerate(units):
        assert [each.number for each in gpu.decode(unit.data, number)] == [number]


@pytest.mark.parametrize("level", ["3.1", "4.0", "5.1"])
def test_a_stream_whose_parameter_sets_say_little_is_decoded(opened, level):
    units = encode(frames_of_clip(24), "h264", gop=8, options={"profile": "baseline", "level": level})
    units = [without_vui(unit) for unit in units]
    found, expected = rows(opened("h264", units[0]), units), rows(LibavCodec("h264", MOST), units)
    assert sorted(found) == list(range(len(units)))
    assert all(np.abs(found[n].astype(int) - expected[n]).mean() < 0.5 for n in expected)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_parameter_sets_that_came_before_are_enough(codec):
    units = encode(frames_of_clip(16), codec, gop=8)
    reader, codecs = UnitReader(codec), VideoCodecs("auto", MOST, 64, MonotonicClock())
    sequence = reader.read(units[0].data).sequence
    stream = stream_of(codec)
    stream = VideoStream(codec, lambda: reader.sets, stream.model)
    codecs.open(stream, sequence)
    codecs.store.join()
    gpu = codecs.open(stream, sequence).device
    bare = units[8].data
    for each in parameter_sets(units[8], codec).split(b"\0\0\1")[1:]:
        bare = bare.replace(b"\0\0\1" + each, b"")
    later = [type(units[8])(bare, units[8].shown, is_keyframe=True), *units[9:]]
    found, expected = rows(gpu, later), rows(LibavCodec(codec, MOST), units[8:])
    gpu.close()
    assert sorted(found) == list(range(8))
    assert all(np.abs(found[n].astype(int) - expected[n]).mean() < 0.5 for n in expected)


def test_another_size_at_a_keyframe_gets_another_decoder(opened):
    first, second = encode(frames_of_clip(4), "h264"), encode(frames_of_clip(4, (640, 480)), "h264")
    gpu = opened("h264", first[0])
    rows(gpu, first)
    assert not gpu.takes(sequence_of("h264", second[0]))
    with pytest.raises(DamagedUnitError):
        gpu.decode(second[0].data, 9)


def test_a_decoder_that_comes_back_serves_another_stream(opened):
    first, second = encode(frames_of_clip(10), "h264", gop=5), encode(frames_of_clip(20)[10:], "h264", gop=4)
    gpu = opened("h264", first[0])
    rows(gpu, first[:7])
    gpu.close()
    found, expected = rows(opened("h264", second[0]), second), rows(LibavCodec("h264", MOST), second)
    assert all(np.abs(found[n].astype(int) - expected[n]).mean() < 0.5 for n in expected)


def kind_of(codec, data, number):
    """How a unit ends, after its picture was placed."""
    kind = "without a picture"
    try:
        for picture in codec.decode(data, number):
            kind = "damaged" if picture.is_damaged else "shown"
            if not picture.is_damaged:
                picture.place(np.zeros(DETECTOR.shape, np.uint8), DETECTOR, MOST)
                codec.settle()
    except DamagedUnitError:
        kind = "refused"
    return kind


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_mutations_harm_no_other_stream(opened, rig, codec, measured):
    units = encode(frames_of_clip(10, (640, 360)), codec, gop=5)
    sequence = sequence_of(codec, units[0])
    good, expected = opened(codec, units[0]), rows(LibavCodec(codec, MOST), units)
    random_ = random.Random(7)  # noqa: S311 - the same mutations each time
    kinds = collections.Counter()
    bad = opened(codec, units[0])
    for turn in range(MUTATIONS):
        unit = bytearray(units[turn % len(units)].data)
        for _ in range(random_.randint(1, 8)):
            unit[random_.randrange(4, len(unit))] = random_.randrange(256)
        if random_.random() < 0.2:
            unit = unit[: random_.randrange(6, len(unit))]
        kinds[kind_of(bad, bytes(unit), turn)] += 1
        if not bad.takes(sequence):
            bad.close()
            bad = opened(codec, units[0])
        if turn % 100 == 0:
            again = rows(good, units)
            assert all(np.abs(again[n].astype(int) - expected[n]).mean() < 0.5 for n in expected)
    rig.device.raise_if_lost()
    measured(", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())))


def test_a_size_that_the_engine_lacks_is_refused(rig):
    with pytest.raises(EngineError):
        open_video(rig.device, "h264", (20_000, 20_000), 1)


def test_many_decoders_leave_no_memory_behind(rig, measured):
    units = [unit.data for unit in encode(frames_of_clip(4), "h264")]
    used = []
    for _ in range(3):
        decoders = [open_video(rig.device, "h264", (1280, 720), 4) for _ in range(8)]
        for decoder in decoders:
            for unit in units:
                assert decoder.submit(unit)
                assert decoder.picture().size == (1280, 720)
        most = rig.device.memory().used_bytes
        for decoder in decoders:
            decoder.close()
        used.append(rig.device.memory().used_bytes)
    measured(f"{(most - used[-1]) / 8 / 2**20:.1f} MiB a decoder")
    assert used[-1] <= used[0] + (8 << 20)
