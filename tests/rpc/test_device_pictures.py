"""JPEG frames of a model whose device decodes them, in both forms of the server."""

import cv2
import numpy as np
import pytest
from structlog.testing import capture_logs

from forebay.wire import frames_pb2 as pb
from forebay_server.engines.device_simulated import MEMORY_BYTES, FileDecoding, SimulatedDevice
from forebay_server.engines.errors import DeviceMemoryError
from forebay_server.service.pictures.picture_input import PictureInput
from tests.rpc.test_observe import get
from tests.support.device_pictures import decode, pixels_of, row_of_file
from tests.support.jpegs import OTHER_KINDS, PROGRESSIVE, encoded
from tests.support.loops import on_loop
from tests.support.real_server import real_server, simulated

SIDE = 32
PICTURE = PictureInput(SIDE, SIDE, "RGB")
REFUSED = OTHER_KINDS["4:4:4"]
SIZES = [(64, 48), (96, 64), (200, 120)]


def decode_but_one(file):
    """The device decodes as libjpeg, but refuses one kind."""
    return None if file == REFUSED else decode(file)


class DecodingDevices:
    """Gives every model version a simulated device that decodes files."""

    def __init__(self, device_class=SimulatedDevice):
        self.devices = []
        self._class = device_class

    def __call__(self, kind, clock):
        self.devices.append(self._class(clock=clock, files=FileDecoding(decode_but_one)))
        return self.devices[-1]


class SharedDevice(SimulatedDevice):
    """Another program takes its memory between the first look and the decoders of the second lane."""

    lanes = 0

    def open_pictures(self, form, limits, device_stream):
        self.lanes += 1
        if self.lanes < 2 or not limits.file_pixels:
            return super().open_pictures(form, limits, device_stream)
        others = self.alloc_device(MEMORY_BYTES - self.memory().used_bytes)
        try:
            return super().open_pictures(form, limits, device_stream)
        finally:
            others.close()


def repository(root, **options):
    shape = {"input_shape": f"{SIDE},{SIDE},3", "color_order": "RGB", **options}
    return simulated(root, "camera", **{"output": "copy", **shape})


async def results_of(running, payloads, **fields):
    stream = await running.open(model="camera", encoding=pb.ENCODING_JPEG, delivery=pb.DELIVERY_EVERY, **fields)
    for seq, payload in enumerate(payloads):
        await stream.send(seq, payload=payload)
    await stream.half_close()
    return await stream.results()


def picture_of(result):
    return np.frombuffer(result.tensors[0].data, np.uint8).reshape(PICTURE.shape)


async def counts_of(running):
    await running.told()
    _, _, text = await get(running.server.admin_address, "/metrics")
    lines = [line for line in text.splitlines() if line.startswith("forebay_pictures_total{")]
    return {line.split('by="')[1].split('"')[0]: int(line.rsplit(" ", 1)[1]) for line in lines}


@on_loop
async def test_frames_are_decoded_by_the_device_or_by_the_cpu_and_counted(tmp_path):
    files = [encoded(pixels_of(*size)) for size in SIZES]
    payloads = [*files, PROGRESSIVE, REFUSED, files[0][:-40], b"\xff\xd8" + bytes(50), files[1]]
    devices = DecodingDevices()
    async with real_server(repository(tmp_path), devices=devices, admin_address="127.0.0.1:0") as running:
        results = await results_of(running, payloads)
        wrong = [result.seq for result in results if result.status.code == pb.STATUS_INVALID]
        assert wrong == [5, 6]
        for result, file in zip(results, payloads, strict=True):
            if result.status.code == pb.STATUS_OK:
                difference = np.abs(picture_of(result).astype(int) - row_of_file(file, PICTURE))
                assert difference.mean() < 1.0
        assert await counts_of(running) == {
            "device": 5, "host_header": 2, "host_end": 1, "host_refused": 1,
        }  # fmt: skip
    assert all(device.races == () for device in devices.devices)


@on_loop
async def test_the_cpu_decodes_if_the_setting_says_so(tmp_path):
    file = encoded(pixels_of(64, 48))
    async with real_server(
        repository(tmp_path), devices=DecodingDevices(), admin_address="127.0.0.1:0", image_decode="cpu"
    ) as running:
        (result,) = await results_of(running, [file])
        assert np.array_equal(picture_of(result), row_of_file(file, PICTURE))
        assert await counts_of(running) == {}


@on_loop
async def test_larger_pictures_than_the_model_allows_its_device_are_the_cpus(tmp_path):
    file = encoded(pixels_of(64, 48))
    root = repository(tmp_path, gpu_decode_pixels=64 * 48 - 1)
    async with real_server(root, devices=DecodingDevices(), admin_address="127.0.0.1:0") as running:
        (result,) = await results_of(running, [file])
        assert np.array_equal(picture_of(result), row_of_file(file, PICTURE))
        assert await counts_of(running) == {"host_pixels": 1}


@on_loop
async def test_a_device_without_the_memory_leaves_decoding_to_the_cpu(tmp_path):
    file = encoded(pixels_of(64, 48))
    root = repository(tmp_path, gpu_decode_pixels=4_000_000_000)
    async with real_server(root, devices=DecodingDevices(), admin_address="127.0.0.1:0") as running:
        (result,) = await results_of(running, [file])
        assert np.array_equal(picture_of(result), row_of_file(file, PICTURE))
        assert await counts_of(running) == {}


@on_loop
async def test_a_device_whose_memory_runs_out_while_a_model_is_opened_leaves_decoding_to_the_cpu(tmp_path):
    file = encoded(pixels_of(64, 48))
    devices = DecodingDevices(SharedDevice)
    root = repository(tmp_path, gpu_decode_pixels=1 << 20)
    (root / "camera" / "config.pbtxt").write_text(
        (root / "camera" / "config.pbtxt").read_text().replace("count: 1", "count: 2")
    )
    with capture_logs() as logs:
        async with real_server(root, devices=devices, admin_address="127.0.0.1:0") as running:
            (result,) = await results_of(running, [file])
            assert np.array_equal(picture_of(result), row_of_file(file, PICTURE))
            assert await counts_of(running) == {}
    said = [line["reason"] for line in logs if line["event"] == "JPEG frames are decoded by the CPU"]
    assert len(said) == 1
    assert "do not fit" in said[0]
    assert [device.lanes for device in devices.devices] == [2, 0], "opened anew, without decoders"
    assert all(device.leaks == () for device in devices.devices)


@on_loop
async def test_a_gpu_that_must_decode_is_an_error_without_the_memory(tmp_path):
    root = repository(tmp_path, gpu_decode_pixels=1 << 20)
    (root / "camera" / "config.pbtxt").write_text(
        (root / "camera" / "config.pbtxt").read_text().replace("count: 1", "count: 2")
    )
    devices = DecodingDevices(SharedDevice)
    with pytest.raises(DeviceMemoryError, match="do not fit"):
        async with real_server(root, devices=devices, image_decode="gpu"):
            raise AssertionError("it serves")


@on_loop
async def test_streams_of_files_and_of_pixels_share_batches(tmp_path):
    file, pixels = encoded(pixels_of(64, 48)), cv2.cvtColor(pixels_of(SIDE, SIDE), cv2.COLOR_BGR2RGB)
    async with real_server(repository(tmp_path), devices=DecodingDevices()) as running:
        files = await running.open(model="camera", encoding=pb.ENCODING_JPEG, delivery=pb.DELIVERY_EVERY)
        plain = await running.open(
            model="camera", encoding=pb.ENCODING_RGB8, delivery=pb.DELIVERY_EVERY, width=SIDE, height=SIDE
        )
        for seq in range(20):
            await files.send(seq, payload=file)
            await plain.send(seq, payload=pixels.tobytes())
        for stream in (files, plain):
            await stream.half_close()
        expected = row_of_file(file, PICTURE)
        for result in await files.results():
            assert np.abs(picture_of(result).astype(int) - expected).mean() < 1.0
        for result in await plain.results():
            assert np.array_equal(picture_of(result), pixels)
