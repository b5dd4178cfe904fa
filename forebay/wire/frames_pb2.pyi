from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Encoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENCODING_UNSPECIFIED: _ClassVar[Encoding]
    ENCODING_TENSOR: _ClassVar[Encoding]
    ENCODING_RGB8: _ClassVar[Encoding]
    ENCODING_BGR8: _ClassVar[Encoding]
    ENCODING_JPEG: _ClassVar[Encoding]
    ENCODING_PNG: _ClassVar[Encoding]
    ENCODING_NV12: _ClassVar[Encoding]
    ENCODING_MONO8: _ClassVar[Encoding]
    ENCODING_H264: _ClassVar[Encoding]
    ENCODING_H265: _ClassVar[Encoding]

class Delivery(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DELIVERY_UNSPECIFIED: _ClassVar[Delivery]
    DELIVERY_LATEST: _ClassVar[Delivery]
    DELIVERY_EVERY: _ClassVar[Delivery]

class Output(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTPUT_UNSPECIFIED: _ClassVar[Output]
    OUTPUT_TENSORS: _ClassVar[Output]
    OUTPUT_DETECTIONS: _ClassVar[Output]
    OUTPUT_CLASSES: _ClassVar[Output]

class MaskFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MASK_FORMAT_UNSPECIFIED: _ClassVar[MaskFormat]
    MASK_FORMAT_POLYGONS: _ClassVar[MaskFormat]
    MASK_FORMAT_RUN_LENGTHS: _ClassVar[MaskFormat]

class TrackResumption(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRACK_RESUMPTION_UNSPECIFIED: _ClassVar[TrackResumption]
    TRACK_RESUMPTION_CONTINUED: _ClassVar[TrackResumption]
    TRACK_RESUMPTION_ANEW: _ClassVar[TrackResumption]

class StatusCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATUS_UNSPECIFIED: _ClassVar[StatusCode]
    STATUS_OK: _ClassVar[StatusCode]
    STATUS_SUPERSEDED: _ClassVar[StatusCode]
    STATUS_EXPIRED: _ClassVar[StatusCode]
    STATUS_OVERLOADED: _ClassVar[StatusCode]
    STATUS_INVALID: _ClassVar[StatusCode]
    STATUS_FAILED: _ClassVar[StatusCode]
    STATUS_CANCELLED: _ClassVar[StatusCode]
    STATUS_NEEDS_KEYFRAME: _ClassVar[StatusCode]
ENCODING_UNSPECIFIED: Encoding
ENCODING_TENSOR: Encoding
ENCODING_RGB8: Encoding
ENCODING_BGR8: Encoding
ENCODING_JPEG: Encoding
ENCODING_PNG: Encoding
ENCODING_NV12: Encoding
ENCODING_MONO8: Encoding
ENCODING_H264: Encoding
ENCODING_H265: Encoding
DELIVERY_UNSPECIFIED: Delivery
DELIVERY_LATEST: Delivery
DELIVERY_EVERY: Delivery
OUTPUT_UNSPECIFIED: Output
OUTPUT_TENSORS: Output
OUTPUT_DETECTIONS: Output
OUTPUT_CLASSES: Output
MASK_FORMAT_UNSPECIFIED: MaskFormat
MASK_FORMAT_POLYGONS: MaskFormat
MASK_FORMAT_RUN_LENGTHS: MaskFormat
TRACK_RESUMPTION_UNSPECIFIED: TrackResumption
TRACK_RESUMPTION_CONTINUED: TrackResumption
TRACK_RESUMPTION_ANEW: TrackResumption
STATUS_UNSPECIFIED: StatusCode
STATUS_OK: StatusCode
STATUS_SUPERSEDED: StatusCode
STATUS_EXPIRED: StatusCode
STATUS_OVERLOADED: StatusCode
STATUS_INVALID: StatusCode
STATUS_FAILED: StatusCode
STATUS_CANCELLED: StatusCode
STATUS_NEEDS_KEYFRAME: StatusCode

class ClientMessage(_message.Message):
    __slots__ = ("open", "frame")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    open: Open
    frame: Frame
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ...) -> None: ...

class ServerMessage(_message.Message):
    __slots__ = ("opened", "result", "reconnect", "heartbeat", "need_keyframe")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    RECONNECT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    NEED_KEYFRAME_FIELD_NUMBER: _ClassVar[int]
    opened: Opened
    result: Result
    reconnect: Reconnect
    heartbeat: Heartbeat
    need_keyframe: NeedKeyframe
    def __init__(self, opened: _Optional[_Union[Opened, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., reconnect: _Optional[_Union[Reconnect, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., need_keyframe: _Optional[_Union[NeedKeyframe, _Mapping]] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("model", "version", "stream_id", "encoding", "width", "height", "shape", "latency_budget_ms", "delivery", "max_in_flight", "priority", "outputs", "tensor_names", "score_threshold", "iou_threshold", "max_results", "resume_from", "allow_picture", "masks", "track", "track_state", "parameter_sets")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    LATENCY_BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    TENSOR_NAMES_FIELD_NUMBER: _ClassVar[int]
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    IOU_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MAX_RESULTS_FIELD_NUMBER: _ClassVar[int]
    RESUME_FROM_FIELD_NUMBER: _ClassVar[int]
    ALLOW_PICTURE_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    TRACK_FIELD_NUMBER: _ClassVar[int]
    TRACK_STATE_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_SETS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    stream_id: str
    encoding: Encoding
    width: int
    height: int
    shape: _containers.RepeatedScalarFieldContainer[int]
    latency_budget_ms: float
    delivery: Delivery
    max_in_flight: int
    priority: int
    outputs: _containers.RepeatedScalarFieldContainer[Output]
    tensor_names: _containers.RepeatedScalarFieldContainer[str]
    score_threshold: float
    iou_threshold: float
    max_results: int
    resume_from: int
    allow_picture: bool
    masks: MaskFormat
    track: bool
    track_state: bytes
    parameter_sets: bytes
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., stream_id: _Optional[str] = ..., encoding: _Optional[_Union[Encoding, str]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., shape: _Optional[_Iterable[int]] = ..., latency_budget_ms: _Optional[float] = ..., delivery: _Optional[_Union[Delivery, str]] = ..., max_in_flight: _Optional[int] = ..., priority: _Optional[int] = ..., outputs: _Optional[_Iterable[_Union[Output, str]]] = ..., tensor_names: _Optional[_Iterable[str]] = ..., score_threshold: _Optional[float] = ..., iou_threshold: _Optional[float] = ..., max_results: _Optional[int] = ..., resume_from: _Optional[int] = ..., allow_picture: bool = ..., masks: _Optional[_Union[MaskFormat, str]] = ..., track: bool = ..., track_state: _Optional[bytes] = ..., parameter_sets: _Optional[bytes] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("seq", "capture_time_us", "latency_budget_ms", "payload")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_TIME_US_FIELD_NUMBER: _ClassVar[int]
    LATENCY_BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    seq: int
    capture_time_us: int
    latency_budget_ms: float
    payload: bytes
    def __init__(self, seq: _Optional[int] = ..., capture_time_us: _Optional[int] = ..., latency_budget_ms: _Optional[float] = ..., payload: _Optional[bytes] = ...) -> None: ...

class TensorSpec(_message.Message):
    __slots__ = ("name", "datatype", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATATYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    datatype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., datatype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("session_id", "model", "model_version", "inputs", "outputs", "window", "stream_lifetime_s", "delivery", "latency_budget_ms", "heartbeat_interval_s", "labels", "keypoint_names", "track_resumption", "reorder_frames")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    STREAM_LIFETIME_S_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    LATENCY_BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    KEYPOINT_NAMES_FIELD_NUMBER: _ClassVar[int]
    TRACK_RESUMPTION_FIELD_NUMBER: _ClassVar[int]
    REORDER_FRAMES_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    model: str
    model_version: str
    inputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    outputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    window: int
    stream_lifetime_s: float
    delivery: Delivery
    latency_budget_ms: float
    heartbeat_interval_s: float
    labels: _containers.RepeatedScalarFieldContainer[str]
    keypoint_names: _containers.RepeatedScalarFieldContainer[str]
    track_resumption: TrackResumption
    reorder_frames: int
    def __init__(self, session_id: _Optional[str] = ..., model: _Optional[str] = ..., model_version: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., window: _Optional[int] = ..., stream_lifetime_s: _Optional[float] = ..., delivery: _Optional[_Union[Delivery, str]] = ..., latency_budget_ms: _Optional[float] = ..., heartbeat_interval_s: _Optional[float] = ..., labels: _Optional[_Iterable[str]] = ..., keypoint_names: _Optional[_Iterable[str]] = ..., track_resumption: _Optional[_Union[TrackResumption, str]] = ..., reorder_frames: _Optional[int] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("code", "message", "retry_after_ms")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    code: StatusCode
    message: str
    retry_after_ms: int
    def __init__(self, code: _Optional[_Union[StatusCode, str]] = ..., message: _Optional[str] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("receive_us", "decode_us", "queue_us", "h2d_us", "execute_us", "d2h_us", "deliver_us", "server_total_us")
    RECEIVE_US_FIELD_NUMBER: _ClassVar[int]
    DECODE_US_FIELD_NUMBER: _ClassVar[int]
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    H2D_US_FIELD_NUMBER: _ClassVar[int]
    EXECUTE_US_FIELD_NUMBER: _ClassVar[int]
    D2H_US_FIELD_NUMBER: _ClassVar[int]
    DELIVER_US_FIELD_NUMBER: _ClassVar[int]
    SERVER_TOTAL_US_FIELD_NUMBER: _ClassVar[int]
    receive_us: int
    decode_us: int
    queue_us: int
    h2d_us: int
    execute_us: int
    d2h_us: int
    deliver_us: int
    server_total_us: int
    def __init__(self, receive_us: _Optional[int] = ..., decode_us: _Optional[int] = ..., queue_us: _Optional[int] = ..., h2d_us: _Optional[int] = ..., execute_us: _Optional[int] = ..., d2h_us: _Optional[int] = ..., deliver_us: _Optional[int] = ..., server_total_us: _Optional[int] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("x_min", "y_min", "x_max", "y_max")
    X_MIN_FIELD_NUMBER: _ClassVar[int]
    Y_MIN_FIELD_NUMBER: _ClassVar[int]
    X_MAX_FIELD_NUMBER: _ClassVar[int]
    Y_MAX_FIELD_NUMBER: _ClassVar[int]
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    def __init__(self, x_min: _Optional[float] = ..., y_min: _Optional[float] = ..., x_max: _Optional[float] = ..., y_max: _Optional[float] = ...) -> None: ...

class Keypoint(_message.Message):
    __slots__ = ("x", "y", "score")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    score: float
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ..., score: _Optional[float] = ...) -> None: ...

class RotatedBox(_message.Message):
    __slots__ = ("cx", "cy", "width", "height", "angle_radians")
    CX_FIELD_NUMBER: _ClassVar[int]
    CY_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    ANGLE_RADIANS_FIELD_NUMBER: _ClassVar[int]
    cx: float
    cy: float
    width: float
    height: float
    angle_radians: float
    def __init__(self, cx: _Optional[float] = ..., cy: _Optional[float] = ..., width: _Optional[float] = ..., height: _Optional[float] = ..., angle_radians: _Optional[float] = ...) -> None: ...

class Polygon(_message.Message):
    __slots__ = ("points",)
    POINTS_FIELD_NUMBER: _ClassVar[int]
    points: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, points: _Optional[_Iterable[float]] = ...) -> None: ...

class RunLengths(_message.Message):
    __slots__ = ("width", "height", "counts")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    counts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., counts: _Optional[_Iterable[int]] = ...) -> None: ...

class Mask(_message.Message):
    __slots__ = ("polygons", "run_lengths")
    POLYGONS_FIELD_NUMBER: _ClassVar[int]
    RUN_LENGTHS_FIELD_NUMBER: _ClassVar[int]
    polygons: _containers.RepeatedCompositeFieldContainer[Polygon]
    run_lengths: RunLengths
    def __init__(self, polygons: _Optional[_Iterable[_Union[Polygon, _Mapping]]] = ..., run_lengths: _Optional[_Union[RunLengths, _Mapping]] = ...) -> None: ...

class Detection(_message.Message):
    __slots__ = ("label", "class_id", "score", "box", "box_pixels", "keypoints", "rotated_box", "mask", "track_id")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    BOX_PIXELS_FIELD_NUMBER: _ClassVar[int]
    KEYPOINTS_FIELD_NUMBER: _ClassVar[int]
    ROTATED_BOX_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    TRACK_ID_FIELD_NUMBER: _ClassVar[int]
    label: str
    class_id: int
    score: float
    box: Box
    box_pixels: Box
    keypoints: _containers.RepeatedCompositeFieldContainer[Keypoint]
    rotated_box: RotatedBox
    mask: Mask
    track_id: int
    def __init__(self, label: _Optional[str] = ..., class_id: _Optional[int] = ..., score: _Optional[float] = ..., box: _Optional[_Union[Box, _Mapping]] = ..., box_pixels: _Optional[_Union[Box, _Mapping]] = ..., keypoints: _Optional[_Iterable[_Union[Keypoint, _Mapping]]] = ..., rotated_box: _Optional[_Union[RotatedBox, _Mapping]] = ..., mask: _Optional[_Union[Mask, _Mapping]] = ..., track_id: _Optional[int] = ...) -> None: ...

class Classification(_message.Message):
    __slots__ = ("label", "class_id", "score")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    label: str
    class_id: int
    score: float
    def __init__(self, label: _Optional[str] = ..., class_id: _Optional[int] = ..., score: _Optional[float] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("name", "datatype", "shape", "data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATATYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    datatype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, name: _Optional[str] = ..., datatype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("seq", "capture_time_us", "model_version", "status", "late_by_us", "batch_size", "timings", "detections", "classes", "track_state", "tensors")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_TIME_US_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    LATE_BY_US_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    TRACK_STATE_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    seq: int
    capture_time_us: int
    model_version: str
    status: Status
    late_by_us: int
    batch_size: int
    timings: Timings
    detections: _containers.RepeatedCompositeFieldContainer[Detection]
    classes: _containers.RepeatedCompositeFieldContainer[Classification]
    track_state: bytes
    tensors: _containers.RepeatedCompositeFieldContainer[Tensor]
    def __init__(self, seq: _Optional[int] = ..., capture_time_us: _Optional[int] = ..., model_version: _Optional[str] = ..., status: _Optional[_Union[Status, _Mapping]] = ..., late_by_us: _Optional[int] = ..., batch_size: _Optional[int] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., detections: _Optional[_Iterable[_Union[Detection, _Mapping]]] = ..., classes: _Optional[_Iterable[_Union[Classification, _Mapping]]] = ..., track_state: _Optional[bytes] = ..., tensors: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ...) -> None: ...

class Reconnect(_message.Message):
    __slots__ = ("reason", "grace_ms")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[Reconnect.Reason]
        REASON_DRAIN: _ClassVar[Reconnect.Reason]
        REASON_REBALANCE: _ClassVar[Reconnect.Reason]
        REASON_ELSEWHERE: _ClassVar[Reconnect.Reason]
    REASON_UNSPECIFIED: Reconnect.Reason
    REASON_DRAIN: Reconnect.Reason
    REASON_REBALANCE: Reconnect.Reason
    REASON_ELSEWHERE: Reconnect.Reason
    REASON_FIELD_NUMBER: _ClassVar[int]
    GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    reason: Reconnect.Reason
    grace_ms: int
    def __init__(self, reason: _Optional[_Union[Reconnect.Reason, str]] = ..., grace_ms: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("frames_received",)
    FRAMES_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    frames_received: int
    def __init__(self, frames_received: _Optional[int] = ...) -> None: ...

class NeedKeyframe(_message.Message):
    __slots__ = ("since_seq",)
    SINCE_SEQ_FIELD_NUMBER: _ClassVar[int]
    since_seq: int
    def __init__(self, since_seq: _Optional[int] = ...) -> None: ...
