"""The generator's interface to a server's protocol: open streams, send frames, receive one answer for each.

`loadtest.client` implements it for forebay.v1; another protocol is another implementation and nothing else changes. No
vendor import here. All methods run on the event loop's thread.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NamedTuple, Protocol

# Stage durations that a server may report, in the order in which a frame passes them.
STAGES = ("receive", "decode", "queue", "h2d", "execute", "d2h", "deliver")


class Outcome(IntEnum):
    """How one frame ended, or its current state; stored as one byte per frame."""

    QUEUED = 0  # offered, not yet handed to the connection
    SENT = 1  # handed to the connection, no answer yet
    OK = 2
    SUPERSEDED = 3
    EXPIRED = 4
    OVERLOADED = 5
    INVALID = 6
    FAILED = 7
    CANCELLED = 8
    LOST = 9  # sent and never answered
    CLIENT_DROPPED = 10  # never sent: the client's own policy gave the frame up
    NEEDS_KEYFRAME = 11  # of video; counted as failed


class Protocols(StrEnum):
    """Wire protocols that can be measured."""

    FOREBAY = "forebay"
    OPEN_INFERENCE_STREAM = "oip-stream"  # ModelStreamInfer
    OPEN_INFERENCE_UNARY = "oip-unary"  # ModelInfer


class Encoding(StrEnum):
    """How frames are encoded on the wire."""

    JPEG = "jpeg"
    PNG = "png"
    RGB8 = "rgb8"
    BGR8 = "bgr8"
    NV12 = "nv12"
    MONO8 = "mono8"
    H264 = "h264"
    H265 = "h265"
    TENSOR = "tensor"


class Delivery(StrEnum):
    """The server's treatment of a waiting frame when a newer one arrives."""

    LATEST = "latest"
    EVERY = "every"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSpec:
    """The server's address and the properties of the streams."""

    address: str = "127.0.0.1:8001"
    protocol: Protocols = Protocols.FOREBAY
    model: str = "detector"
    version: str = ""
    encoding: Encoding = Encoding.JPEG
    width: int = 0
    height: int = 0
    shape: tuple[int, ...] = ()  # TENSOR: of the first input; empty: the model's
    budget_ms: float | None = None
    delivery: Delivery = Delivery.LATEST
    window: int = 0  # frames in flight to ask for; 0: the server's default
    priority: int = 0
    connections: int = 0  # 0: one per stream, at most 64
    ca_file: str = ""  # PEM; empty: no TLS
    connect_timeout_s: float = 5.0


class Answer(NamedTuple):
    """The server's answer about one frame."""

    seq: int
    outcome: Outcome
    capture_time_us: int  # echoed
    stages_us: tuple[int, ...]  # one per STAGES, then the server's total; empty if not reported
    late_by_us: int
    batch_size: int


class Moved(NamedTuple):
    """The server asks for a new stream: half-close this one, read its answers, send the next frame on another."""

    reason: str


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """The server's description of itself when a stream was opened."""

    model: str
    model_version: str
    delivery: str
    window: int
    budget_ms: float
    input_bytes: int  # of one TENSOR frame; 0 if a dimension varies


class TargetStream(Protocol):
    """One open stream. One sender and one receiver at a time."""

    @property
    def info(self) -> TargetInfo:
        """The server's grant."""
        ...

    async def send(self, seq: int, capture_time_us: int, payload: bytes) -> None:
        """Hand one frame to the connection; waits while flow control holds it back. Raises StreamBrokenError."""
        ...

    async def receive(self) -> Answer | Moved | None:
        """Return the next answer, None at the end of the stream. Raises StreamBrokenError, GarbageError."""
        ...

    async def finish(self) -> None:
        """Half-close: no more frames will be sent."""
        ...

    def cancel(self) -> None:
        """Abort the stream at once."""
        ...


class Target(Protocol):
    """A server under test."""

    async def open(self, stream_id: str, resume_from: int | None = None) -> TargetStream:
        """Open a stream. Raises CannotConnectError, whose text says whether the server is missing or refuses."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
