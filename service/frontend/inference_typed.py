"""Typed contents of an input (InferTensorContents) as raw bytes. Pure.

A message of 16 MiB may hold 16 million elements of one byte. As Python numbers they would take a second of the event
loop; so the numbers are taken from the message's bytes, where they lie one after the other: floats as they are, all
others as varints, which numpy takes apart. A million numbers: floats 0.5 ms, below 128 2 ms, other bytes 20 ms, where
Python takes 55 to 90 ms.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forebay.wire import inference_pb2 as pb
from service.errors import InvalidRequestError
from service.frontend.inference_face import TensorFace
from service.frontend.inference_tensors import check_count, strings_to_bytes

CONTENTS_FIELD: Mapping[str, str] = MappingProxyType(
    {
        "BOOL": "bool_contents",
        "INT8": "int_contents",
        "INT16": "int_contents",
        "INT32": "int_contents",
        "INT64": "int64_contents",
        "UINT8": "uint_contents",
        "UINT16": "uint_contents",
        "UINT32": "uint_contents",
        "UINT64": "uint64_contents",
        "FP32": "fp32_contents",
        "FP64": "fp64_contents",
        "BYTES": "bytes_contents",
    }
)
"""Datatype -> the field of InferTensorContents that holds it. FP16 and BF16 have none."""

_CHUNK_BYTES = 1 << 20  # bounds what is allocated beside the result
_LAST_OF_VARINT = 0x80  # a byte below it
_DIGIT = 0x7F


def typed_to_bytes(face: TensorFace, contents: pb.InferTensorContents, elements: int, model: str) -> bytes:
    """Return typed contents as raw bytes.

    Raises:
        InvalidRequestError: another field than that of the datatype is used, a number does not fit the datatype, or
            there are not as many elements as the shape has.
    """
    field = CONTENTS_FIELD.get(face.datatype)
    used = [descriptor.name for descriptor, _ in contents.ListFields()]
    if used and used != [field]:
        raise _unexpected(
            face, model, f" of type '{face.datatype}': {', '.join(used)}, but it takes {field or 'raw_input_contents'}"
        )
    if field is None:
        raise InvalidRequestError(f"unable to find data for input tensor '{face.name}' for model '{model}' in request.")
    count = len(getattr(contents, field))
    if face.datatype == "BYTES":
        if count == elements:
            check_count(face, elements, model)
            return strings_to_bytes(contents.bytes_contents)
        raise InvalidRequestError(
            f"expected {elements} string elements for inference input '{face.name}' for model '{model}', got {count}"
        )
    if count != elements:
        raise _unexpected(face, model, f", byte size mismatch: expected {elements} elements, got {count}")
    data = _packed(contents)
    if face.spec.dtype.kind == "f":
        return data.tobytes()
    return b"".join(_cast(numbers, face, model) for numbers in _varints(data))


def _unexpected(face: TensorFace, model: str, what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"unexpected explicit tensor data for input tensor '{face.name}' for model '{model}'{what}"
    )


def _packed(contents: pb.InferTensorContents) -> NDArray[np.uint8]:
    """Return the bytes of the only field of a message: repeated numbers, which protobuf writes packed."""
    contents.DiscardUnknownFields()  # they would follow
    data = np.frombuffer(contents.SerializeToString(), np.uint8)
    if not data.size:
        return data
    start = 2  # after the tag and the first byte of the length
    while data[start - 1] >= _LAST_OF_VARINT:
        start += 1
    return data[start:]


def _varints(data: NDArray[np.uint8]) -> Iterator[NDArray[Any]]:
    """Yield the numbers in packed varints, unsigned: negative ones are the complement of two in 64 bits."""
    while data.size:
        chunk = data[:_CHUNK_BYTES]
        ends = np.flatnonzero(chunk < _LAST_OF_VARINT)
        data = data[ends[-1] + 1 :]
        if ends.size == chunk.size:
            yield chunk
            continue
        starts = np.empty_like(ends)
        starts[0], starts[1:] = 0, ends[:-1] + 1
        nbytes = int((ends - starts).max()) + 1
        numbers: NDArray[Any] = (chunk[starts] & _DIGIT).astype(np.uint16 if nbytes <= 2 else np.uint64)
        for place in range(1, nbytes):
            at = starts + place
            digits = np.where(at <= ends, chunk[np.minimum(at, ends)] & _DIGIT, 0)
            numbers |= digits.astype(numbers.dtype) << numbers.dtype.type(7 * place)
        yield numbers


def _cast(numbers: NDArray[Any], face: TensorFace, model: str) -> bytes:
    """Return numbers as the datatype's. Raises InvalidRequestError if one does not fit."""
    dtype: np.dtype[Any] = face.spec.dtype
    wide = numbers.astype(np.uint64, copy=False).view(np.int64) if dtype.kind == "i" else numbers
    if dtype.kind in "iu" and dtype.itemsize < wide.itemsize:
        limits = np.iinfo(dtype)
        if wide.min() < limits.min or wide.max() > limits.max:
            raise _unexpected(face, model, f": a value does not fit {face.datatype}")
    return wide.astype(dtype).tobytes()
