"""Every datatype of the protocol, raw and typed, through a real model and back."""

import grpc
import numpy as np
import pytest
from onnx import TensorProto

from forebay.wire import inference_pb2 as pb
from forebay_server.engines.datatypes import DTYPE_BY_NAME
from forebay_server.service.frontend.open_inference.typed import CONTENTS_FIELD
from tests.support import models
from tests.support.inference import request_of, stub_of
from tests.support.loops import on_loop
from tests.support.real_server import real_server, simulated

INVALID = grpc.StatusCode.INVALID_ARGUMENT
BYTES = b"\1\0\0\0a\2\0\0\0bc"
ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
    "BF16": TensorProto.BFLOAT16,
}
VALUES = {
    "BOOL": [True, False],
    "INT8": [-128, 127],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "UINT8": [0, 255],
    "UINT16": [0, 2**16 - 1],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "FP32": [0.5, -2.0],
    "FP64": [0.1, -2.0],
    "BYTES": [b"a", b"bc"],
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """An identity model of every datatype, called as the datatype."""
    root = tmp_path_factory.mktemp("datatypes")
    for name, onnx_type in ONNX_TYPES.items():
        models.save(models.identity(("batch", 2), onnx_type), root / name / "1" / "model.onnx")
    return root


def raw_of(name):
    """Two elements, as raw bytes; of floating types some that are no plain numbers."""
    if name == "BYTES":
        return BYTES
    if name == "BOOL":
        return b"\1\0"
    return bytes(range(253, 253 - 2 * DTYPE_BY_NAME[name].itemsize, -1))


def test_every_datatype_of_the_protocol_has_a_model_here():
    assert set(ONNX_TYPES) == set(DTYPE_BY_NAME)
    assert set(VALUES) == set(CONTENTS_FIELD)


@on_loop
async def test_raw_contents_of_every_datatype_come_back_bit_by_bit(repository):
    async with real_server(repository) as running:
        stub = stub_of(running)
        for name in ONNX_TYPES:
            request = pb.ModelInferRequest(model_name=name, raw_input_contents=[raw_of(name)])
            request.inputs.add(name="x", datatype=name, shape=[1, 2])
            response = await stub.ModelInfer(request)
            (output,) = response.outputs
            assert (output.datatype, list(output.shape)) == (name, [1, 2])
            assert response.raw_output_contents[0] == raw_of(name), name
            metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name=name))
            assert metadata.inputs[0].datatype == name


@on_loop
async def test_typed_contents_of_every_datatype_that_has_some_are_taken(repository):
    async with real_server(repository) as running:
        stub = stub_of(running)
        for name, values in VALUES.items():
            request = pb.ModelInferRequest(model_name=name)
            tensor = request.inputs.add(name="x", datatype=name, shape=[1, 2])
            getattr(tensor.contents, CONTENTS_FIELD[name]).extend(values)
            (raw,) = (await stub.ModelInfer(request)).raw_output_contents
            if name == "BYTES":
                assert raw == BYTES
            else:
                assert np.frombuffer(raw, DTYPE_BY_NAME[name]).tolist() == values


@on_loop
async def test_typed_contents_of_the_other_two_are_refused(repository):
    async with real_server(repository) as running:
        stub = stub_of(running)
        for name in set(ONNX_TYPES) - set(VALUES):
            request = pb.ModelInferRequest(model_name=name)
            request.inputs.add(name="x", datatype=name, shape=[1, 2]).contents.fp32_contents.extend([1.0, 2.0])
            call = stub.ModelInfer(request)
            assert (await call.code(), "raw_input_contents" in await call.details()) == (INVALID, True)


@on_loop
async def test_classes_are_of_numbers_only(repository):
    async with real_server(repository) as running:
        stub = stub_of(running)
        for name in ONNX_TYPES:
            request = pb.ModelInferRequest(model_name=name, raw_input_contents=[raw_of(name)])
            request.inputs.add(name="x", datatype=name, shape=[1, 2])
            request.outputs.add(name="y").parameters["classification"].int64_param = 2
            call = stub.ModelInfer(request)
            expected = INVALID if name in ("BYTES", "BF16") else grpc.StatusCode.OK
            assert await call.code() is expected, (name, await call.details())
            if expected is INVALID:
                words = f"class result not available for output due to unsupported type '{name}'"
                assert words in await call.details()


@on_loop
async def test_classes_of_more_than_a_million_elements_are_refused(tmp_path):
    most = 1_000_000
    models.save(models.identity(("batch", "n")), tmp_path / "free" / "1" / "model.onnx")
    simulated(tmp_path, "fixed", input_bytes=most + 1, max_batch_size=1)
    async with real_server(tmp_path) as running:
        stub = stub_of(running)
        for name, elements, dtype in (("free", most, np.float32), ("free", most + 1, np.float32), ("fixed", 0, None)):
            fixed = name == "fixed"
            array = np.zeros((1, most + 1 if fixed else elements), np.uint8 if fixed else dtype)
            request = request_of(name, **{"input" if fixed else "x": array})
            request.outputs.add(name="output" if fixed else "y").parameters["classification"].int64_param = 2
            call = stub.ModelInfer(request)
            if elements == most:
                assert (await call).raw_output_contents[0] == b"".join(
                    (len(text).to_bytes(4, "little") + text) for text in (b"0.000000:0", b"0.000000:1")
                )
                continue
            assert await call.code() is INVALID
            assert "classification output tensor too large" in await call.details()
        assert running.version("fixed").statistics.snapshot().executions == 0


@on_loop
async def test_a_number_that_does_not_fit_is_refused(tmp_path):
    simulated(tmp_path, "small", input_shape=2, datatype="INT8")
    async with real_server(tmp_path) as running:
        request = pb.ModelInferRequest(model_name="small")
        tensor = request.inputs.add(name="input", datatype="INT8", shape=[1, 2])
        tensor.contents.int_contents.extend([1, 300])
        with pytest.raises(grpc.aio.AioRpcError, match="does not fit INT8") as caught:
            await stub_of(running).ModelInfer(request)
        assert caught.value.code() is INVALID
