"""Values that a stream returns: one Result for every frame, and one Opened per call.

All classes here are plain frozen values; arrays are read-only views of the received message.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

from forebay.client.detection import Detection


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

    __hash__ = object.__hash__  # that of Enum is a function in Python, and each frame is counted by its status


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
        return self.status is not Status.NOT_SENT and self.status is not Status.UNANSWERED
