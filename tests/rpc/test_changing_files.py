"""Bare files that change while they are served: replaced, broken, loaded and unloaded by several clients at once."""

import asyncio

import cv2
import grpc
import numpy as np
import pytest

from forebay.wire import frames_pb2 as pb
from forebay.wire import inference_pb2
from tests.support import exported
from tests.support.inference import stub_of
from tests.support.loops import on_loop
from tests.support.real_server import real_server

ROW = [32, 32, 16, 8, 0.1, 0.9]
PICTURE = cv2.imencode(".png", np.full((64, 64, 3), 255, np.uint8))[1].tobytes()
NAMES = ("one", "other", "third")
OVERTAKEN = ("unloaded while it was loading", "no model")


def write(path, label):
    return exported.yolo(path, [ROW], {**exported.METADATA, "names": repr(["person", label])})


async def load(running, name):
    await stub_of(running).RepositoryModelLoad(inference_pb2.RepositoryModelLoadRequest(model_name=name))


async def unload(running, name):
    await stub_of(running).RepositoryModelUnload(inference_pb2.RepositoryModelUnloadRequest(model_name=name))


async def label_in(stream, seq):
    await stream.send(seq, PICTURE)
    (found,) = (await stream.result()).detections
    return found.label


@on_loop
async def test_a_replaced_file_serves_new_streams_once_it_is_loaded_and_a_broken_one_changes_nothing(tmp_path):
    file = write(tmp_path / "best.onnx", "dog")
    fields = {"model": "best", "encoding": pb.ENCODING_PNG}
    async with real_server(tmp_path, model_control_mode="explicit", load_model=("best",)) as running:
        before = await running.open(**fields)
        assert await label_in(before, 1) == "dog"
        write(tmp_path / "new", "cat").replace(file)
        assert await label_in(before, 2) == "dog"
        await load(running, "best")
        assert await label_in(before, 3) == "dog"  # a stream stays with the version that it was opened for
        after = await running.open(**fields)
        assert await label_in(after, 1) == "cat"
        for content in (b"", b"no model"):
            file.write_bytes(content)
            with pytest.raises(grpc.aio.AioRpcError, match=r"best\.onnx") as caught:
                await load(running, "best")
            assert str(tmp_path) not in caught.value.details()
            assert await label_in(after, 2 + len(content)) == "cat"
        for stream in (before, after):
            await stream.half_close()


@on_loop
async def test_files_are_loaded_and_unloaded_side_by_side_in_any_order(tmp_path):
    for name in NAMES:
        write(tmp_path / f"{name}.onnx", name)
    async with real_server(tmp_path, model_control_mode="explicit", load_model=NAMES) as running:
        calls = [call(running, name) for _ in range(3) for name in NAMES for call in (unload, load)]
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert outcome is None or any(words in outcome.details() for words in OVERTAKEN), outcome
        for name in NAMES:
            await load(running, name)
            stream = await running.open(model=name, encoding=pb.ENCODING_PNG)
            assert await label_in(stream, 1) == name
            await stream.half_close()
