"""Tensors of the Open Inference Protocol: the bytes of an input, and the bytes of an output. Pure.

Raw data are dense, row-major and little-endian. BYTES elements each have a four-byte length before them. No size that
a client sends is believed before it was compared with the bytes that are really there; sizes are whole numbers of
Python, so that nothing overflows.
"""

import math
import struct
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forebay.wire import inference_pb2 as pb
from service.errors import InvalidRequestError
from service.frontend.inference_face import TensorFace
from service.frontend.inference_wire import Bytes

LENGTH = struct.Struct("<I")
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


def typed_to_bytes(face: TensorFace, contents: pb.InferTensorContents, elements: int, model: str) -> bytes:
    """Return typed contents as raw bytes.

    Raises:
        InvalidRequestError: another field than that of the datatype is used, a number does not fit the datatype, or
            there are not as many elements as the shape has.
    """
    field = CONTENTS_FIELD.get(face.datatype)
    used = [descriptor.name for descriptor, _ in contents.ListFields()]
    if used and used != [field]:
        raise InvalidRequestError(
            f"unexpected explicit tensor data for input tensor '{face.name}' for model '{model}' of type "
            f"'{face.datatype}': {', '.join(used)}, but it takes {field or 'raw_input_contents'}"
        )
    if field is None:
        raise InvalidRequestError(f"unable to find data for input tensor '{face.name}' for model '{model}' in request.")
    values = getattr(contents, field)
    if face.datatype == "BYTES":
        return b"".join(LENGTH.pack(len(value)) + value for value in values)
    if len(values) != elements:
        raise InvalidRequestError(
            f"unexpected explicit tensor data for input tensor '{face.name}' for model '{model}', byte size mismatch: "
            f"expected {elements} elements, got {len(values)}"
        )
    try:
        return np.array(list(values), face.spec.dtype).tobytes()  # Python numbers: numpy checks their range
    except OverflowError:
        raise InvalidRequestError(
            f"unexpected explicit tensor data for input tensor '{face.name}' for model '{model}': a value does not fit "
            f"{face.datatype}"
        ) from None


def wrong_size(face: TensorFace, expected: int, got: int, model: str) -> InvalidRequestError:
    """Return the error of data that have another size than their shape says."""
    return InvalidRequestError(
        f"input byte size mismatch for input '{face.name}' for model '{model}'. Expected {expected}, got {got}"
    )


def split_strings(face: TensorFace, data: Bytes, elements: int, model: str) -> list[bytes]:
    """Return the elements of a BYTES tensor. Raises InvalidRequestError if there are not exactly `elements`."""
    view = memoryview(data)
    strings: list[bytes] = []
    start, end = 0, len(view)
    while start < end and len(strings) < elements:
        if end - start < LENGTH.size:
            raise InvalidRequestError(
                f"incomplete string length indicator for inference input '{face.name}' for model '{model}', expecting "
                f"{LENGTH.size} bytes but only {end - start} bytes available. Please make sure the string length "
                "indicator is in one of the 4 bytes"
            )
        (length,) = LENGTH.unpack_from(view, start)
        start += LENGTH.size
        if length > end - start:
            raise InvalidRequestError(
                f"incomplete string data for inference input '{face.name}' for model '{model}', expecting string of "
                f"length {length} but only {end - start} bytes available."
            )
        strings.append(bytes(view[start : start + length]))
        start += length
    if start < end or len(strings) != elements:
        count = f"more than {elements}" if start < end else str(len(strings))
        raise InvalidRequestError(
            f"expected {elements} string elements for inference input '{face.name}' for model '{model}', got {count}"
        )
    return strings


def strings_to_array(strings: list[bytes], shape: tuple[int, ...], face: TensorFace, model: str) -> NDArray[np.object_]:
    """Return BYTES as the array of `str` that engines take. Raises InvalidRequestError for what is not UTF-8."""
    array = np.empty(len(strings), object)
    try:
        array[:] = [string.decode() for string in strings]
    except UnicodeDecodeError:
        raise InvalidRequestError(
            f"input '{face.name}' for model '{model}': an element is not UTF-8, which is all that this backend takes"
        ) from None
    return array.reshape(shape)


def raw_view(array: NDArray[Any]) -> Bytes:
    """Return the raw bytes of an output; a view of the array where it lies dense already."""
    if array.dtype != np.dtype(object):
        return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return strings_to_bytes(value.encode() for value in array.reshape(-1).tolist())


def strings_to_bytes(strings: Iterable[bytes]) -> bytes:
    """Return BYTES elements with their lengths before them."""
    parts: list[bytes] = []
    for string in strings:
        parts += (LENGTH.pack(len(string)), string)
    return b"".join(parts)


def top_classes(row: NDArray[np.generic], count: int, labels: tuple[str, ...]) -> list[bytes]:
    """Return the `count` highest scores of a flat row as `score:index[:label]`, highest first."""
    order = np.argsort(-row.astype(np.float64), kind="stable")[:count]
    return [
        f"{float(row[i]):f}:{i}:{labels[i]}".encode() if i < len(labels) else f"{float(row[i]):f}:{i}".encode()
        for i in order
    ]


def elements_of(shape: tuple[int, ...]) -> int:
    """Return how many elements a shape has."""
    return math.prod(shape)
