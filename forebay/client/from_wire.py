"""From messages of the wire to the values that a stream returns. Pure."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from forebay.client.detection import Box, Detection, Keypoint, Mask, RotatedBox, RunLengths
from forebay.client.result import Classification, Opened, Result, Status, TensorSpec, Timings
from forebay.wire import frames_pb2 as wire

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


def result_from_wire(message: wire.Result, capture_time_ns: int, age_ms: float, round_trip_ms: float) -> Result:
    """Translate a Result of the wire."""
    return Result(
        seq=message.seq,
        status=_STATUS_OF_CODE.get(message.status.code, Status.FAILED),
        message=message.status.message,
        retry_after_ms=message.status.retry_after_ms,
        detections=tuple([_detection(item) for item in message.detections]),
        classes=tuple([Classification(item.label, item.class_id, item.score) for item in message.classes]),
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


def _detection(message: wire.Detection) -> Detection:
    box, pixels, points = message.box, message.box_pixels, message.keypoints
    return Detection(
        message.label,
        message.class_id,
        message.score,
        Box(box.x_min, box.y_min, box.x_max, box.y_max),
        Box(pixels.x_min, pixels.y_min, pixels.x_max, pixels.y_max),
        tuple([Keypoint(item.x, item.y, item.score) for item in points]) if points else (),
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
