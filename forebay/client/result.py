"""Values that a stream returns: one Result for every frame, and one Opened per call.

All classes here are plain frozen values; arrays are read-only views of the received message.
"""

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from forebay.wire import frames_pb2 as wire


class Status(enum.Enum):
    """How a frame ended. The client sets NOT_SENT and UNANSWERED, the server the others."""

    OK = "ok"
    SUPERSEDED = "superseded"  # a newer frame of this stream took its place at the server
    EXPIRED = "expired"  # the frame could not meet its budget; never executed
    OVERLOADED = "overloaded"  # the server had no room; never executed
    INVALID = "invalid"  # the frame itself is wrong; never executed
    FAILED = "failed"  # the server failed on this frame
    CANCELLED = "cancelled"  # the server gave the frame up while shutting down
    NEEDS_KEYFRAME = "needs_keyframe"  # of video: its picture needs one that the server does not have; never executed
    NOT_SENT = "not_sent"  # never sent: a newer frame took its place in the client, or the stream ended first
    UNANSWERED = "unanswered"  # sent, but the stream broke before its answer came; it may have been executed


_STATUS_OF_CODE: dict[int, Status] = {
    wire.STATUS_OK: Status.OK,
    wire.STATUS_SUPERSEDED: Status.SUPERSEDED,
    wire.STATUS_EXPIRED: Status.EXPIRED,
    wire.STATUS_OVERLOADED: Status.OVERLOADED,
    wire.STATUS_INVALID: Status.INVALID,
    wire.STATUS_FAILED: Status.FAILED,
    wire.STATUS_CANCELLED: Status.CANCELLED,
    wire.STATUS_NEEDS_KEYFRAME: Status.NEEDS_KEYFRAME,
}

_TRACKS: dict[int, Literal["continued", "anew"]] = {
    wire.TRACK_RESUMPTION_CONTINUED: "continued",
    wire.TRACK_RESUMPTION_ANEW: "anew",
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
class Keypoint:
    """One named point of an object, in pixels of the frame as sent; `score` (0..1) says how sure the model is of it."""

    x: float
    y: float
    score: float


@dataclass(frozen=True, slots=True)
class RotatedBox:
    """A rectangle turned about its center, in pixels of the frame as sent; it may reach beyond the frame.

    Attributes:
        cx: center.
        cy: center.
        width: along the direction of the angle.
        height: across it.
        angle_radians: from the x axis towards the y axis, which grows downwards: clockwise as seen.
    """

    cx: float
    cy: float
    width: float
    height: float
    angle_radians: float

    @property
    def corners(self) -> tuple[tuple[float, float], ...]:
        """The four corners (x, y) in order around the rectangle."""
        cos, sin = math.cos(self.angle_radians) / 2, math.sin(self.angle_radians) / 2
        along, across = (self.width * cos, self.width * sin), (-self.height * sin, self.height * cos)
        return tuple(
            (self.cx + a * along[0] + b * across[0], self.cy + a * along[1] + b * across[1])
            for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
        )


@dataclass(frozen=True, slots=True)
class RunLengths:
    """A mask as COCO writes it, uncompressed.

    Attributes:
        width: of the frame, pixels.
        height: of the frame, pixels.
        counts: pixels outside, inside, outside, ... in turn, down each column from the left.
    """

    width: int
    height: int
    counts: tuple[int, ...]

    def to_array(self) -> NDArray[np.bool_]:
        """Return the mask, shape (height, width). Raises ValueError if the counts do not fit the size."""
        if sum(self.counts) != self.width * self.height:
            raise ValueError(f"the counts of a mask add up to {sum(self.counts)}, not {self.width} x {self.height}")
        inside = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(inside, self.counts).reshape(self.width, self.height).T


@dataclass(frozen=True, slots=True, eq=False)  # arrays have no truth value: masks compare by identity
class Mask:
    """The pixels of one object, in the form that the stream asked for.

    Attributes:
        polygons: outlines without holes, the largest first: arrays of shape (points, 2), x and y in pixels, read-only.
        run_lengths: None unless the stream was opened with `masks="run_lengths"`.
    """

    polygons: tuple[NDArray[np.float32], ...] = ()
    run_lengths: RunLengths | None = None


@dataclass(frozen=True, slots=True)
class Detection:
    """One object.

    Attributes:
        label: name of its class.
        class_id: number of its class.
        score: 0..1.
        box: in 0..1 of the frame's width and height.
        box_pixels: the same in pixels of the frame as sent.
        keypoints: of a pose model, in the order of `Opened.keypoint_names`; else empty.
        rotated_box: of a model for oriented boxes; else None.
        mask: of a segmentation model, if the stream was opened with `masks`; else None.
        track_id: the same number for one object through a stream that was opened with `track=True`; 0 for an object
            that is not tracked, or was seen once so far.
    """

    label: str
    class_id: int
    score: float
    box: Box
    box_pixels: Box
    keypoints: tuple[Keypoint, ...] = ()
    rotated_box: RotatedBox | None = None
    mask: Mask | None = None
    track_id: int = 0


@dataclass(frozen=True, slots=True)
class Classification:
    """One class; `score` is the model's own value."""

    label: str
    class_id: int
    score: float


@dataclass(frozen=True, slots=True)
class Timings:
    """Time that the server spent on a frame by stage; the seven stages add up to `server_total_us`. Microseconds."""

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
    """The server's grant for one call. A stream that reconnects gets a new one, maybe from another server.

    `labels` are the names of the model's classes by `class_id`, `keypoint_names` those of a pose model's keypoints;
    each is empty if the names are not known. `tracks` of a stream with `track=True` is "continued" if the ids go on
    from the call before, and "anew" if they begin at 1: an earlier id then means another object. None without `track`.
    `reorder_frames` of a stream of video with `parameter_sets` is the number of pictures that may be shown before one
    that was sent earlier: its result waits for their frames. None where it is not known.
    """

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
    labels: tuple[str, ...] = ()
    keypoint_names: tuple[str, ...] = ()
    tracks: Literal["continued", "anew"] | None = None
    reorder_frames: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """How one frame ended, and its outputs.

    Attributes:
        seq: as returned by `send`.
        status: see Status; detections, classes and tensors are empty unless it is OK.
        message: empty if OK, else the fault and its remedy.
        retry_after_ms: the server's advice; 0 for none.
        detections: by falling score.
        classes: by falling score.
        tensors: raw outputs by name, read-only, without the batch dimension; BF16 comes as its raw uint16.
        timings: the server's stages.
        model_version: the version that executed the frame; empty if it was not executed.
        batch_size: rows of the batch that executed the frame; 0 if it was not executed.
        late_by_ms: time from the deadline to the building of the result; 0 if in time or without a deadline.
        capture_time_ns: as given to `send`; None for a frame that was never sent.
        age_ms: from capture to the arrival of this result, on the client's clock; None if no answer came.
        round_trip_ms: from the writing of the frame to the arrival of this result; None if no answer came.
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
        """Whether the server reported the outcome."""
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
        labels=tuple(message.labels),
        keypoint_names=tuple(message.keypoint_names),
        tracks=_TRACKS.get(message.track_resumption),
        reorder_frames=message.reorder_frames if message.HasField("reorder_frames") else None,
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
    return Detection(
        message.label,
        message.class_id,
        message.score,
        _box(message.box),
        _box(message.box_pixels),
        tuple([Keypoint(item.x, item.y, item.score) for item in message.keypoints]),
        _rotated_box(message.rotated_box) if message.HasField("rotated_box") else None,
        _mask(message.mask) if message.HasField("mask") else None,
        message.track_id,
    )


def _rotated_box(message: wire.RotatedBox) -> RotatedBox:
    return RotatedBox(message.cx, message.cy, message.width, message.height, message.angle_radians)


def _mask(message: wire.Mask) -> Mask:
    """Translate a mask. Raises ValueError for a polygon with half a point."""
    polygons = tuple(_polygon(item) for item in message.polygons)
    if not message.HasField("run_lengths"):
        return Mask(polygons)
    runs = message.run_lengths
    return Mask(polygons, RunLengths(runs.width, runs.height, tuple(runs.counts)))


def _polygon(message: wire.Polygon) -> NDArray[np.float32]:
    points = np.array(message.points, np.float32).reshape(-1, 2)
    points.flags.writeable = False
    return points


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
