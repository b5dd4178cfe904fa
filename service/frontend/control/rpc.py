"""Makes handlers of grpc.aio from functions of messages, for all RPCs except those of inference.

Thread: the event loop's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import grpc

from forebay_server.service.frontend.messages import MessageError, parse
from forebay_server.service.frontend.open_inference.errors import answer_to
from forebay_server.service.frontend.statuses import StatusError

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
LONG_BYTES = 1 << 20  # a message of this size is parsed in a tenth of a millisecond
Rpc: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class OfPeer:
    """An RPC that also needs the peer: `rpc(message, peer)`."""

    rpc: Callable[[Any, str], Any]


@dataclass(frozen=True, slots=True)
class OfLongMessage:
    """An RPC whose request may have many bytes, though few fields: `rpc(message)`."""

    rpc: Rpc


class RpcGroup(Protocol):
    """A group of RPCs of the service."""

    def rpcs(self) -> Mapping[str, tuple["Rpc | OfPeer | OfLongMessage", Any]]:
        """Return, by name, a function from message to message (or to an awaitable of one), and the request's class."""
        ...


def handler_of(
    rpc: Rpc | OfPeer | OfLongMessage,
    request: Any,  # noqa: ANN401 - a message class
) -> "grpc.RpcMethodHandler[Any, Any]":
    """Make grpc.aio's handler of a function from message to message, or to an awaitable of one."""
    may_be_long = isinstance(rpc, OfLongMessage)

    async def handle(data: bytes, context: Context) -> Any:  # noqa: ANN401 - a message
        try:
            # Here, because gRPC reports UNKNOWN for a message that it cannot parse, and parses any message.
            if len(data) > LONG_BYTES:  # a thread of its own: parsing copies every byte
                message = await asyncio.to_thread(parse, request, data, may_be_long=may_be_long)
            else:
                message = parse(request, data, may_be_long=may_be_long)
            answer = _answer_of(rpc, message, context)
            return await answer if isinstance(answer, Awaitable) else answer
        except MessageError as error:
            raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from None
        except Exception as error:  # noqa: BLE001 - no call may end UNKNOWN
            raise answer_to(error) from None

    return grpc.unary_unary_rpc_method_handler(handle, response_serializer=lambda message: message.SerializeToString())


def _answer_of(rpc: Rpc | OfPeer | OfLongMessage, message: Any, context: Context) -> Any:  # noqa: ANN401 - messages
    if isinstance(rpc, OfPeer):
        return rpc.rpc(message, context.peer())
    return rpc.rpc(message) if isinstance(rpc, OfLongMessage) else rpc(message)
