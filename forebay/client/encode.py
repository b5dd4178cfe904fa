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
    nbytes = sum(memoryview(payload).nbytes for payload in payloads)
    header = wire.Frame(seq=seq, capture_time_us=capture_time_us, latency_budget_ms=budget_ms).SerializeToString()
    payload_size = _varint(nbytes)
    frame_size = _varint(len(header) + len(_PAYLOAD_TAG) + len(payload_size) + nbytes)
    return b"".join((_FRAME_TAG, frame_size, header, _PAYLOAD_TAG, payload_size, *payloads))


def size_of(encoding: Encoding, frame: FrameData) -> tuple[int, int]:
    """Return width and height of a frame of pixels.

    Raises:
        ValueError: the size is unknown, because the frame is plain bytes or has another shape.
    """
    if not isinstance(frame, np.ndarray):  # bytes are a valid type, but do not contain the size
        raise ValueError(f"width and height must be given to stream(): {encoding} bytes do not tell them")  # noqa: TRY004
    layout = LAYOUTS[VALUES[encoding]]
    size = layout.size(frame.shape)
    if size is None:
        raise ValueError(f"frames of {encoding} have the shape {layout}, not {frame.shape}")
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
    what = "an access unit in Annex B form" if encoding in {"h264", "h265"} else f"a {encoding} file"
    raise TypeError(f"{encoding} frames are the bytes of {what}, not {type(frame).__name__} (encode it first)")


def _pixels(encoding: Encoding, layout: Layout, width: int, height: int, frame: FrameData) -> Raw:
    if isinstance(frame, np.ndarray):
        if frame.dtype != np.uint8:
            raise ValueError(f"{encoding} frames are uint8, not {frame.dtype}")
        if size_of(encoding, frame) != (width, height):
            found = "x".join(map(str, size_of(encoding, frame)))
            raise ValueError(f"the frame is {found}, the stream was opened with {width}x{height}")
        return _raw(frame)
    if not isinstance(frame, bytes | bytearray | memoryview):
        raise TypeError(f"a frame is a numpy array or bytes, not {type(frame).__name__}")
    wanted_bytes = layout.nbytes(width, height)
    if memoryview(frame).nbytes != wanted_bytes:
        found_bytes = memoryview(frame).nbytes
        raise ValueError(f"{encoding} at {width}x{height} takes {wanted_bytes} bytes, the frame has {found_bytes}")
    return frame


def _tensors(frame: FrameData) -> list[Raw]:
    if isinstance(frame, bytes | bytearray | memoryview):
        return [frame]
    arrays = [frame] if isinstance(frame, np.ndarray) else list(frame)
    if not all(isinstance(array, np.ndarray) for array in arrays):
        raise TypeError("a tensor frame is a numpy array, one array for each input of the model, or bytes")
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
