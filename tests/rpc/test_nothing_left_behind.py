"""What was refused is freed at once, message and all: it does not wait for Python's collector of cycles.

A message has up to 16 MB. On a server with little to do the collector runs rarely, so that a few refused requests held
hundreds of megabytes for as long.
"""

import asyncio
import gc
from contextlib import contextmanager, suppress

import grpc
import numpy as np
import pytest

from forebay.wire import frames_pb2 as pb
from forebay.wire import inference_pb2 as oip
from forebay_server.service.errors import ServiceError
from forebay_server.service.frontend.open_inference.errors import InferenceError
from forebay_server.service.frontend.reception.refusals import RefusedError
from tests.support.inference import request_of, stub_of
from tests.support.loops import on_loop
from tests.support.real_server import ROW_BYTES, open_message, real_server, simulated

OURS = (ServiceError, InferenceError, RefusedError)
ROW = np.zeros((1, ROW_BYTES), np.uint8)


def errors_of_ours():
    return [each for each in gc.get_objects() if isinstance(each, OURS)]


@contextmanager
def without_collector():
    """The errors of ours that came into being in the block and are still alive, while nothing collects cycles."""
    gc.collect()
    gc.disable()
    before = errors_of_ours()  # parameters of other tests, in a run of many
    try:
        yield lambda: [each for each in errors_of_ours() if not any(each is old for old in before)]
    finally:
        gc.enable()


def sim(**changes):
    request = request_of("sim", input=ROW)
    for name, value in changes.items():
        setattr(request, name, value)
    return request


def misshapen():
    request = sim()
    request.inputs[0].shape[:] = [1, ROW_BYTES + 1]
    return request


REQUESTS = {
    "unknown model": sim(model_name="unknown"),
    "wrong shape": misshapen(),
    "no data": oip.ModelInferRequest(model_name="sim"),
    "unknown output": request_of("sim", input=ROW, outputs=["unknown"]),
    "bad parameter": request_of("sim", input=ROW, parameters={"priority": "high"}),
}


async def refused(call):
    with suppress(grpc.aio.AioRpcError):
        await call
        return False
    return True


@pytest.mark.parametrize("strict", [False, True], ids=["", "compression"])
@pytest.mark.parametrize("name", REQUESTS)
@on_loop
async def test_a_refused_request(tmp_path, name, strict):
    async with real_server(simulated(tmp_path), allow_compression=strict) as running:
        infer = stub_of(running).ModelInfer
        await infer(sim())
        with without_collector() as alive:
            assert await refused(infer(REQUESTS[name]))
            await infer(sim())
            assert alive() == []


@on_loop
async def test_an_expired_request(tmp_path):
    async with real_server(simulated(tmp_path, alpha_ms=50)) as running:
        infer = stub_of(running).ModelInfer
        await infer(sim())
        with without_collector() as alive:
            assert await refused(infer(request_of("sim", input=ROW, parameters={"timeout": 1})))
            await infer(sim())
            assert alive() == []


@on_loop
async def test_requests_beyond_the_permits(tmp_path):
    async with real_server(simulated(tmp_path, alpha_ms=5), permits=1) as running:
        infer = stub_of(running).ModelInfer
        await infer(sim())
        with without_collector() as alive:
            assert sum(await asyncio.gather(*(refused(infer(sim())) for _ in range(8)))) > 0
            await infer(sim())
            assert alive() == []


@pytest.mark.parametrize("name", REQUESTS)
@on_loop
async def test_a_refused_request_on_a_stream(tmp_path, name):
    async with real_server(simulated(tmp_path)) as running:
        call = stub_of(running).ModelStreamInfer()
        await call.write(sim())
        await call.read()
        with without_collector() as alive:
            for request in (REQUESTS[name], sim()):
                await call.write(request)
                await call.read()
            assert alive() == []
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize(
    "first",
    [
        pb.ClientMessage(open=open_message(model="unknown")).SerializeToString(),
        pb.ClientMessage(frame=pb.Frame(seq=1)).SerializeToString(),
        b"\xff",
    ],
    ids=["unknown model", "a frame", "garbage"],
)
@on_loop
async def test_a_stream_that_does_not_open(tmp_path, first):
    async with real_server(simulated(tmp_path)) as running:
        with without_collector() as alive:
            stream = running.stream()
            await stream.send_bytes(first)
            code, _ = await stream.status()
            assert code is not grpc.StatusCode.OK
            assert alive() == []


@on_loop
async def test_refused_frames(tmp_path):
    async with real_server(simulated(tmp_path)) as running:
        stream = await running.open()
        with without_collector() as alive:
            await stream.send(1, b"too short")
            await stream.send(2, latency_budget_ms=0.001)
            await stream.send(3)
            await stream.results(3)
            assert alive() == []
        await stream.half_close()
        await stream.drain()


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("ModelMetadata", oip.ModelMetadataRequest(name="unknown")),
        ("ModelConfig", oip.ModelConfigRequest(name="unknown")),
        ("RepositoryModelLoad", oip.RepositoryModelLoadRequest(model_name="unknown")),
        ("SystemSharedMemoryStatus", oip.SystemSharedMemoryStatusRequest(name="unknown")),
    ],
)
@on_loop
async def test_a_refused_call(tmp_path, method, request_):
    async with real_server(simulated(tmp_path)) as running:
        with without_collector() as alive:
            assert await refused(getattr(stub_of(running), method)(request_))
            await stub_of(running).ServerLive(oip.ServerLiveRequest())
            assert alive() == []
