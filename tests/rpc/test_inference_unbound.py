"""Models with variable inner shapes, BYTES and outputs whose size depends on the data."""

import asyncio

import grpc
import numpy as np
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from forebay.wire import inference_pb2 as pb
from forebay_server.service.models.config_text import ConfigError
from tests.support import models
from tests.support.inference import array_of, request_of, stub_of
from tests.support.loops import on_loop
from tests.support.real_server import eventually, open_message, real_server

LONG = 2_000
"""Elements of an input that keeps `slow_identity` busy for seconds."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("unbound")
    models.save(models.identity(("batch", "n")), root / "varying" / "1" / "model.onnx")
    models.save(models.identity(("batch", "n"), TensorProto.STRING), root / "strings" / "1" / "model.onnx")
    nodes = [helper.make_node("NonZero", ["x"], ["y"])]
    outputs = [models.tensor("y", (1, "found"), TensorProto.INT64)]
    models.save(models.build(nodes, [models.tensor("x", ("n",))], outputs), root / "nonzero" / "1" / "model.onnx")
    return root


def strings_request(values, shape, raw=None):
    request = pb.ModelInferRequest(model_name="strings", id="s")
    request.inputs.add(name="x", datatype="BYTES", shape=shape)
    packed = b"".join(len(value).to_bytes(4, "little") + value for value in values)
    request.raw_input_contents.append(packed if raw is None else raw)
    return request


async def error_of(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return caught.value.details()


@on_loop
async def test_requests_of_different_shapes_are_answered_each_in_its_own(repository):
    async with real_server(repository) as running:
        stub = stub_of(running)
        arrays = [np.random.default_rng(n).normal(size=(1 + n % 3, n)).astype(np.float32) for n in range(12)]
        responses = await asyncio.gather(*(stub.ModelInfer(request_of("varying", x=array)) for array in arrays))
        for array, response in zip(arrays, responses, strict=True):
            np.testing.assert_array_equal(array_of(response, "y"), array)


@on_loop
async def test_bytes_come_back_as_they_were_sent(repository):
    async with real_server(repository) as running:
        request = strings_request(["é".encode(), b"a\0b", b"", b"x" * 1000], (2, 2))
        response = await stub_of(running).ModelInfer(request)
        assert response.raw_output_contents[0] == request.raw_input_contents[0]
        typed = pb.ModelInferRequest(model_name="strings")
        typed.inputs.add(name="x", datatype="BYTES", shape=(1, 2)).contents.bytes_contents.extend([b"a", b"bc"])
        response = await stub_of(running).ModelInfer(typed)
        assert response.raw_output_contents[0] == b"\1\0\0\0a\2\0\0\0bc"


@on_loop
async def test_wrong_bytes_are_refused_with_the_words_of_the_table(repository):
    async with real_server(repository) as running:
        infer = stub_of(running).ModelInfer
        assert "expected 2 string elements for inference input 'x' for model 'strings', got 1" in await error_of(
            infer(strings_request([b"a"], (1, 2)))
        )
        assert "expected 1 string elements for inference input 'x'" in await error_of(
            infer(strings_request([b"a", b"b"], (1, 1)))
        )
        assert "incomplete string length indicator" in await error_of(infer(strings_request([], (1, 1), b"\1\0")))
        assert "incomplete string data" in await error_of(infer(strings_request([], (1, 1), b"\xff\xff\xff\xffa")))
        assert "not UTF-8" in await error_of(infer(strings_request([b"\xff"], (1, 1))))
        assert "string elements" in await error_of(infer(strings_request([], (1, 2**62), b"\1\0\0\0a")))


@on_loop
async def test_an_output_may_be_as_large_as_the_data_say(repository):
    async with real_server(repository) as running:
        for values in ([1, 0, 3], [0, 0], [5] * 100):
            array = np.array(values, np.float32)
            response = await stub_of(running).ModelInfer(request_of("nonzero", x=array))
            np.testing.assert_array_equal(
                np.frombuffer(response.raw_output_contents[0], np.int64), np.nonzero(array)[0]
            )
            assert list(response.outputs[0].shape) == [1, np.count_nonzero(array)]


@on_loop
async def test_what_unbound_requests_hold_together_is_bounded(repository):
    async with real_server(repository) as running:
        version = running.served("varying")
        version.unbound.limit_bytes = 100
        infer = stub_of(running).ModelInfer
        with pytest.raises(grpc.aio.AioRpcError, match="may hold 100 bytes together: send fewer") as never:
            await infer(request_of("varying", x=np.zeros((1, 26), np.float32)))
        assert never.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        held = version.unbound.lease((np.zeros(1, np.float32),))
        with pytest.raises(grpc.aio.AioRpcError, match="may hold 100 bytes together; send fewer") as later:
            await infer(request_of("varying", x=np.zeros((1, 25), np.float32)))
        assert later.value.code() == grpc.StatusCode.UNAVAILABLE
        held.release()
        await infer(request_of("varying", x=np.zeros((1, 25), np.float32)))
        await infer(request_of("varying", x=np.zeros((1, 25), np.float32)))


@on_loop
async def test_requests_in_flight_take_no_file_descriptors(tmp_path):
    models.save(slow_identity(), tmp_path / "slow" / "1" / "model.onnx")
    async with real_server(tmp_path) as running:
        stub = stub_of(running)
        calls = [stub.ModelInfer(request_of("slow", x=np.ones((1, LONG), np.float32)))]
        await eventually(lambda: running.version("slow").former.statistics().in_flight == 1)
        before = psutil.Process().num_fds()
        calls += [stub.ModelInfer(request_of("slow", x=np.ones((1, 1 + n), np.float32))) for n in range(20)]
        await eventually(lambda: running.server.permits.taken_count == 21)
        assert psutil.Process().num_fds() <= before  # fewer: what an earlier test had open has closed meanwhile
        for call in calls:
            call.cancel()


@on_loop
async def test_frame_streams_are_told_to_use_the_other_protocol(repository):
    async with real_server(repository) as running:
        stream = running.stream()
        await stream.send_bytes(pb_open("varying"))
        code, message = await stream.status()
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert "Open Inference Protocol" in message


def pb_open(model):
    from forebay.wire import frames_pb2

    return frames_pb2.ClientMessage(open=open_message(model=model)).SerializeToString()


def folded(root, dims):
    """x (n) -> y (2, n / 2), which fails for an odd n; warmed up with `dims`."""
    shape = numpy_helper.from_array(np.array([2, -1], np.int64), "shape")
    outputs = [models.tensor("y", (2, "half"))]
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    models.save(
        models.build(nodes, [models.tensor("x", ("n",))], outputs, [shape]), root / "folded" / "1" / "model.onnx"
    )
    value = f"data_type: TYPE_FP32 dims: {dims} random_data: true"
    (root / "folded" / "config.pbtxt").write_text(
        f'model_warmup {{ name: "w" batch_size: 1 inputs {{ key: "x" value {{ {value} }} }} }}'
    )


@on_loop
async def test_warm_up_runs_the_shapes_that_the_configuration_says(tmp_path):
    folded(tmp_path, 3)
    with pytest.raises(ConfigError, match="model_warmup 'w': the model fails on it"):
        async with real_server(tmp_path):
            pass
    folded(tmp_path, 4)
    async with real_server(tmp_path) as running:
        response = await stub_of(running).ModelInfer(request_of("folded", x=np.arange(6, dtype=np.float32)))
        assert array_of(response, "y").tolist() == [[0, 1, 2], [3, 4, 5]]


def slow_identity():
    """Gives its input back, after a loop that has a matrix multiplication for each element."""
    side = 256
    body = helper.make_graph(
        [helper.make_node("MatMul", ["state", "state"], ["next"]), helper.make_node("Identity", ["go"], ["goes"])],
        "body",
        [
            models.tensor("i", (), TensorProto.INT64),
            models.tensor("go", (), TensorProto.BOOL),
            models.tensor("state", (side, side)),
        ],
        [models.tensor("goes", (), TensorProto.BOOL), models.tensor("next", (side, side))],
    )
    constants = [
        numpy_helper.from_array(np.zeros((side, side), np.float32), "zeros"),
        numpy_helper.from_array(np.array(True), "true"),
    ]
    nodes = [
        helper.make_node("Size", ["x"], ["count"]),
        helper.make_node("Loop", ["count", "true", "zeros"], ["end"], body=body),
        helper.make_node("ReduceSum", ["end"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    return models.build(nodes, [models.tensor("x", ("batch", "n"))], [models.tensor("y", ("batch", "n"))], constants)


@on_loop
async def test_a_timeout_reaches_what_waits_behind_a_batch_that_takes_longer_than_predicted(tmp_path):
    models.save(slow_identity(), tmp_path / "slow" / "1" / "model.onnx")
    async with real_server(tmp_path) as running:
        stub = stub_of(running)
        long = stub.ModelInfer(request_of("slow", x=np.ones((1, LONG), np.float32)))
        await eventually(lambda: running.version("slow").former.statistics().in_flight == 1)
        short = request_of("slow", x=np.ones((1, 1), np.float32), request_id="short", parameters={"timeout": 200_000})
        waiting = [stub.ModelInfer(short) for _ in range(4)]
        for call in waiting:
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
            assert (await call.details()).endswith("Request timeout expired")
        assert not long.done()
        await running.told()
        assert running.version("slow").statistics.snapshot().failures["REJECTED"] == 4
        np.testing.assert_array_equal(array_of(await long, "y"), np.ones((1, LONG), np.float32))
