"""Tensors of the Open Inference Protocol: the raw bytes of an input, and the bytes of an output. Pure.

Raw data are dense, row-major and little-endian. BYTES elements each have a four-byte length before them. A client's
size is used only after it was compared with the received bytes; sizes are Python integers, so they never overflow.
"""

import math
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.messages import Bytes
from forebay_server.service.frontend.open_inference.schema import TensorSchema

LENGTH = struct.Struct("<I")
MAX_STRINGS = 1 << 17
"""Elements of a BYTES input: each costs 0.6 µs on the event loop."""


MAX_CLASS_ELEMENTS = 1_000_000
"""Elements in a row of an output whose classes are requested: Triton's limit."""


def wrong_size(tensor: TensorSchema, expected: int, got: int, model: str) -> InvalidRequestError:
    """Return the error for data of another size than their shape requires."""
    return InvalidRequestError(
        f"input byte size mismatch for input '{tensor.name}' for model '{model}'. Expected {expected}, got {got}"
    )


def split_strings(tensor: TensorSchema, data: Bytes, elements: int, model: str) -> list[bytes]:
    """Return the elements of a BYTES tensor. Raises InvalidRequestError if there are not exactly `elements`."""
    check_count(tensor, elements, model)
    view = memoryview(data)
    strings: list[bytes] = []
    start, end = 0, len(view)
    while start < end and len(strings) < elements:
        if end - start < LENGTH.size:
            raise InvalidRequestError(
                f"incomplete string length indicator for inference input '{tensor.name}' for model '{model}', "
                f"expecting {LENGTH.size} bytes but only {end - start} bytes available. Please make sure the string "
                "length indicator is in one of the 4 bytes"
            )
        (length,) = LENGTH.unpack_from(view, start)
        start += LENGTH.size
        if length > end - start:
            raise InvalidRequestError(
                f"incomplete string data for inference input '{tensor.name}' for model '{model}', expecting string of "
                f"length {length} but only {end - start} bytes available."
            )
        strings.append(bytes(view[start : start + length]))
        start += length
    if start < end or len(strings) != elements:
        count = f"more than {elements}" if start < end else str(len(strings))
        raise InvalidRequestError(
            f"expected {elements} string elements for inference input '{tensor.name}' for model '{model}', got {count}"
        )
    return strings


def check_count(tensor: TensorSchema, elements: int, model: str) -> None:
    """Raise InvalidRequestError if a BYTES tensor has more elements than the limit."""
    if elements > MAX_STRINGS:
        raise InvalidRequestError(
            f"inference input '{tensor.name}' for model '{model}' has {elements} string elements; at most "
            f"{MAX_STRINGS} are taken: send several requests"
        )


def strings_to_array(
    strings: list[bytes], shape: tuple[int, ...], tensor: TensorSchema, model: str
) -> NDArray[np.object_]:
    """Return BYTES as the array of `str` that engines take. Raises InvalidRequestError for invalid UTF-8."""
    array = np.empty(len(strings), object)
    try:
        array[:] = [string.decode() for string in strings]
    except UnicodeDecodeError:
        raise InvalidRequestError(
            f"input '{tensor.name}' for model '{model}': an element is not UTF-8, which is all that this backend takes"
        ) from None
    return array.reshape(shape)


def raw_view(array: NDArray[Any]) -> Bytes:
    """Return the raw bytes of an output; a view of the array if it is dense already."""
    if array.dtype != np.dtype(object):
        return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return strings_to_bytes(value.encode() for value in array.reshape(-1).tolist())


def strings_to_bytes(strings: Iterable[Bytes]) -> bytes:
    """Return BYTES elements with their lengths before them."""
    parts: list[Bytes] = []
    for string in strings:
        parts += (LENGTH.pack(len(string)), string)
    return b"".join(parts)


def check_classes(output: str, elements: int) -> None:
    """Raise InvalidRequestError if a row of an output has more elements than can be sorted."""
    if elements > MAX_CLASS_ELEMENTS:
        raise InvalidRequestError(
            f"classification output tensor too large: output '{output}' has {elements} elements in a row, at most "
            f"{MAX_CLASS_ELEMENTS} are put in order"
        )


def top_classes(row: NDArray[np.generic], count: int, labels: tuple[str, ...]) -> list[bytes]:
    """Return the `count` highest scores of a flat row as `score:index[:label]`, highest first, the first of equals.

    Whole numbers are written without a point, others with six digits behind it, as C++ does.
    """
    if row.dtype.kind in "iu":  # as float64, 64-bit numbers could not be distinguished
        order = row.size - 1 - np.argsort(row[::-1], kind="stable")[::-1][:count]
        scores = [str(int(score)) for score in row[order]]
    else:
        order = np.argsort(-row.astype(np.float64), kind="stable")[:count]
        scores = [f"{float(score):f}" for score in row[order]]
    return [
        f"{score}:{i}:{labels[i]}".encode() if i < len(labels) else f"{score}:{i}".encode()
        for score, i in zip(scores, order.tolist(), strict=True)
    ]


def elements_of(shape: tuple[int, ...]) -> int:
    """Return the number of elements of a shape."""
    return math.prod(shape)
