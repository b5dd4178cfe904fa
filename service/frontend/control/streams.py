"""forebay.v1.StreamControl: lists the open streams, and asks some of them to go to other servers.

Both concern the streams of all clients. So where their category is not restricted, only clients on this machine may
call.

Thread: the event loop's.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc

from forebay.wire import streams_pb2 as pb
from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.connections import is_of_this_machine
from forebay_server.service.frontend.control.rpc import OfLongMessage, OfPeer, Rpc, RpcGroup, handler_of
from forebay_server.service.frontend.open_inference.errors import InferenceError
from forebay_server.service.load.listing import Listing, StreamLine

SERVICE: Final = "forebay.v1.StreamControl"
NOT_FROM_HERE: Final = (
    "calls about the streams of all clients are for this server's machine; for others the operator has to restrict the "
    "category streams (restricted_protocol streams:KEY=VALUE), and the caller to bring the header"
)


def stream_control_handler(group: RpcGroup, *, is_restricted: bool) -> "grpc.GenericRpcHandler[Any, Any]":
    """Return the handler for grpc.aio. `is_restricted`: calls that come here have brought the secret in a header."""
    rpcs = {
        name: (rpc if is_restricted else _for_this_machine(rpc), request)
        for name, (rpc, request) in group.rpcs().items()
    }
    return grpc.method_handlers_generic_handler(
        SERVICE, {name: handler_of(rpc, request) for name, (rpc, request) in rpcs.items()}
    )


def _for_this_machine(rpc: Rpc | OfPeer | OfLongMessage) -> OfPeer:
    assert not isinstance(rpc, OfPeer | OfLongMessage)  # noqa: S101 - of this service none is

    def call(message: Any, peer: str) -> Any:  # noqa: ANN401 - messages
        if not is_of_this_machine(peer):
            raise InferenceError(grpc.StatusCode.PERMISSION_DENIED, NOT_FROM_HERE)
        return rpc(message)

    return OfPeer(call)


class StreamRpcs:
    """See the module.

    Args:
        listing: returns the open streams of the server.
        move: asks so many streams to go to other servers; returns how many could be asked.
    """

    def __init__(
        self, listing: Callable[[], Listing | Awaitable[Listing]], move: Callable[[int], int | Awaitable[int]]
    ) -> None:
        self._listing = listing
        self._move = move

    def rpcs(self) -> dict[str, tuple[Rpc, Any]]:
        """Return the RPCs by name."""
        return {
            "ListStreams": (self.list_streams, pb.ListStreamsRequest),
            "MoveStreams": (self.move_streams, pb.MoveStreamsRequest),
        }

    async def list_streams(self, _: pb.ListStreamsRequest) -> pb.ListStreamsResponse:
        """Answer with the open streams."""
        found = self._listing()
        listing = await found if isinstance(found, Awaitable) else found
        return pb.ListStreamsResponse(
            streams=map(_message_of, listing.streams), count=listing.count, inference_streams=listing.inference
        )

    async def move_streams(self, request: pb.MoveStreamsRequest) -> pb.MoveStreamsResponse:
        """Ask streams to leave. Raises InvalidRequestError."""
        if not request.count:
            raise InvalidRequestError("count is 0; give the number of streams that are to go to other servers")
        asked = self._move(request.count)
        return pb.MoveStreamsResponse(asked=await asked if isinstance(asked, Awaitable) else asked)


def _message_of(line: StreamLine) -> pb.OpenStream:
    return pb.OpenStream(
        stream_id=line.stream_id,
        model=line.model,
        model_version=line.version,
        placement=f"PLACEMENT_{line.placement.name}",
        load=line.load,
        age_s=line.age_s,
        frames=line.frames,
        has_state=line.has_state,
        is_resumed=line.is_resumed,
        front_end=line.front_end,
    )
