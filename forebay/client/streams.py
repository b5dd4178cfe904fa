"""The open streams of a server, and sending some of them to other servers: for those who run servers.

The messages are imported when they are needed: a program that only streams has none of them.
"""

from dataclasses import dataclass
from typing import Literal

from forebay.client.errors import ForebayError

LIST_METHOD = "/forebay.v1.StreamControl/ListStreams"
MOVE_METHOD = "/forebay.v1.StreamControl/MoveStreams"
Placement = Literal["movable", "leaving", "stays", "local", "unspecified"]


@dataclass(frozen=True, slots=True)
class OpenStream:
    """One open stream of frames.

    Attributes:
        camera: its name.
        model: that it uses.
        version: of the model.
        placement: "movable"; or "leaving": it was asked already; "stays": it came from another server, or came back,
            less than a minute ago; "local": it came over the unix socket.
        load: share of one model instance's time that its frames took in the last seconds, from 0 to 1.
        age_s: since the server opened it.
        frames: received by this server.
        has_state: tracks or video: asked after all others.
        is_resumed: it came from another server, or came back to this one.
        front_end: number of its front-end process; 0 where there is one process.
    """

    camera: str
    model: str
    version: str
    placement: Placement
    load: float
    age_s: float
    frames: int
    has_state: bool
    is_resumed: bool
    front_end: int


@dataclass(frozen=True, slots=True)
class StreamList:
    """The open streams of one server.

    Attributes:
        server: its address.
        streams: at most 1000, in the order in which they would be asked to move.
        count: of all streams of frames.
        inference_streams: open streams of the Open Inference Protocol, which cannot be asked to move.
        error: UnreachableError or CallRefusedError of a server that has not answered; its other fields are empty, or 0.
    """

    server: str
    streams: tuple[OpenStream, ...]
    count: int
    inference_streams: int
    error: ForebayError | None = None


def list_request() -> bytes:
    """Return the encoded request for the open streams."""
    from forebay.wire import streams_pb2 as wire

    return wire.ListStreamsRequest().SerializeToString()


def list_of(server: str, answer: bytes | ForebayError) -> StreamList:
    """Return the streams of an encoded response of a server, or of the error in its place."""
    from forebay.wire import streams_pb2 as wire

    if isinstance(answer, ForebayError):
        return StreamList(server, (), 0, 0, answer)
    response = wire.ListStreamsResponse.FromString(answer)
    streams = tuple(
        OpenStream(
            item.stream_id,
            item.model,
            item.model_version,
            _placement(item.placement),
            item.load,
            item.age_s,
            item.frames,
            item.has_state,
            item.is_resumed,
            item.front_end,
        )
        for item in response.streams
    )
    return StreamList(server, streams, response.count, response.inference_streams)


def move_request(count: int) -> bytes:
    """Return the encoded request to move so many streams. Raises ValueError."""
    from forebay.wire import streams_pb2 as wire

    if not 0 < count < 1 << 32:
        text = "give the number of streams that are to go to other servers, 1 to 4294967295"
        raise ValueError(f"count is {count}; {text}")
    return wire.MoveStreamsRequest(count=count).SerializeToString()


def moved_of(data: bytes) -> int:
    """Return how many streams were asked, of an encoded response."""
    from forebay.wire import streams_pb2 as wire

    return wire.MoveStreamsResponse.FromString(data).asked


def _placement(value: int) -> Placement:
    names: tuple[Placement, ...] = ("unspecified", "movable", "leaving", "stays", "local")
    return names[value] if 0 <= value < len(names) else "unspecified"
