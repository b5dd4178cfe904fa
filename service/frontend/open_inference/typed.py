"""Typed contents of an input (InferTensorContents) as raw bytes. Pure.

A message of 16 MiB may hold 16 million elements of one byte. As Python numbers they would take a second; so the numbers
are taken from the message's bytes, where they are packed: floats directly, all others as varints, which numpy takes
apart. A million numbers: floats no time, below 128 2 ms, other bytes 20 ms, where Python takes 55 to 90 ms.

Contents of more than `SHORT_BYTES` are for a worker (`LongContents`), and protobuf does not see them. Thread: any.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forebay.wire import inference_pb2 as pb
from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.messages import LENGTH_DELIMITED, MAX_FIELDS, Bytes, next_field
from forebay_server.service.frontend.open_inference.schema import TensorSchema
from forebay_server.service.frontend.open_inference.tensors import MAX_STRINGS, check_count, strings_to_bytes

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

SHORT_BYTES = 4096  # of contents that are read on the event loop: 1 ms for 2,048 empty strings, the most that fit
# bounds the allocation beside the result, and the time for which numpy holds the interpreter's lock
_CHUNK_BYTES = 1 << 18
_LAST_OF_VARINT = 0x80  # a byte below it
_DIGIT = 0x7F
_MAX_VARINT_BYTES = 10
_NAMES = {field.number: field.name for field in pb.InferTensorContents.DESCRIPTOR.fields}
_STRINGS = "bytes_contents"


@dataclass(slots=True, eq=False)
class LongContents:
    """Typed contents that are not read yet; arguments of `typed_to_bytes`. Read once: the wire is released then."""

    tensor: TensorSchema
    wire: Bytes
    elements: int
    model: str

    def read(self) -> Bytes:
        """Return them as raw bytes. Raises InvalidRequestError."""
        wire, self.wire = self.wire, b""
        return typed_to_bytes(self.tensor, wire, self.elements, self.model)


def typed_to_bytes(tensor: TensorSchema, wire: Bytes, elements: int, model: str) -> Bytes:
    """Return typed contents as raw bytes, floats as a view of `wire`.

    Args:
        tensor: of the input.
        wire: an InferTensorContents, serialised, its numbers packed.
        elements: number of elements of the input's shape.
        model: its name, for errors.

    Raises:
        InvalidRequestError: a field of another datatype is used, a number does not fit the datatype, or the number of
            elements differs from the shape's.
    """
    field = CONTENTS_FIELD.get(tensor.datatype)
    try:
        found = _fields(wire, tensor, model)
    except IndexError:
        raise _broken(tensor, model) from None
    if found and list(found) != [field]:
        raise _unexpected(
            tensor,
            model,
            f" of type '{tensor.datatype}': {', '.join(found)}, but it takes {field or 'raw_input_contents'}",
        )
    if field is None:
        raise InvalidRequestError(
            f"unable to find data for input tensor '{tensor.name}' for model '{model}' in request."
        )
    parts = found.get(field, [])
    if tensor.datatype == "BYTES":
        if len(parts) == elements:
            check_count(tensor, elements, model)
            return strings_to_bytes(parts)
        raise InvalidRequestError(
            f"expected {elements} string elements for inference input '{tensor.name}' for model '{model}', "
            f"got {len(parts)}"
        )
    return _numbers(parts[0] if len(parts) == 1 else b"".join(parts), tensor, elements, model)


def _fields(wire: Bytes, tensor: TensorSchema, model: str) -> dict[str, list[Bytes]]:
    """Return the contents of every set field: packed numbers, or strings. Raises IndexError for invalid bytes.

    Strings are copied: that many views would make the garbage collector walk all objects, while no other thread runs.
    """
    view = memoryview(wire)
    found: dict[str, list[Bytes]] = {}
    position = fields = 0
    while position < len(view):
        tag, start, position = next_field(view, position)
        fields += 1
        name = _NAMES.get(tag >> 3)
        if name is not None and tag & 7 != LENGTH_DELIMITED:
            raise _unexpected(tensor, model, ": numbers one by one; send them packed, or as raw_input_contents")
        if name == _STRINGS:
            found.setdefault(name, []).append(view[start:position].tobytes())
        elif name is not None and position > start:
            found.setdefault(name, []).append(view[start:position])
        if fields > MAX_STRINGS + MAX_FIELDS:
            raise _unexpected(tensor, model, f": more than {MAX_STRINGS} elements one by one")
    if position > len(view):
        raise IndexError
    return found


def _numbers(packed: Bytes, tensor: TensorSchema, elements: int, model: str) -> Bytes:
    dtype: np.dtype[Any] = tensor.spec.dtype
    data = np.frombuffer(packed, np.uint8)
    if dtype.kind == "f":
        count, rest = divmod(data.size, dtype.itemsize)
    else:
        count = int(np.count_nonzero(data < _LAST_OF_VARINT))
        rest = int(data.size > 0 and data[-1] >= _LAST_OF_VARINT)
    if rest:
        raise _broken(tensor, model)
    if count != elements:
        raise _unexpected(tensor, model, f", byte size mismatch: expected {elements} elements, got {count}")
    if dtype.kind == "f":
        return packed
    try:
        return b"".join(_cast(numbers, tensor, model) for numbers in _varints(data))
    except IndexError:
        raise _broken(tensor, model) from None


def _broken(tensor: TensorSchema, model: str) -> InvalidRequestError:
    return _unexpected(tensor, model, ": its contents are no InferTensorContents")


def _unexpected(tensor: TensorSchema, model: str, what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"unexpected explicit tensor data for input tensor '{tensor.name}' for model '{model}'{what}"
    )


def _varints(data: NDArray[np.uint8]) -> Iterator[NDArray[Any]]:
    """Yield the numbers in packed varints, unsigned: negative ones are the two's complement in 64 bits.

    Raises IndexError for a number that is longer than any.
    """
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
        if nbytes > _MAX_VARINT_BYTES:
            raise IndexError
        numbers: NDArray[Any] = (chunk[starts] & _DIGIT).astype(np.uint16 if nbytes <= 2 else np.uint64)
        for place in range(1, nbytes):
            at = starts + place
            digits = np.where(at <= ends, chunk[np.minimum(at, ends)] & _DIGIT, 0)
            numbers |= digits.astype(numbers.dtype) << numbers.dtype.type(7 * place)
        yield numbers


def _cast(numbers: NDArray[Any], tensor: TensorSchema, model: str) -> bytes:
    """Return numbers as the datatype's. Raises InvalidRequestError if one does not fit."""
    dtype: np.dtype[Any] = tensor.spec.dtype
    wide = numbers.astype(np.uint64, copy=False).view(np.int64) if dtype.kind == "i" else numbers
    if dtype.kind in "iu" and dtype.itemsize < wide.itemsize:
        limits = np.iinfo(dtype)
        if wide.min() < limits.min or wide.max() > limits.max:
            raise _unexpected(tensor, model, f": a value does not fit {tensor.datatype}")
    return wide.astype(dtype).tobytes()
