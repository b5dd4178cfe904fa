"""Open, checked: converts a client's requests to the constant facts of its stream. Pure."""

import math
from dataclasses import dataclass

from forebay.encodings import LAYOUTS, Layout
from forebay.wire import frames_pb2 as pb
from forebay_server.service.errors import InvalidSessionError, UnsupportedError
from forebay_server.service.frontend.frames.decode.pictures import ENCODINGS
from forebay_server.service.frontend.frames.track_request import TrackRequest, track_request
from forebay_server.service.frontend.frames.typed import encode_large
from forebay_server.service.frontend.frames.video.request import CODECS, VideoRequest, video_request
from forebay_server.service.models.served import FindModel, ServedVersion
from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.request import Delivery
from forebay_server.service.results.options import MaskFormat, ResultOptions
from forebay_server.service.results.task import DetectionTask, Task
from forebay_server.service.results.wants import Wants
from forebay_server.service.settings import ServeSettings

MAX_STREAM_ID_BYTES = 256
MAX_SIDE_PIXELS = 65535
MAX_OUTPUTS = 16  # there are three kinds, which may be repeated
MAX_SHOWN, MAX_SHOWN_DIMENSIONS = 64, 8  # characters and numbers of a client's own in a message; every model has fewer
DEFAULT_WINDOW = 16  # frames in flight of a stream that requests no number; a client may request another
MAX_BUDGET_MS = 3_600_000.0  # an hour: anything longer is a mistake in the unit
_MASKS: dict[int, MaskFormat] = {
    pb.MASK_FORMAT_UNSPECIFIED: "none",
    pb.MASK_FORMAT_POLYGONS: "polygons",
    pb.MASK_FORMAT_RUN_LENGTHS: "run_lengths",
}
FRAME_OVERHEAD_BYTES = 64  # tags, lengths and four numbers around a payload have 47 at most
LEAST_DEFAULT_BUDGET_NS = 100_000_000  # docs/batching.md: max(100 ms, 3 times the service time of one frame)


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """The constant facts of a stream.

    Attributes:
        stream_id: the camera's name.
        version: the model version that serves it.
        encoding: forebay.v1 Encoding.
        size: (width, height) of frames where it does not vary; (0, 0) otherwise.
        payload_bytes: exact payload size, or None if it varies (JPEG, PNG).
        image: target of decoding; None for TENSOR.
        budget_ns: default latency budget, None for no deadline.
        delivery: LATEST or EVERY.
        window: granted frames in flight.
        priority: 1 is the most urgent.
        first_seq: lower ones are INVALID.
        wants: requested contents of a result.
        allows_picture: whether the operator may look at its latest frame.
        tracks: how its objects are tracked; None if they are not.
        is_resumed: whether its client had one before.
        video: how its frames are decoded; None if they are no video.
    """

    stream_id: str
    version: ServedVersion
    encoding: int
    size: tuple[int, int]
    payload_bytes: int | None
    image: PictureInput | None
    budget_ns: int | None
    delivery: Delivery
    window: int
    priority: int
    first_seq: int
    wants: Wants
    allows_picture: bool
    tracks: TrackRequest | None = None
    is_resumed: bool = False
    video: VideoRequest | None = None

    @property
    def budget_ms(self) -> float | None:
        """The default latency budget; None for no deadline."""
        return None if self.budget_ns is None else self.budget_ns / 1e6

    @property
    def finds_objects(self) -> bool:
        """Whether its results are detections."""
        return self.wants.options is not None and isinstance(self.version.description.task, DetectionTask)


def accept_open(request: pb.Open, find_model: FindModel, settings: ServeSettings) -> StreamConfig:
    """Check Open and settle every default.

    Raises:
        UnknownModelError, NotReadyError: from `find_model`.
        InvalidSessionError: a field is missing or invalid.
        UnsupportedError: an encoding or output that this model does not offer.
    """
    if not 1 <= len(request.stream_id.encode()) <= MAX_STREAM_ID_BYTES:
        raise InvalidSessionError(f"open.stream_id must have 1 to {MAX_STREAM_ID_BYTES} bytes: name the camera")
    if not request.model:
        raise InvalidSessionError("open.model is empty: name a model")
    version = find_model(request.model, request.version)
    delivery = _delivery(request)
    size, payload_bytes = _payload(request, version, settings.max_image_pixels)
    if payload_bytes is not None and payload_bytes + FRAME_OVERHEAD_BYTES > settings.max_message_bytes:
        ways = "raise" if request.encoding == pb.ENCODING_TENSOR else "send JPEG, or raise"
        raise InvalidSessionError(
            f"a frame of this stream has {payload_bytes} bytes, and messages may have {settings.max_message_bytes}: "
            f"{ways} max_message_bytes of the server"
        )
    video = video_request(request)
    wanted = request.max_in_flight or DEFAULT_WINDOW
    if video is not None:
        wanted = video.window(wanted)
    wants = _wants(request, version)
    tracks = None
    if request.track:
        tracks, wants = track_request(version, wants, request.track_state)
    return StreamConfig(
        stream_id=request.stream_id,
        version=version,
        encoding=request.encoding,
        size=size,
        payload_bytes=payload_bytes,
        image=None if request.encoding == pb.ENCODING_TENSOR else version.description.image,
        budget_ns=_budget_ns(request, delivery, version),
        delivery=delivery,
        window=min(wanted, settings.max_window),
        priority=request.priority or version.description.batching.default_priority,
        first_seq=request.resume_from if request.HasField("resume_from") else 0,
        wants=wants,
        allows_picture=settings.allow_pictures and request.allow_picture and request.encoding != pb.ENCODING_TENSOR,
        tracks=tracks,
        is_resumed=request.HasField("resume_from"),
        video=video,
    )


def encoding_name(encoding: int) -> str:
    """Return the word for a forebay.v1 Encoding, as on the command line."""
    return pb.Encoding.Name(encoding).removeprefix("ENCODING_").lower()


def budget_ms_to_ns(budget_ms: float, what: str) -> int:
    """Convert a latency budget. Raises InvalidSessionError if it is not a number from 0 to an hour."""
    if math.isnan(budget_ms) or not 0 <= budget_ms <= MAX_BUDGET_MS:
        raise InvalidSessionError(f"{what} is {budget_ms:g} ms; give 0 to {MAX_BUDGET_MS:g}")
    return int(budget_ms * 1e6)


def _delivery(request: pb.Open) -> Delivery:
    if request.delivery not in pb.Delivery.values():
        raise InvalidSessionError(f"open.delivery is {request.delivery}; give LATEST or EVERY")
    return Delivery.EVERY if request.delivery == pb.DELIVERY_EVERY else Delivery.LATEST


def _budget_ns(request: pb.Open, delivery: Delivery, version: ServedVersion) -> int | None:
    if request.HasField("latency_budget_ms"):
        return budget_ms_to_ns(request.latency_budget_ms, "open.latency_budget_ms")
    if delivery is Delivery.EVERY:
        return None
    if version.description.latency_budget_ms is not None:
        return int(version.description.latency_budget_ms * 1e6)
    return max(LEAST_DEFAULT_BUDGET_NS, 3 * version.feasibility.least_service_ns)


def _payload(request: pb.Open, version: ServedVersion, max_pixels: int) -> tuple[tuple[int, int], int | None]:
    encoding = request.encoding
    if not version.specs.is_fixed:
        raise UnsupportedError(
            f"model {version.name!r} has tensors of shapes that vary; the Open Inference Protocol serves it"
            f"{_how(version)}"
        )
    if encoding == pb.ENCODING_TENSOR:
        _check_tensor_shape(request, version)
        image = version.description.image
        size = (0, 0) if image is None else (image.width, image.height)
        return size, sum(spec.row_bytes for spec in version.specs.inputs)
    if encoding not in ENCODINGS and encoding not in CODECS:
        known = (*ENCODINGS, *CODECS)
        names = ", ".join(sorted(pb.Encoding.Name(each).removeprefix("ENCODING_") for each in known))
        raise InvalidSessionError(f"open.encoding is missing or unknown: give TENSOR or one of {names}")
    if version.description.image is None:
        raise UnsupportedError(f"model {version.name!r} takes no pictures; send TENSOR{_how(version)}")
    layout = LAYOUTS.get(encoding)
    if layout is None:
        return (0, 0), None
    size = _checked_size(request, layout, max_pixels)
    return size, layout.nbytes(*size)


def _how(version: ServedVersion) -> str:
    """Name the parameters with which the model would take pictures, if they are known."""
    question = version.description.question
    return f". For pictures, {question}" if question else ""


def _check_tensor_shape(request: pb.Open, version: ServedVersion) -> None:
    first = version.specs.inputs[0]
    shape = tuple(request.shape[: MAX_SHOWN_DIMENSIONS + 1])  # a client may send thousands
    if shape and shape != first.shape:
        shown = ", ".join(str(dim) for dim in shape[:MAX_SHOWN_DIMENSIONS])
        more = ", ..." if len(shape) > MAX_SHOWN_DIMENSIONS else ""
        raise InvalidSessionError(f"open.shape is [{shown}{more}]; input {first.name!r} takes {list(first.shape)}")


def _checked_size(request: pb.Open, layout: Layout, max_pixels: int) -> tuple[int, int]:
    width, height = request.width, request.height
    if not (1 <= width <= MAX_SIDE_PIXELS and 1 <= height <= MAX_SIDE_PIXELS):
        raise InvalidSessionError(
            f"open.width and open.height are {width}x{height}; uncompressed frames need 1 to {MAX_SIDE_PIXELS} each"
        )
    if width * height > max_pixels:
        raise InvalidSessionError(
            f"frames of {width}x{height} pixels exceed the limit of {max_pixels}; send them smaller"
        )
    if fault := layout.fault(width, height):
        raise InvalidSessionError(f"{pb.Encoding.Name(request.encoding).removeprefix('ENCODING_')} {fault}")
    return width, height


def _wants(request: pb.Open, version: ServedVersion) -> Wants:
    task = version.description.task
    typed = None if task is None else _typed_output(task)
    if len(request.outputs) > MAX_OUTPUTS:
        raise InvalidSessionError(f"open.outputs has {len(request.outputs)} entries; give at most {MAX_OUTPUTS}")
    outputs: set[int] = set(request.outputs) or {typed or pb.OUTPUT_TENSORS}
    for output in outputs - {typed, pb.OUTPUT_TENSORS}:
        name = pb.Output.Name(output) if output in pb.Output.values() else str(output)
        raise UnsupportedError(f"open.outputs: model {version.name!r} does not give {name}")
    options = _result_options(request) if typed in outputs else None
    indices = _tensor_indices(request, version) if pb.OUTPUT_TENSORS in outputs else ()
    return Wants(options, indices, encode_large)


def _typed_output(task: Task) -> int:
    return pb.OUTPUT_DETECTIONS if isinstance(task, DetectionTask) else pb.OUTPUT_CLASSES


def _result_options(request: pb.Open) -> ResultOptions:
    for name in ("score_threshold", "iou_threshold"):
        value = getattr(request, name)
        if request.HasField(name) and not 0 <= value <= 1:
            raise InvalidSessionError(f"open.{name} is {value:g}; give 0 to 1")
    if request.masks not in _MASKS:
        raise InvalidSessionError(f"open.masks is {request.masks}; give POLYGONS or RUN_LENGTHS, or leave it out")
    return ResultOptions(
        score_threshold=request.score_threshold if request.HasField("score_threshold") else None,
        iou_threshold=request.iou_threshold if request.HasField("iou_threshold") else None,
        max_results=request.max_results,
        masks=_MASKS[request.masks],
    )


def _tensor_indices(request: pb.Open, version: ServedVersion) -> tuple[int, ...]:
    names = [spec.name for spec in version.specs.outputs]
    if not request.tensor_names:
        return tuple(range(len(names)))
    if len(request.tensor_names) > len(names):
        raise InvalidSessionError(
            f"open.tensor_names has {len(request.tensor_names)} entries; model {version.name!r} has only {names}"
        )
    for name in request.tensor_names:
        if name not in names:
            raise InvalidSessionError(
                f"open.tensor_names: model {version.name!r} has no output {name[:MAX_SHOWN]!r}, only {names}"
            )
    return tuple(names.index(name) for name in request.tensor_names)
