"""Requests that are wrong in every way at once, against identity models: an answer that is right or one clear error.

HYPOTHESIS_PROFILE=nightly runs 20,000 examples.
"""

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.engine import EngineSpecs, TensorSpec
from forebay.wire import inference_pb2 as pb
from service.errors import ServiceError
from service.frontend.inference_codec import arrays_of, decode, parse
from service.frontend.inference_encode import encode
from service.frontend.inference_errors import InferenceError, status_of
from service.frontend.inference_face import ModelFace
from service.models.completion import complete
from service.models.description import ModelDescription
from service.request import Completion

NAMES = st.sampled_from(["x", "y", "", "z" * 300, "ä\n"])
DATATYPES = st.sampled_from(["FP32", "INT32", "BYTES", "BOOL", "FP16", "", "float", "X" * 99])
DIMS = st.one_of(
    st.integers(-2, 5), st.sampled_from([2**31, 2**32, 2**62, 2**63 - 1, -(2**63), -(2**31)]), st.just(1), st.just(4)
)
SHAPES = st.one_of(st.lists(DIMS, max_size=5), st.just([1, 4]), st.just([2, 4]), st.just([1, 3]))
RAW = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"", bytes(16), bytes(32), b"\1\0\0\0a" * 4, b"\xff\xff\xff\xff", b"\1\0\0\0\xff" * 4]),
)
PARAMETERS = st.one_of(
    st.builds(lambda v: pb.InferParameter(bool_param=v), st.booleans()),
    st.builds(lambda v: pb.InferParameter(int64_param=v), st.integers(-(2**63), 2**63 - 1)),
    st.builds(lambda v: pb.InferParameter(uint64_param=v), st.integers(0, 2**64 - 1)),
    st.builds(lambda v: pb.InferParameter(double_param=v), st.floats()),
    st.builds(lambda v: pb.InferParameter(string_param=v), st.sampled_from(["", "latest", "x" * 500, "r"])),
    st.just(pb.InferParameter()),
)
KEYS = st.sampled_from(
    [
        "priority",
        "timeout",
        "sequence_id",
        "sequence_start",
        "triton_x",
        "triton_enable_empty_final_response",
        "latency_budget_ms",
        "delivery",
        "stream",
        "shared_memory_region",
        "shared_memory_byte_size",
        "shared_memory_offset",
        "classification",
        "other",
    ]
)
PARAMETER_MAPS = st.dictionaries(KEYS, PARAMETERS, max_size=3)


@st.composite
def contents(draw):
    value = pb.InferTensorContents()
    for field, elements in draw(
        st.lists(
            st.one_of(
                st.tuples(st.just("fp32_contents"), st.lists(st.floats(width=32), max_size=9)),
                st.tuples(st.just("int_contents"), st.lists(st.integers(-(2**31), 2**31 - 1), max_size=9)),
                st.tuples(st.just("bytes_contents"), st.lists(st.binary(max_size=4), max_size=9)),
                st.tuples(st.just("bool_contents"), st.lists(st.booleans(), max_size=9)),
            ),
            max_size=2,
        )
    ):
        getattr(value, field).extend(elements)
    return value


@st.composite
def requests(draw):
    request = pb.ModelInferRequest(model_name="m", id=draw(st.sampled_from(["", "7", "i" * 100_000])))
    for _ in range(draw(st.integers(0, 3))):
        tensor = request.inputs.add(name=draw(NAMES), datatype=draw(DATATYPES), shape=draw(SHAPES))
        if draw(st.booleans()):
            tensor.contents.CopyFrom(draw(contents()))
        _set(tensor.parameters, draw(st.one_of(st.just({}), PARAMETER_MAPS)))
    request.raw_input_contents.extend(draw(st.lists(RAW, max_size=3)))
    for name in draw(st.lists(NAMES, max_size=2)):
        _set(request.outputs.add(name=name).parameters, draw(PARAMETER_MAPS))
    _set(request.parameters, draw(st.one_of(st.just({}), PARAMETER_MAPS)))
    return request


def _set(target, values):
    for key, value in values.items():
        target[key].CopyFrom(value)


class Version:
    """What a face needs of a model version."""

    def __init__(self, dtype, shape, *, has_batch=True):
        tensor = (TensorSpec("x", np.dtype(dtype), shape),)
        output = (TensorSpec("y", np.dtype(dtype), shape),)
        self.specs = EngineSpecs(tensor, output, max_batch_size=2 if has_batch else 1, has_batch_dimension=has_batch)
        self.name, self.version = "m", "1"
        self.description = complete(ModelDescription("m", "simulated", None), self.specs)


FACES = [
    ModelFace(Version(np.float32, (4,))),
    ModelFace(Version(np.int32, (-1,))),
    ModelFace(Version(object, (-1,))),
    ModelFace(Version(object, (-1, -1), has_batch=False)),
    ModelFace(Version(np.float16, (2, 2), has_batch=False)),
]


def no_region(place, *_):
    raise InferenceError(grpc.StatusCode.NOT_FOUND, f"Unable to find shared memory region: '{place.region}'")


def answer(request, face):
    """The identity model's response to a request."""
    call = decode(request, face, no_region)
    arrays = tuple(arrays_of(call))
    assert all(array.shape[:1] == (call.rows,) for array in arrays if face.has_batch)
    outputs = arrays if face.has_batch else tuple(array[np.newaxis] for array in arrays)
    if any(wanted.region for wanted in call.wanted):
        raise InferenceError(grpc.StatusCode.NOT_FOUND, "no region")
    return encode(call, Completion(None, outputs=outputs), no_region)


@given(requests(), st.sampled_from(FACES))
def test_a_request_is_answered_or_refused_with_one_clear_status(request, face):
    try:
        response = answer(parse(request.SerializeToString()), face)
    except (ServiceError, InferenceError) as error:
        status = status_of(error, request.id)
        assert status.code not in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.OK)
        assert 0 < len(status.message) < 1000
        assert "Traceback" not in status.message
        assert "/work" not in status.message
        return
    assert response.id == request.id
    assert len(response.outputs) == len(response.raw_output_contents) == 1
    raw = request.raw_input_contents[0] if request.raw_input_contents else None
    if raw is not None and "classification" not in (request.outputs[0].parameters if request.outputs else {}):
        assert response.raw_output_contents[0] == raw
        assert list(response.outputs[0].shape) == list(request.inputs[0].shape)


@given(st.binary(max_size=200))
def test_bytes_are_a_request_or_refused(data):
    try:
        answer(parse(data), FACES[0])
    except (ServiceError, InferenceError) as error:
        assert status_of(error).code is grpc.StatusCode.INVALID_ARGUMENT  # noqa: PT017 - most of them raise


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_typed_contents_are_refused_for_types_that_have_none(datatype):
    request = pb.ModelInferRequest(model_name="m")
    tensor = request.inputs.add(name="x", datatype=datatype, shape=[2, 2])
    tensor.contents.fp32_contents.extend([1] * 4)
    with pytest.raises(ServiceError):
        answer(request, FACES[4])
