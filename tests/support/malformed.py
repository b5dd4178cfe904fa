"""Requests that are valid except for a few changes, for hypothesis; and the conditions on every answer to them.

Each case is a request that one of the models below would answer, and up to three changes to it, so that most are wrong
in one place only and pass the checks before it.
"""

import asyncio
import uuid
from dataclasses import dataclass
from pathlib import Path

import grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from forebay.wire import inference_pb2 as pb
from tests.support import models
from tests.support.guard import HANG_GUARD_S
from tests.support.inference import stub_of
from tests.support.real_server import LEAK, real_server, simulated

TIMES = frozenset(("timeout", "latency_budget_ms"))
ALLOWED = frozenset(
    (
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.UNAVAILABLE,  # timeout
        grpc.StatusCode.DEADLINE_EXCEEDED,  # latency_budget_ms
    )
)
"""Never UNKNOWN, and INTERNAL only as Triton words an output that does not fit: nothing here is our fault."""
REGION, REGION_BYTES = "r", 64


@dataclass(frozen=True)
class Kit:
    """A model that gives its inputs back, and a shape of one row that it takes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    row: bytes
    has_batch: bool = True
    inputs: tuple[str, ...] = ("x",)
    is_identity: bool = True


KITS = (
    Kit("fixed", "FP32", (4,), bytes(range(16))),
    Kit("varying", "FP32", (3,), bytes(range(12))),
    Kit("strings", "BYTES", (2,), b"\1\0\0\0a\2\0\0\0bc"),
    Kit("unbatched", "INT64", (2, 2), bytes(32), has_batch=False),
    Kit("add_sub", "INT32", (16,), bytes(64), inputs=("INPUT0", "INPUT1"), is_identity=False),
    Kit("brain", "BF16", (4,), bytes(8)),
    Kit("half", "FP16", (8,), bytes(16), inputs=("input",)),
)


def make_repository(root):
    """Write the models of the kits."""
    models.save(models.identity(("batch", 4)), root / "fixed" / "1" / "model.onnx")
    models.save(models.identity(("batch", "n")), root / "varying" / "1" / "model.onnx")
    models.save(models.identity(("batch", "n"), TensorProto.STRING), root / "strings" / "1" / "model.onnx")
    models.save(models.identity((2, "n"), TensorProto.INT64), root / "unbatched" / "1" / "model.onnx")
    models.save(models.identity(("batch", 4), TensorProto.BFLOAT16), root / "brain" / "1" / "model.onnx")
    models.save(models.add_sub(), root / "add_sub" / "1" / "model.onnx")
    simulated(root, "half", input_bytes=16, input_shape=8, datatype="FP16")
    return root


NAMES = st.sampled_from(["x", "y", "INPUT0", "INPUT1", "input", "output", "", "z" * 300, "ä\n", "%s{}"])
DATATYPES = st.sampled_from(["FP32", "INT32", "INT64", "BYTES", "BOOL", "FP16", "BF16", "UINT8", "", "float", "X" * 99])
DIMS = st.one_of(
    st.integers(-2, 5), st.sampled_from([2**31, 2**32, 2**62, 2**63 - 1, -(2**63), -(2**31), 4096, 100_000])
)
SHAPES = st.lists(DIMS, max_size=5)
LENGTHS = st.sampled_from([0, 1, 2, 3, 255, 2**31 - 1, 2**31, 2**32 - 1])
SIZES = st.sampled_from([0, 8, 12, 16, 24, 32, 48, 64, 65, -1, 2**63 - 1, -(2**63)])
RAW = st.one_of(
    st.binary(max_size=40),
    st.lists(LENGTHS, max_size=3).map(lambda lengths: b"".join(n.to_bytes(4, "little") + b"a" for n in lengths)),
    st.sampled_from([b"", bytes(15), bytes(17), b"\1\0\0\0\xff" * 2, b"\0" * 8, bytes(70_000)]),
)
PARAMETERS = st.one_of(
    st.builds(lambda v: pb.InferParameter(bool_param=v), st.booleans()),
    st.builds(lambda v: pb.InferParameter(int64_param=v), st.sampled_from([0, 1, 3, 64, -1, -(2**63), 2**63 - 1])),
    st.builds(lambda v: pb.InferParameter(uint64_param=v), st.sampled_from([0, 1, 2**64 - 1])),
    st.builds(lambda v: pb.InferParameter(double_param=v), st.floats()),
    st.builds(lambda v: pb.InferParameter(string_param=v), st.sampled_from(["", "latest", "every", "x" * 500, "r"])),
    st.just(pb.InferParameter()),
)
REQUEST_KEYS = st.sampled_from(
    [
        "priority",
        "timeout",
        "sequence_id",
        "sequence_start",
        "sequence_end",
        "triton_x",
        "triton_enable_empty_final_response",
        "latency_budget_ms",
        "delivery",
        "stream",
        "other",
        "",
    ]
)
TENSOR_KEYS = st.sampled_from(
    ["shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "classification", "other"]
)
CONTENTS = st.one_of(
    st.builds(lambda v: pb.InferTensorContents(fp32_contents=v), st.lists(st.floats(width=32), max_size=9)),
    st.builds(lambda v: pb.InferTensorContents(int_contents=v), st.lists(st.integers(-(2**31), 2**31 - 1), max_size=9)),
    st.builds(lambda v: pb.InferTensorContents(int64_contents=v), st.lists(st.just(2**62), min_size=4, max_size=4)),
    st.builds(lambda v: pb.InferTensorContents(bytes_contents=v), st.lists(st.binary(max_size=4), max_size=4)),
    st.builds(lambda v: pb.InferTensorContents(bool_contents=v, fp64_contents=[0.5]), st.lists(st.booleans())),
    st.just(pb.InferTensorContents()),
)


def _change_shape(draw, request):
    _some_input(draw, request).shape[:] = draw(SHAPES)


def _change_one_dim(draw, request):
    shape = _some_input(draw, request).shape
    if shape:
        shape[draw(st.integers(0, len(shape) - 1))] = draw(DIMS)


def _change_datatype(draw, request):
    _some_input(draw, request).datatype = draw(DATATYPES)


def _change_name(draw, request):
    _some_input(draw, request).name = draw(NAMES)


def _repeat_input(draw, request):
    request.inputs.add().CopyFrom(_some_input(draw, request))
    if draw(st.booleans()):
        request.raw_input_contents.append(draw(RAW))


def _remove_input(draw, request):
    if request.inputs:
        del request.inputs[draw(st.integers(0, len(request.inputs) - 1))]


def _change_data(draw, request):
    if request.raw_input_contents:
        request.raw_input_contents[draw(st.integers(0, len(request.raw_input_contents) - 1))] = draw(RAW)


def _cut_data(draw, request):
    if request.raw_input_contents:
        data = request.raw_input_contents[-1]
        request.raw_input_contents[-1] = data[: draw(st.integers(0, len(data)))]


def _more_data(draw, request):
    request.raw_input_contents.append(draw(RAW))


def _less_data(draw, request):
    if request.raw_input_contents:
        del request.raw_input_contents[draw(st.integers(0, len(request.raw_input_contents) - 1))]


def _typed(draw, request):
    if draw(st.booleans()):
        del request.raw_input_contents[:]
    _some_input(draw, request).contents.CopyFrom(draw(CONTENTS))


def _parameter(draw, request):
    request.parameters[draw(REQUEST_KEYS)].CopyFrom(draw(PARAMETERS))


def _input_parameters(draw, request):
    _set(draw, _some_input(draw, request).parameters)


def _in_region(draw, request):
    """An input, or an output, in the existing region, or almost."""
    if draw(st.booleans()) and request.inputs:
        tensor = request.inputs[0]
        del request.raw_input_contents[:1]
    else:
        tensor = request.outputs.add(name=draw(st.sampled_from(["y", "OUTPUT0", "output"])))
    tensor.parameters["shared_memory_region"].string_param = REGION
    tensor.parameters["shared_memory_byte_size"].int64_param = draw(SIZES)
    if draw(st.booleans()):
        tensor.parameters["shared_memory_offset"].int64_param = draw(SIZES)


def _output(draw, request):
    _set(draw, request.outputs.add(name=draw(NAMES)).parameters)


def _classes(draw, request):
    for name in draw(st.sampled_from([("y",), ("OUTPUT0", "OUTPUT1"), ("output",)])):
        request.outputs.add(name=name).parameters["classification"].int64_param = draw(st.integers(1, 100))


def _output_twice(draw, request):
    name = draw(NAMES)
    request.outputs.add(name=name)
    request.outputs.add(name=name)


def _model(draw, request):
    request.model_name = draw(st.sampled_from([*(kit.name for kit in KITS), "nobody", "", "../fixed", "n" * 5000]))


def _version(draw, request):
    request.model_version = draw(st.sampled_from(["1", "2", "0", "-1", "x", "9" * 40, "٣", "1 "]))


def _some_input(draw, request):
    if not request.inputs:
        return request.inputs.add()
    return request.inputs[draw(st.integers(0, len(request.inputs) - 1))]


def _set(draw, parameters):
    for key, value in draw(st.dictionaries(TENSOR_KEYS, PARAMETERS, max_size=3)).items():
        parameters[key].CopyFrom(value)


CHANGES = (
    _change_shape,
    _change_one_dim,
    _change_datatype,
    _change_name,
    _repeat_input,
    _remove_input,
    _change_data,
    _cut_data,
    _more_data,
    _less_data,
    _typed,
    _parameter,
    _input_parameters,
    _in_region,
    _output,
    _classes,
    _output_twice,
    _model,
    _version,
)


@st.composite
def requests(draw):
    """A request, and the kit it was made for."""
    kit = draw(st.sampled_from(KITS))
    rows = draw(st.integers(1, 3)) if kit.has_batch else 1
    request = pb.ModelInferRequest(model_name=kit.name, id=draw(st.sampled_from(["", "7", "ä", "i" * 10_000])))
    for name in kit.inputs:
        request.inputs.add(name=name, datatype=kit.datatype, shape=(rows, *kit.shape) if kit.has_batch else kit.shape)
        request.raw_input_contents.append(kit.row * rows)
    for change in draw(st.lists(st.sampled_from(CHANGES), max_size=3)):
        change(draw, request)
    return request, kit


def check_answer(request, kit, code, message, response):
    """Check one answer; `response` is None unless the code is OK."""
    is_too_small = code is grpc.StatusCode.INTERNAL and "bytes to hold the results" in message
    assert code in ALLOWED or is_too_small, (code, message)
    if code is not grpc.StatusCode.OK:
        assert 0 < len(message) < 4000
        # A client may read its own words again, here "../fixed".
        assert not LEAK.search(message.replace(request.model_name[:128] or "\0", "")), message
        return
    assert response.id == request.id
    assert len(response.outputs) == len(response.raw_output_contents) >= 1
    is_as_sent = request.raw_input_contents and not any(t.parameters for t in (*request.inputs, *request.outputs))
    if is_as_sent and kit.is_identity and request.model_name == kit.name:
        assert response.raw_output_contents[0] == request.raw_input_contents[0]
        assert list(response.outputs[0].shape) == list(request.inputs[0].shape)


def run_malformed(repository, examples=None):
    """Send requests to a real server, each alone and within one long stream; `examples` is how many if not as usual."""
    key = Path("/dev/shm") / f"forebay-malformed-{uuid.uuid4().hex}"  # noqa: S108 - the folder of shm_open
    key.write_bytes(bytes(REGION_BYTES))
    with asyncio.Runner() as runner:
        serving = real_server(repository, allow_client_shm=True)
        running = runner.run(serving.__aenter__())
        try:
            stub = stub_of(running)
            stream = stub.ModelStreamInfer()
            runner.run(register(stub, key))

            async def ask(request):
                call = stub.ModelInfer(request)
                async with asyncio.timeout(HANG_GUARD_S):
                    code, message = await call.code(), await call.details()
                    response = await call if code is grpc.StatusCode.OK else None
                    await stream.write(request)
                    streamed = await stream.read()
                return code, message, response, streamed

            @settings(
                suppress_health_check=list(HealthCheck), **({} if examples is None else {"max_examples": examples})
            )
            @given(requests())
            def one(case):
                request, kit = case
                code, message, response, streamed = runner.run(ask(request))
                check_answer(request, kit, code, message, response)
                assert streamed.infer_response.id == request.id
                if TIMES & set(request.parameters):
                    return  # twice the same request, and each may be in time or not
                assert bool(streamed.error_message) is (code is not grpc.StatusCode.OK), (message, streamed)
                if response is not None:
                    assert streamed.infer_response.raw_output_contents == response.raw_output_contents

            one()

            async def end():
                await stream.done_writing()
                assert await stream.read() is grpc.aio.EOF
                assert await stream.code() is grpc.StatusCode.OK

            runner.run(end())
        finally:
            runner.run(serving.__aexit__(None, None, None))
            key.unlink()


async def register(stub, key):
    """Let both kinds of requests, which come on one connection, use a region."""
    await stub.SystemSharedMemoryRegister(
        pb.SystemSharedMemoryRegisterRequest(name=REGION, key=key.name, byte_size=REGION_BYTES)
    )
