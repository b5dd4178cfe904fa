"""Many models at once, and a model that is reloaded while both protocols are in use."""

import asyncio
import signal

import grpc
import numpy as np
import pytest

import forebay.aio
from forebay import Status
from forebay.wire import inference_pb2 as pb
from forebay.wire.inference_pb2_grpc import GRPCInferenceServiceStub
from tests.support import models
from tests.support.guard import HANG_GUARD_S
from tests.support.inference import add_sub_request, array_of, request_of
from tests.support.loops import on_loop
from tests.support.supervised import served

RELOADS = 200
CAMERAS = 2
LEAST_FRAMES = 10  # a client that is asked to reconnect again and again opens a stream once a second at most
COUNT = 50
ROW = np.arange(16, dtype=np.float32)


def control(repository, *arguments, **settings):
    environment = {f"FOREBAY_{name.upper()}": str(value) for name, value in settings.items()}
    fixed = ("--address", "127.0.0.1:0", "--model-repository", repository, "--model-control-mode", "explicit")
    return served(*fixed, *arguments, environment=environment)


def stop(running):
    running.process.send_signal(signal.SIGTERM)
    assert running.wait() == 0, running.log


class Load:
    """Cameras, requests and reloads of one model, until the reloads are done; each coroutine returns its count."""

    def __init__(self, stub, client):
        self.stub, self.client = stub, client
        self.is_done = False

    async def reload(self):
        try:
            for _ in range(RELOADS):
                await self.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="small"))
        finally:
            self.is_done = True
        return RELOADS

    async def requests(self):
        count = 0
        request = request_of("small", x=ROW.reshape(1, 16))
        while not self.is_done:
            assert array_of(await self.stub.ModelInfer(request), "y").tobytes() == ROW.tobytes()
            count += 1
        return count

    async def camera(self, number):
        count = 0
        stream = self.client.stream(f"camera {number}", model="small", encoding="tensor", delivery="every")
        while not self.is_done:
            await stream.send(ROW.tobytes())
            result = await stream.receive()
            assert result.status is Status.OK, result
            count += 1
        await stream.close()
        return count


@pytest.mark.slow
def test_two_hundred_reloads_under_load_fail_no_frame(tmp_path, record_property):
    models.save(models.identity(("batch", 16)), tmp_path / "small" / "1" / "model.onnx")

    @on_loop(guard_s=4 * HANG_GUARD_S)
    async def run(address):
        async with grpc.aio.insecure_channel(address) as channel, forebay.aio.Client(address) as client:
            load = Load(GRPCInferenceServiceStub(channel), client)
            cameras = [load.camera(number) for number in range(CAMERAS)]
            counts = await asyncio.gather(load.reload(), load.requests(), *cameras)
        record_property("counts", counts)
        assert min(counts) >= LEAST_FRAMES

    with control(tmp_path, "--load-model", "small", rehearse_loads=False) as running:  # 200 would take minutes
        run(running.wait_ready()["address"])
        stop(running)


@pytest.mark.slow
def test_fifty_models_are_loaded_and_served_at_once(tmp_path):
    for number in range(COUNT):
        models.save(models.add_sub(), tmp_path / f"model{number}" / "1" / "model.onnx")

    @on_loop
    async def ask(address):
        async with grpc.aio.insecure_channel(address) as channel:
            stub = GRPCInferenceServiceStub(channel)
            index = await stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
            assert len(index.models) == COUNT
            asked = [(number, rows) for number in range(COUNT) for rows in range(1, 5)]
            calls = [stub.ModelInfer(add_sub_request(f"model{number}", rows=rows)) for number, rows in asked]
            for (number, rows), response in zip(asked, await asyncio.gather(*calls), strict=True):
                assert response.model_name == f"model{number}"
                assert array_of(response, "OUTPUT0")[-1, -1] == 16 * rows

    with control(tmp_path, "--load-model", "*") as running:
        ask(running.wait_ready()["address"])
        stop(running)
