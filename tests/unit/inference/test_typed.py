"""Typed contents become the raw bytes that their numbers are, and nothing that does not fit gets through."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from forebay.wire import inference_pb2 as pb
from forebay_server.engines.datatypes import DTYPE_BY_NAME
from forebay_server.engines.engine import TensorSpec
from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.open_inference import typed as typed_module
from forebay_server.service.frontend.open_inference.schema import TensorSchema
from forebay_server.service.frontend.open_inference.tensors import MAX_STRINGS
from forebay_server.service.frontend.open_inference.typed import CONTENTS_FIELD, typed_to_bytes

NUMBERS = [name for name in CONTENTS_FIELD if name != "BYTES"]


def tensor_of(datatype):
    return TensorSchema("x", 0, datatype, (-1,), TensorSpec("x", DTYPE_BY_NAME[datatype], (-1,)))


def contents_of(datatype, values):
    return pb.InferTensorContents(**{CONTENTS_FIELD[datatype]: values}).SerializeToString()


@given(st.sampled_from(NUMBERS), st.data())
def test_numbers_are_what_numpy_makes_of_them(datatype, data):
    values = data.draw(arrays.arrays(DTYPE_BY_NAME[datatype], st.integers(0, 40)))
    contents = contents_of(datatype, values.tolist())
    assert typed_to_bytes(tensor_of(datatype), contents, values.size, "m") == values.tobytes()


@pytest.mark.parametrize("datatype", ["UINT8", "INT32", "BOOL"])
def test_chunks_end_anywhere(monkeypatch, datatype):
    values = np.random.default_rng(0).integers(-300, 300, 1000).astype(DTYPE_BY_NAME[datatype])
    for chunk_bytes in range(10, 40):
        monkeypatch.setattr(typed_module, "_CHUNK_BYTES", chunk_bytes)
        contents = contents_of(datatype, values.tolist())
        assert typed_to_bytes(tensor_of(datatype), contents, 1000, "m") == values.tobytes()


@pytest.mark.parametrize(
    ("datatype", "value"),
    [("INT8", 128), ("INT8", -129), ("UINT8", 256), ("INT16", 2**15), ("INT16", -(2**31)), ("UINT16", 2**32 - 1)],
)
def test_a_number_that_does_not_fit_is_refused(datatype, value):
    with pytest.raises(InvalidRequestError, match=f"a value does not fit {datatype}"):
        typed_to_bytes(tensor_of(datatype), contents_of(datatype, [0, value]), 2, "m")


def test_unknown_fields_are_no_numbers():
    contents = contents_of("UINT8", [1, 2]) + b"\x98\x06\x07"
    assert typed_to_bytes(tensor_of("UINT8"), contents, 2, "m") == bytes([1, 2])


@pytest.mark.parametrize("datatype", ["UINT8", "BYTES"])
def test_another_number_of_elements_than_the_shape_has_is_refused(datatype):
    values = [b"a"] if datatype == "BYTES" else [1]
    with pytest.raises(InvalidRequestError, match="got 1"):
        typed_to_bytes(tensor_of(datatype), contents_of(datatype, values), 2, "m")


def test_more_strings_than_the_event_loop_can_take_are_refused():
    contents = contents_of("BYTES", [b""] * (MAX_STRINGS + 1))
    with pytest.raises(InvalidRequestError, match=f"at most {MAX_STRINGS} are taken"):
        typed_to_bytes(tensor_of("BYTES"), contents, MAX_STRINGS + 1, "m")


def test_no_number_becomes_an_object_of_python():
    elements = 4 << 20
    contents = contents_of("UINT8", bytes(elements))
    tracemalloc.start()
    try:
        typed_to_bytes(tensor_of("UINT8"), contents, elements, "m")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 7 * elements  # a list has 8 bytes for each
