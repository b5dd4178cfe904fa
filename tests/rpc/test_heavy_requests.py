"""Requests that would hold up the event loop are a worker's: others are answered meanwhile, and order is kept."""

import asyncio
import threading
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
from onnx import TensorProto

from forebay.wire import inference_pb2 as pb
from tests.support import models
from tests.support.inference import stub_of
from tests.support.loops import on_loop
from tests.support.real_server import eventually, real_server, simulated

STRINGS = 20_000
COLUMNS = 300_000


@pytest.fixture
def repository(tmp_path):
    models.save(models.identity(("batch", "n"), TensorProto.STRING), tmp_path / "strings" / "1" / "model.onnx")
    models.save(models.identity(("batch", "n"), TensorProto.INT64), tmp_path / "numbers" / "1" / "model.onnx")
    simulated(tmp_path, "wide", input_bytes=COLUMNS * 4, input_shape=COLUMNS, datatype="FP32")
    return tmp_path


def strings(count, request_id=""):
    request = pb.ModelInferRequest(model_name="strings", id=request_id)
    request.inputs.add(name="x", datatype="BYTES", shape=[1, count])
    request.raw_input_contents.append(b"\x01\0\0\0a" * count)
    return request


def typed(values, request_id=""):
    request = pb.ModelInferRequest(model_name="numbers", id=request_id)
    tensor = request.inputs.add(name="x", datatype="INT64", shape=[1, len(values)])
    tensor.contents.int64_contents.extend(values)
    return request


def wide(rows, request_id=""):
    request = pb.ModelInferRequest(model_name="wide", id=request_id)
    request.inputs.add(name="input", datatype="FP32", shape=[rows, COLUMNS])
    request.raw_input_contents.append(np.arange(rows * COLUMNS, dtype=np.float32).tobytes())
    return request


def typed_wide():
    request = wide(1)
    request.inputs[0].contents.fp32_contents.extend(np.frombuffer(request.raw_input_contents[0], np.float32).tolist())
    request.ClearField("raw_input_contents")
    return request


@contextmanager
def busy_worker(running):
    """The only worker does something else for as long as this lasts."""
    event = threading.Event()
    running.server.pool.submit_result(event.wait)
    try:
        yield
    finally:
        event.set()


HEAVY = {
    "strings": (strings(STRINGS), b"\x01\0\0\0a" * STRINGS),
    "typed numbers": (typed([-1, 2] * STRINGS), np.array([-1, 2] * STRINGS).tobytes()),
    "rows that are copied": (wide(2), wide(2).raw_input_contents[0]),
    "typed numbers of a fixed shape": (typed_wide(), wide(1).raw_input_contents[0]),
}


@pytest.mark.parametrize(("request_", "expected"), HEAVY.values(), ids=HEAVY)
@pytest.mark.parametrize("in_stream", [False, True])
@on_loop
async def test_a_heavy_request_waits_for_a_worker_and_holds_up_nobody(repository, request_, expected, in_stream):
    async with real_server(repository, worker_threads=1) as running:
        stub = stub_of(running)
        with busy_worker(running):
            if in_stream:
                stream = stub.ModelStreamInfer(iter([request_]))
                waiting = asyncio.ensure_future(stream.read())
            else:
                waiting = asyncio.ensure_future(stub.ModelInfer(request_))
            await eventually(lambda: running.server.pool.waiting_count == 1)
            for _ in range(3):
                assert (await stub.ModelInfer(strings(2))).raw_output_contents == [b"\x01\0\0\0a" * 2]
            assert not waiting.done()
        answer = await waiting
        answer = answer.infer_response if in_stream else answer
        assert answer.raw_output_contents == [expected]


@on_loop
async def test_requests_of_a_stream_keep_their_order_behind_a_heavy_one(repository):
    async with real_server(repository, worker_threads=2) as running:
        requests = [strings(count, str(index)) for index, count in enumerate([STRINGS, 1, STRINGS, 2, 3, STRINGS])]
        stream = stub_of(running).ModelStreamInfer(iter(requests))
        answers = [answer.infer_response async for answer in stream]
        assert [answer.id for answer in answers] == [request.id for request in requests]
        assert [answer.raw_output_contents for answer in answers] == [
            request.raw_input_contents for request in requests
        ]


@pytest.mark.parametrize("in_stream", [False, True])
@on_loop
async def test_what_a_worker_finds_wrong_is_answered_as_anything_else(repository, in_stream):
    request = strings(STRINGS, "7")
    request.raw_input_contents[0] += b"\x01"
    words = f"[request id: 7] expected {STRINGS} string elements"
    async with real_server(repository) as running:
        stub = stub_of(running)
        if in_stream:
            answers = [answer async for answer in stub.ModelStreamInfer(iter([request, strings(1, "8")]))]
            assert answers[0].error_message.startswith(words)
            assert (answers[1].infer_response.id, answers[1].error_message) == ("8", "")
        else:
            with pytest.raises(grpc.aio.AioRpcError, match="expected 20000 string elements") as caught:
                await stub.ModelInfer(request)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        await running.told()
        await running.told()
        assert running.version("strings").statistics.snapshot().fail.count == 1


@pytest.mark.parametrize("in_stream", [False, True])
@on_loop
async def test_a_client_that_leaves_while_a_worker_is_at_its_request_leaves_nothing_behind(repository, in_stream):
    async with real_server(repository, worker_threads=1) as running:
        stub = stub_of(running)
        with busy_worker(running):
            call = stub.ModelStreamInfer(iter([strings(STRINGS)])) if in_stream else stub.ModelInfer(strings(STRINGS))
            reading = asyncio.ensure_future(call.read()) if in_stream else None
            await eventually(lambda: running.server.pool.waiting_count == 1)
            call.cancel()
            if reading is not None:
                await asyncio.wait([reading])
            await eventually(lambda: not running.server.inference.streams)
        await eventually(lambda: not running.server.permits.taken_count)
        assert (await stub.ModelInfer(strings(1))).raw_output_contents == [b"\x01\0\0\0a"]


@on_loop
async def test_classes_of_many_rows_are_a_workers(tmp_path):
    simulated(tmp_path, input_bytes=4000, input_shape=1000, datatype="FP32", max_batch_size=8)
    request = pb.ModelInferRequest(model_name="sim")
    request.inputs.add(name="input", datatype="FP32", shape=[8, 1000])
    request.raw_input_contents.append(np.tile(np.arange(1000, dtype=np.float32), 8).tobytes())
    request.outputs.add(name="output").parameters["classification"].int64_param = 1000
    async with real_server(tmp_path, worker_threads=1) as running:
        with busy_worker(running):
            waiting = asyncio.ensure_future(stub_of(running).ModelInfer(request))
            await eventually(lambda: running.server.pool.waiting_count == 1)
        output = (await waiting).outputs[0]
        assert (output.datatype, list(output.shape)) == ("BYTES", [8, 1000])
