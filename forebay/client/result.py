"""What a stream gives back: one Result for every frame, and Opened once per call.

Everything here is a plain frozen value; arrays are read-only views of the message they came in.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forebay.wire import frames_pb2 as wire


class Status(enum.Enum):
    """How a frame ended. The first seven are the server's word, the last two the client's own."""

    OK = "ok"
    SUPERSEDED = "superseded"  # a newer frame of this stream took its place at the server
    EXPIRED = "expired"  # its budget could not be met; never executed
    OVERLOADED = "overloaded"  # the server had no room; never executed
    INVALID = "invalid"  # the frame itself is wrong; never executed
    FAILED = "failed"  # the server failed on it
    CANCELLED = "cancelled"  # the server gave it up while shutting down
    NOT_SENT = "not_sent"  # never left this client: a newer frame took its place, or the stream ended first
    UNANSWERED = "unanswered"  # sent, but the stream broke before its answer came; it may have been executed


_STATUS_OF_CODE: dict[int, Status] = {
    wire.STATUS_OK: Status.OK,
    wire.STATUS_SUPERSEDED: Status.SUPERSEDED,
    wire.STATUS_EXPIRED: Status.EXPIRED,
    wire.STATUS_OVERLOADED: Status.OVERLOADED,
    wire.STATUS_INVALID: Status.INVALID,
    wire.STATUS_FAILED: Status.FAILED,
    wire.STATUS_CANCELLED: Status.CANCELLED,
}

_DTYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
    "BF16": "<u2",  # numpy has no bfloat16: the raw 16 bits
}


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle; x to the right, y down."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float


@dataclass(frozen=True, slots=True)
class Detection:
    """One object. `box` is in 0..1 of the frame's width and height, `box_pixels` in pixels of the frame as sent."""

    label: str
    class_id: int
    score: float
    box: Box
    box_pixels: Box


@dataclass(frozen=True, slots=True)
class Classification:
    """One class; `score` as the model gives it."""

    label: str
    class_id: int
    score: float


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the server spent a frame's time; the seven stages add up to `server_total_us`. Microseconds."""

    receive_us: int = 0
    decode_us: int = 0
    queue_us: int = 0
    h2d_us: int = 0
    execute_us: int = 0
    d2h_us: int = 0
    deliver_us: int = 0
    server_total_us: int = 0


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, Open Inference datatype and shape (without the batch dimension, -1 where it varies) of a tensor."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """What the server granted. A stream that reconnects gets a new one, maybe of another server or version."""

    session_id: str
    model: str
    model_version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    window: int
    stream_lifetime_s: float
    delivery: str
    latency_budget_ms: float
    heartbeat_interval_s: float


@dataclass(frozen=True, slots=True)
class Result:
    """How one frame ended, and what was found in it.

    Attributes:
        seq: as returned by `send`.
        status: see Status; detections, classes and tensors are empty unless it is OK.
        message: empty if OK, else what is wrong and how to mend it.
        retry_after_ms: the server's advice; 0 for none.
        detections: by falling score.
        classes: by falling score.
        tensors: raw outputs by name, read-only, without the batch dimension; BF16 comes as its raw uint16.
        timings: the server's stages.
        model_version: the version that executed it; empty if none did.
        batch_size: rows of the batch it was executed in; 0 if it was not.
        late_by_ms: how long after its deadline the result was built; 0 if in time or without one.
        capture_time_ns: as given to `send`; None for a frame that was never sent.
        age_ms: from capture to the arrival of this result, on the client's clock; None if no answer came.
        round_trip_ms: from the frame's writing to the arrival of this result; None if no answer came.
    """

    seq: int
    status: Status
    message: str = ""
    retry_after_ms: int = 0
    detections: tuple[Detection, ...] = ()
    classes: tuple[Classification, ...] = ()
    tensors: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    timings: Timings = Timings()
    model_version: str = ""
    batch_size: int = 0
    late_by_ms: float = 0.0
    capture_time_ns: int | None = None
    age_ms: float | None = None
    round_trip_ms: float | None = None

    @property
    def is_ok(self) -> bool:
        """Whether the frame was executed and its outputs are here."""
        return self.status is Status.OK

    @property
    def is_answered(self) -> bool:
        """Whether the server said how it ended."""
        return self.status not in {Status.NOT_SENT, Status.UNANSWERED}


def result_from_wire(message: wire.Result, capture_time_ns: int, age_ms: float, round_trip_ms: float) -> Result:
    """Translate a Result of the wire."""
    return Result(
        seq=message.seq,
        status=_STATUS_OF_CODE.get(message.status.code, Status.FAILED),
        message=message.status.message,
        retry_after_ms=message.status.retry_after_ms,
        detections=tuple(_detection(item) for item in message.detections),
        classes=tuple(Classification(item.label, item.class_id, item.score) for item in message.classes),
        tensors={item.name: tensor_from_wire(item) for item in message.tensors},
        timings=_timings(message.timings),
        model_version=message.model_version,
        batch_size=message.batch_size,
        late_by_ms=message.late_by_us / 1e3,
        capture_time_ns=capture_time_ns,
        age_ms=age_ms,
        round_trip_ms=round_trip_ms,
    )


def opened_from_wire(message: wire.Opened) -> Opened:
    """Translate an Opened of the wire."""
    return Opened(
        session_id=message.session_id,
        model=message.model,
        model_version=message.model_version,
        inputs=tuple(TensorSpec(item.name, item.datatype, tuple(item.shape)) for item in message.inputs),
        outputs=tuple(TensorSpec(item.name, item.datatype, tuple(item.shape)) for item in message.outputs),
        window=message.window,
        stream_lifetime_s=message.stream_lifetime_s,
        delivery="every" if message.delivery == wire.DELIVERY_EVERY else "latest",
        latency_budget_ms=message.latency_budget_ms,
        heartbeat_interval_s=message.heartbeat_interval_s,
    )


def tensor_from_wire(message: wire.Tensor) -> NDArray[Any]:
    """Return a read-only array over the tensor's bytes; BYTES becomes an object array of `bytes`.

    Raises:
        ValueError: unknown datatype, or bytes that do not fit the shape.
    """
    shape = tuple(message.shape)
    if message.datatype == "BYTES":
        return np.array(_byte_strings(message.data), dtype=object).reshape(shape)
    code = _DTYPES.get(message.datatype)
    if code is None:
        raise ValueError(f"tensor {message.name!r} has the unknown datatype {message.datatype!r}")
    return np.frombuffer(message.data, dtype=np.dtype(code)).reshape(shape)


def _byte_strings(data: bytes) -> list[bytes]:
    """Split the Open Inference Protocol's BYTES: each element is a 4-byte little-endian length and its bytes."""
    strings: list[bytes] = []
    offset = 0
    while offset < len(data):
        length = int.from_bytes(data[offset : offset + 4], "little")
        offset += 4
        if offset + length > len(data):
            raise ValueError("a BYTES tensor is cut short")
        strings.append(data[offset : offset + length])
        offset += length
    return strings


def _box(message: wire.Box) -> Box:
    return Box(message.x_min, message.y_min, message.x_max, message.y_max)


def _detection(message: wire.Detection) -> Detection:
    return Detection(message.label, message.class_id, message.score, _box(message.box), _box(message.box_pixels))


def _timings(message: wire.Timings) -> Timings:
    return Timings(
        receive_us=message.receive_us,
        decode_us=message.decode_us,
        queue_us=message.queue_us,
        h2d_us=message.h2d_us,
        execute_us=message.execute_us,
        d2h_us=message.d2h_us,
        deliver_us=message.deliver_us,
        server_total_us=message.server_total_us,
    )
