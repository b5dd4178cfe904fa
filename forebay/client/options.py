"""Options of a caller: immutable values, checked when they are made."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from forebay.encodings import LAYOUTS, VALUES, Layout
from forebay.wire import frames_pb2 as wire

Encoding = Literal["tensor", "rgb8", "bgr8", "jpeg", "png", "nv12", "mono8", "h264", "h265"]
Delivery = Literal["latest", "every"]
Policy = Literal["drop_oldest", "block"]
OutputKind = Literal["tensors", "detections", "classes"]
Masks = Literal["polygons", "run_lengths"]
TraceContext = Mapping[str, str] | Callable[[], Mapping[str, str]]

_TRACEPARENT = re.compile("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_HEADER = re.compile(r"[a-z0-9_.-]+(?<!-bin)")

_OUTPUTS: dict[OutputKind, wire.Output] = {
    "tensors": wire.OUTPUT_TENSORS,
    "detections": wire.OUTPUT_DETECTIONS,
    "classes": wire.OUTPUT_CLASSES,
}
_MASKS: dict[Masks, wire.MaskFormat] = {
    "polygons": wire.MASK_FORMAT_POLYGONS,
    "run_lengths": wire.MASK_FORMAT_RUN_LENGTHS,
}


@dataclass(frozen=True, slots=True)
class Tls:
    """Encrypt, and check the server's certificate.

    Attributes:
        ca: PEM file of the authorities to trust; None: those of the system.
        cert: PEM file of the client's own certificate chain, for mutual TLS.
        key: PEM file of its key.
        server_name: name to expect in the certificate, if it is not the address's.
    """

    ca: Path | str | None = None
    cert: Path | str | None = None
    key: Path | str | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("a client certificate needs its key, and a key its certificate: give both or none")


@dataclass(frozen=True, slots=True)
class Reconnection:
    """Limits and back-off of connection attempts.

    Attributes:
        connect_timeout_s: longest time from the first try to the first Opened.
        give_up_after_s: longest time without an open stream later on; None: never give up.
        backoff_base_s: bound of the first draw of the full-jitter back-off; it doubles with every failure.
        backoff_cap_s: the largest bound.
        reopenings_per_s: sustained limit for each stream, after a burst of 3.
        silence_limit_s: longest time without a message from a server that sends no heartbeats; None: no limit. With
            heartbeats the limit is three of their intervals.
    """

    connect_timeout_s: float = 10.0
    give_up_after_s: float | None = 60.0
    backoff_base_s: float = 0.1
    backoff_cap_s: float = 1.0
    reopenings_per_s: float = 1.0
    silence_limit_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("connect_timeout_s", "backoff_base_s", "backoff_cap_s", "reopenings_per_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be more than 0, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """Everything that stays the same for a stream. `StreamKeywords` describes the fields."""

    camera: str
    model: str
    version: str = ""
    encoding: Encoding = "bgr8"
    width: int = 0
    height: int = 0
    shape: Sequence[int] = ()
    delivery: Delivery = "latest"
    policy: Policy | None = None
    queue_frames: int = 1
    resend: bool | None = None
    budget_ms: float | None = None
    max_in_flight: int = 0
    priority: int = 0
    outputs: Sequence[OutputKind] = ()
    tensor_names: Sequence[str] = ()
    score_threshold: float | None = None
    iou_threshold: float | None = None
    max_results: int = 0
    masks: Masks | None = None
    track: bool = False
    parameter_sets: bytes = b""
    allow_picture: bool = False
    trace_context: TraceContext | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= len(self.camera.encode()) <= 256:
            raise ValueError("camera must be 1 to 256 bytes of UTF-8")
        if not self.model:
            raise ValueError("model must not be empty")
        _check_word("encoding", self.encoding, get_args(Encoding))
        _check_word("delivery", self.delivery, get_args(Delivery))
        if self.policy is not None:
            _check_word("policy", self.policy, get_args(Policy))
        for output in self.outputs:
            _check_word("outputs", output, tuple(_OUTPUTS))
        if self.masks is not None:
            _check_word("masks", self.masks, tuple(_MASKS))
        if self.trace_context is not None and not callable(self.trace_context):
            trace_metadata(self.trace_context)
        _check_headers(self.headers)
        if (layout := self.layout) is not None and (fault := layout.fault(self.width, self.height)):
            raise ValueError(f"{self.encoding} {fault}")

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of a call that starts now. Raises ValueError for an invalid trace context."""
        context = self.trace_context
        trace = () if context is None else trace_metadata(context() if callable(context) else context)
        return (*self.headers.items(), *trace)

    @property
    def drops_oldest(self) -> bool:
        """Whether `send` replaces the oldest waiting frame and never waits."""
        return (self.policy or ("drop_oldest" if self.delivery == "latest" else "block")) == "drop_oldest"

    @property
    def resends(self) -> bool:
        """Whether frames in flight are sent again when a call breaks."""
        if self.resend is None:
            return self.delivery == "every" and not self.drops_oldest
        return self.resend

    @property
    def layout(self) -> Layout | None:
        """The layout of uncompressed pixels; None for other encodings."""
        return LAYOUTS.get(VALUES[self.encoding])

    @property
    def is_video(self) -> bool:
        """Whether frames need earlier ones to be decoded."""
        return self.encoding in {"h264", "h265"}

    @property
    def needs_size(self) -> bool:
        """Whether the stream can be opened only once the size of a frame is known."""
        return self.layout is not None and not (self.width and self.height)


def open_message(options: StreamOptions, resume_from: int | None, track_state: bytes = b"") -> bytes:
    """Return the encoded first message of a call.

    Args:
        options: of the stream.
        resume_from: the first seq that will be sent; None at the first call.
        track_state: the latest one of a Result of this stream; empty without tracks, or at the first call.
    """
    message = wire.Open(
        model=options.model,
        version=options.version,
        stream_id=options.camera,
        encoding=VALUES[options.encoding],
        width=options.width,
        height=options.height,
        shape=options.shape,
        latency_budget_ms=options.budget_ms,
        delivery=wire.DELIVERY_EVERY if options.delivery == "every" else wire.DELIVERY_LATEST,
        max_in_flight=options.max_in_flight,
        priority=options.priority,
        outputs=[_OUTPUTS[output] for output in options.outputs],
        tensor_names=options.tensor_names,
        score_threshold=options.score_threshold,
        iou_threshold=options.iou_threshold,
        max_results=options.max_results,
        masks=_MASKS[options.masks] if options.masks else None,
        allow_picture=options.allow_picture,
        resume_from=resume_from,
        track=options.track,
        parameter_sets=options.parameter_sets,
        track_state=track_state,
    )
    return wire.ClientMessage(open=message).SerializeToString()


def trace_metadata(context: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return W3C trace context as gRPC metadata. Raises ValueError."""
    traceparent = context.get("traceparent", "")
    if not _TRACEPARENT.fullmatch(traceparent):
        raise ValueError(f"trace_context needs a traceparent such as 00-<32 hex>-<16 hex>-01, not {traceparent!r}")
    return tuple((name, context[name]) for name in ("traceparent", "tracestate") if context.get(name))


def _check_word(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not _HEADER.fullmatch(name) or name.startswith("grpc-"):
            raise ValueError(
                f"headers: {name!r} is no name: use small letters, digits, '_', '-' and '.', not grpc- or -bin"
            )
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"headers: the value of {name!r} must be printable ASCII")
