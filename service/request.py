"""The values that travel: request, batch, completion, and the timeline that is stamped at every hand-over.

A `Request` is a frame (or a Triton request) after admission and decoding: the unit of batching, deadlines and errors.
It ends in exactly one `Completion`. A `Batch` is whole requests of one batch key executed together on one lane.

Ownership: a request belongs to one thread at a time and moves front end -> decode worker -> former -> stages ->
delivery -> front end. `is_cancelled` alone may be set by the front end at any time (one flag, read as a hint).
"""

import enum
import itertools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from forebay_server.engines.device import HostBuffer
from forebay_server.service.claim import Claim
from forebay_server.service.errors import ServiceError
from forebay_server.service.pictures.device_picture import DevicePicture
from forebay_server.service.pictures.preview import Preview

OutputArrays = tuple[NDArray[Any], ...]

next_request_id: Callable[[], int] = itertools.count(1).__next__
"""Numbers the requests of every protocol, because one former may serve all of them."""


class Delivery(enum.Enum):
    """Treatment of a waiting frame when a newer frame of its stream arrives."""

    LATEST = "latest"
    EVERY = "every"


class StreamKey:
    """The source of requests, as the former sees it: an identity, shared by all requests of one source.

    Fairness always counts per key. Order is kept among the requests of a key only where the source promises it: a
    stream of frames and a sequence do, the independent calls of one client do not.

    Attributes:
        name: the camera's name, for logs and metrics; not unique.
        delivery: a LATEST stream has at most one pending request, the newest.
        is_ordered: whether requests of this key go into batches in order of arrival; True for LATEST.
        weight: number of streams that this key counts as in shares.
    """

    __slots__ = ("__weakref__", "delivery", "is_ordered", "name", "weight")

    def __init__(self, name: str, delivery: Delivery, *, is_ordered: bool = True, weight: int = 1) -> None:
        self.name = name
        self.delivery = delivery
        self.is_ordered = is_ordered or delivery is Delivery.LATEST
        self.weight = weight


@dataclass(slots=True)
class Timeline:
    """Times (ns, the service's clock) and device durations (ns) of one request. Stamped once each, 0 until then.

    0 and not None: the observer reads the instants of many requests into one array of integers, and no request is
    received at 0 ns of the service's clock. Durations are computed here and nowhere else; the seven add up to
    `total_us` exactly, since every boundary is rounded to whole microseconds before differences are taken.
    """

    received_ns: int = 0  # read() returned
    validated_ns: int = 0  # header checked, about to wait for a decoder
    admitted_ns: int = 0  # in the frame arena, handed to the former
    formed_ns: int = 0  # in a batch
    readable_ns: int = 0  # outputs are in host memory; for a frame never executed, the time of that decision
    built_ns: int = 0  # result built
    h2d_ns: int = 0  # device durations
    execute_ns: int = 0
    d2h_ns: int = 0
    batch_id: int = 0  # of the batch that executed it; 0 for none

    def durations_us(self) -> "Durations":
        """Return the duration of each stage. A boundary that was never reached counts as the next one that was."""
        built = self.built_ns // 1000
        received = self.received_ns // 1000
        readable = self.readable_ns // 1000 or built
        admitted = self.admitted_ns // 1000 or readable
        validated = self.validated_ns // 1000 or admitted
        # Device and host clocks may disagree by microseconds: keep the host's span, and shorten execution first.
        queue = readable - admitted
        h2d = min(self.h2d_ns // 1000, queue)
        d2h = min(self.d2h_ns // 1000, queue - h2d)
        execute = min(self.execute_ns // 1000, queue - h2d - d2h)
        queue -= h2d + execute + d2h
        return Durations(
            receive=validated - received,
            decode=admitted - validated,
            queue=queue,
            h2d=h2d,
            execute=execute,
            d2h=d2h,
            deliver=built - readable,
            total=built - received,
        )


@dataclass(slots=True)
class Durations:
    """Stage durations in microseconds; all fields but `total` add up to `total`.

    Not frozen, although it never changes: one is built per frame, and a frozen one takes four times as long (3 µs).
    """

    receive: int
    decode: int
    queue: int
    h2d: int
    execute: int
    d2h: int
    deliver: int
    total: int


class FrameBuffer(Protocol):
    """A leased buffer of the frame arena that holds the inputs of one request, dense, in the model's order."""

    @property
    def host(self) -> HostBuffer:
        """The memory; inputs start at `offsets`."""
        ...

    @property
    def offsets(self) -> tuple[int, ...]:
        """Byte offset of each input."""
        ...

    @property
    def is_released(self) -> bool:
        """Whether the lease is over: the inputs are invalid then."""
        ...

    def release(self) -> None:
        """Return the lease, and the permit with it. Idempotent. Thread: any."""
        ...


@dataclass(slots=True, eq=False)
class Request:
    """One unit of batching.

    Attributes:
        id: unique in this process, rising in order of arrival.
        stream: the stream it came on.
        size: rows, 1 for a frame.
        batch_key: requests batch together only if their keys are equal (inner shapes and dtypes).
        deadline_ns: absolute time, or None for no deadline.
        arrival_ns: time at which its place in the order of arrival was taken.
        priority: 1 is the most urgent.
        frame: its inputs; released once they are uploaded, or when it ends without execution.
        on_completion: called once, on the event loop, with the completion.
        wants: requested contents of the result; opaque to the former and the pipeline, read by `service.results`.
        queue_timeout_ns: Triton's per-request timeout while pending, if any.
        is_retry: it failed in a batch with others and runs alone now.
        frame_size: (width, height) in pixels of the picture as sent; (0, 0) for tensors.
        picture: what the device of its batch decodes or converts (`service.pictures.device_picture`); None: its inputs
            are in its frame.
        preview: filled with its picture when it is decoded, for the operator's page; None: not wanted.
        fault: why its picture is wrong, found when its batch was uploaded; it ends so, and its batch goes on.
        counts_late: how it ends is counted by its front-end process, and not where it is executed.
    """

    id: int
    stream: StreamKey
    size: int
    batch_key: Hashable
    deadline_ns: int | None
    arrival_ns: int
    priority: int
    frame: FrameBuffer
    on_completion: "Callable[[Completion], None]"
    wants: Any = None
    queue_timeout_ns: int | None = None
    frame_size: tuple[int, int] = (0, 0)
    timeline: Timeline = field(default_factory=Timeline)
    picture: DevicePicture | None = None
    preview: Preview | None = None
    fault: ServiceError | None = None
    is_cancelled: bool = False
    is_retry: bool = False
    counts_late: bool = False

    def run_alone(self) -> None:
        """Make this request share a batch with no other, and wait for no other of its stream.

        Results still leave in the stream's order, which the session keeps.
        """
        self.is_retry = True
        self.batch_key = ("alone", self.id)
        self.stream = StreamKey(self.stream.name, Delivery.EVERY)


@dataclass(slots=True, eq=False)
class Completion:
    """How one request ended.

    Attributes:
        request: the request.
        error: None if it was executed and its outputs are valid.
        outputs: owned copies, one per model output wanted, shape (size, ...); None unless executed.
        result: typed result made from `outputs` by a results worker; None if only tensors were wanted.
        batch_size: rows of its batch as executed; 0 if it was not executed.
        model_version: the version that executed it; empty if it was not executed.
        encoded: `result` in the form of its protocol, if a worker has encoded it; else None.
    """

    request: Request
    error: ServiceError | None = None
    outputs: OutputArrays | None = None
    result: Any = None
    batch_size: int = 0
    model_version: str = ""
    encoded: bytes | None = None


class CompletionSink(Protocol):
    """Receives completions and passes them towards the event loop. Thread: any. Blocks: no."""

    def post(self, completions: Sequence[Completion]) -> None:
        """Pass on completions; one wake-up of the loop per call at most."""
        ...


@dataclass(slots=True, eq=False)
class Batch:
    """Whole requests of one batch key in one slot.

    Attributes:
        id: unique in this process, rising in the order of forming.
        lane_index: the lane that runs it.
        slot_index: the slot of that lane.
        requests: in the order of their rows.
        rows: sum of the requests' sizes.
        executed_rows: rows that the engine runs, >= rows when padded to a captured size.
        formed_ns: time of forming.
        bind_by_ns: time at which late binding planned the start of its upload; 0 if it was formed for another reason.
        upload_started_ns: time at which the upload stage took it up, on the host's clock; 0 before.
        is_alone: its lane was empty when it was formed.
        is_quick: it is alone, and its upload and execution are expected to take less time than a hand-over.
        claim: the right to its requests. A lane touches them only while it holds the claim.
        limits_ns: the former's: the earliest queue timeout and the earliest deadline of its requests, once computed.
    """

    id: int
    lane_index: int
    slot_index: int
    requests: Sequence[Request]
    rows: int
    executed_rows: int
    formed_ns: int
    bind_by_ns: int = 0
    upload_started_ns: int = 0
    is_alone: bool = False
    is_quick: bool = False
    error: ServiceError | None = None
    claim: Claim = field(default_factory=Claim)
    limits_ns: tuple[int, int] | None = None


TRUSTED_NS = 1_000_000_000
"""Time after an execution during which admission refuses by estimates; later only the former does, which may try."""


class Feasibility(NamedTuple):
    """Immutable snapshot that the former publishes for admission, one attribute swap per change. Thread: any reads it.

    Attributes:
        least_service_ns: h(1) + t(1) + d(1): the least that a lone request needs; 0 while nothing is known.
        egress_ns: duration of egress; 0 while the executor is idle: without a run nothing could correct it.
        executed_ns: when a batch was executed, to a quarter of TRUSTED_NS; by default never too long ago.
    """

    least_service_ns: int = 0
    egress_ns: int = 0
    executed_ns: int = 1 << 62

    def is_hopeless(self, now_ns: int, deadline_ns: int | None, decode_ns: int) -> bool:
        """Whether a request that still needs `decode_ns` of decoding cannot meet its deadline even alone."""
        if deadline_ns is None:
            return False
        ready_ns = now_ns + decode_ns
        if now_ns - self.executed_ns > TRUSTED_NS:
            return ready_ns > deadline_ns
        return ready_ns + self.least_service_ns + self.egress_ns > deadline_ns
