"""Encodes frames as messages: checks that a frame fits the stream's encoding and copies it exactly once.

The payload is the last field of Frame, and Frame is the last field of ClientMessage, so the message is a header of a
few bytes and the payload itself. Writing the header here costs one copy of the pixels; building protobuf objects would
cost three.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forebay.client.options import Encoding
from forebay.client.wrong_frame import (
    fault_of_array,
    fault_of_file,
    fault_of_shape,
    fault_of_type,
    fault_of_values,
)
from forebay.encodings import LAYOUTS, VALUES, Layout
from forebay.wire import frames_pb2 as wire

Raw = bytes | bytearray | memoryview
FrameData = NDArray[Any] | bytes | bytearray | memoryview | Sequence[NDArray[Any]]

_FRAME_TAG = bytes([wire.ClientMessage.FRAME_FIELD_NUMBER << 3 | 2])
_PAYLOAD_TAG = bytes([wire.Frame.PAYLOAD_FIELD_NUMBER << 3 | 2])


def frame_message(seq: int, capture_time_us: int, budget_ms: float | None, payloads: Sequence[Raw]) -> bytes:
    """Return an encoded ClientMessage with one Frame; the payload is the concatenation of the given buffers.

    Args:
        seq: at least 1.
        capture_time_us: on the client's clock.
        budget_ms: None leaves the stream's.
        payloads: C-contiguous buffers; copied.
    """
    nbytes = sum([memoryview(payload).nbytes for payload in payloads])
    header = wire.Frame(seq=seq, capture_time_us=capture_time_us, latency_budget_ms=budget_ms).SerializeToString()
    payload_size = _varint(nbytes)
    frame_size = _varint(len(header) + len(_PAYLOAD_TAG) + len(payload_size) + nbytes)
    return b"".join((_FRAME_TAG, frame_size, header, _PAYLOAD_TAG, payload_size, *payloads))


def payload_in(message: bytes) -> bytes:
    """Return a copy of the payload in a message of `frame_message`."""
    return wire.ClientMessage.FromString(message).frame.payload


def size_of(encoding: Encoding, frame: FrameData) -> tuple[int, int]:
    """Return width and height of a frame of pixels.

    Raises:
        TypeError: not a frame.
        ValueError: the size is unknown, because the frame is plain bytes or has another shape.
    """
    if isinstance(frame, bytes | bytearray | memoryview):  # a valid type, which does not contain the size
        raise fault_of_file(encoding, frame) or ValueError(
            f"width and height must be given to stream(): {encoding} bytes do not tell them"
        )
    if not isinstance(frame, np.ndarray):
        raise fault_of_type(encoding, frame)
    layout = LAYOUTS[VALUES[encoding]]
    size = layout.size(frame.shape)
    if size is None or 0 in size:
        raise fault_of_shape(encoding, layout, frame.shape)
    return size


def payload_of(encoding: Encoding, width: int, height: int, frame: FrameData) -> list[Raw]:
    """Return the buffers that make up the payload, without copying contiguous arrays.

    Raises:
        TypeError: this encoding cannot carry the type of the frame.
        ValueError: the wrong size or type.
    """
    layout = LAYOUTS.get(VALUES[encoding])
    if layout is not None:
        return [_pixels(encoding, layout, width, height, frame)]
    if encoding == "tensor":
        return _tensors(frame)
    if isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 1:
        return [_raw(frame)]  # cv2.imencode gives such arrays
    if isinstance(frame, bytes | bytearray | memoryview):
        return [frame]
    raise fault_of_array(encoding, frame) if isinstance(frame, np.ndarray) else fault_of_type(encoding, frame)


def _pixels(encoding: Encoding, layout: Layout, width: int, height: int, frame: FrameData) -> Raw:
    if isinstance(frame, np.ndarray):
        if frame.dtype != np.uint8:
            raise fault_of_values(encoding, frame)
        if size_of(encoding, frame) != (width, height):
            found = "x".join(map(str, size_of(encoding, frame)))
            raise ValueError(
                f"the frame is {found}, the stream was opened with {width}x{height}: resize it, or open another stream"
            )
        return _raw(frame)
    if not isinstance(frame, bytes | bytearray | memoryview):
        raise fault_of_type(encoding, frame)
    wanted_bytes = layout.nbytes(width, height)
    if memoryview(frame).nbytes != wanted_bytes:
        found_bytes = memoryview(frame).nbytes
        raise fault_of_file(encoding, frame) or ValueError(
            f"{encoding} at {width}x{height} takes {wanted_bytes} bytes, the frame has {found_bytes}"
        )
    return frame


def _tensors(frame: FrameData) -> list[Raw]:
    if isinstance(frame, bytes | bytearray | memoryview):
        return [frame]
    arrays: list[NDArray[Any]] = [frame] if isinstance(frame, np.ndarray) else []
    if isinstance(frame, list | tuple):
        arrays = list(frame)
    if not arrays or not all(isinstance(array, np.ndarray) for array in arrays):
        raise fault_of_type("tensor", frame)
    if any(array.dtype == object for array in arrays):
        raise TypeError("object arrays cannot be sent: encode BYTES tensors yourself and send bytes")
    return [_raw(array.astype(array.dtype.newbyteorder("<"), copy=False)) for array in arrays]


def _raw(array: NDArray[Any]) -> Raw:
    """Return the array's bytes in C order; copy them only if the array is not C-contiguous."""
    return np.ascontiguousarray(array).data


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
