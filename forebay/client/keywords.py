"""The keywords of `Client.stream`, in one place for the synchronous and the asynchronous client."""

from collections.abc import Mapping, Sequence
from typing import Required, TypedDict

from forebay.client.options import Delivery, Encoding, Masks, OutputKind, Policy, TraceContext


class StreamKeywords(TypedDict, total=False):
    """The arguments of `Client.stream` besides the camera's name.

    Attributes:
        model: name in the server's model repository.
        version: of the model; empty: the newest.
        encoding: of every frame: bgr8 (default), rgb8, mono8, nv12, jpeg, png, h264, h265, or tensor.
        width: pixels, for bgr8, rgb8, mono8 and nv12; default: taken from the first frame, which has to be an array.
        height: pixels, as width.
        shape: of the first input, for tensor; default: the model's.
        delivery: "latest" (default; a newer frame replaces the waiting one) or "every".
        policy: "drop_oldest" (default with latest): `send` never waits and the oldest waiting frame is dropped; or
            "block" (default with every): `send` waits for room.
        queue_frames: frames that may wait in this client, at least 1 (default).
        resend: send frames again whose answer was lost with a broken stream; default: with every and block.
        budget_ms: latency budget of a frame, from its arrival at the server.
        max_in_flight: requested window; 0: the server's default.
        priority: 1 is the most urgent; 0: the model's default.
        outputs: "tensors", "detections", "classes"; empty: the model's typed result, else tensors.
        tensor_names: with "tensors": names of the outputs to return.
        score_threshold: 0..1; default: the model's.
        iou_threshold: 0..1; default: the model's.
        max_results: maximum number of detections or classes in a result; 0: the model's.
        masks: "polygons" or "run_lengths": the form of the masks of a segmentation model; default: no masks.
        track: give detections a `track_id` that lasts through the stream, also when it is opened again; default: no.
        parameter_sets: of h264 and h265, in Annex B form, such as the SDP of a camera has them; default: they come with
            the first keyframe.
        allow_picture: the server's operator may look at the latest frame of this stream; default: no.
        trace_context: W3C trace context (`traceparent`, optionally `tracestate`): the parent of the server's spans of
            this stream; or a function that returns it, called each time the stream is opened.
        headers: metadata of every call, such as the header of a server's `restricted_protocol`.
    """

    model: Required[str]
    version: str
    encoding: Encoding
    width: int
    height: int
    shape: Sequence[int]
    delivery: Delivery
    policy: Policy | None
    queue_frames: int
    resend: bool | None
    budget_ms: float | None
    max_in_flight: int
    priority: int
    outputs: Sequence[OutputKind]
    tensor_names: Sequence[str]
    score_threshold: float | None
    iou_threshold: float | None
    max_results: int
    masks: Masks | None
    track: bool
    parameter_sets: bytes
    allow_picture: bool
    trace_context: TraceContext | None
    headers: Mapping[str, str]
