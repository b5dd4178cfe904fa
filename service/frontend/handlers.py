"""The lookup of handlers by grpc.aio, and wrappers around Forebay's handlers.

Owner: the event loop's thread.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = Callable[[Any, Context], Any]
RpcHandler: TypeAlias = Any  # grpc.RpcMethodHandler, a named tuple, which the stubs do not declare
GenericHandler: TypeAlias = "grpc.GenericRpcHandler[Any, Any]"
if TYPE_CHECKING:
    GenericBase = grpc.GenericRpcHandler[Any, Any]
else:
    GenericBase = grpc.GenericRpcHandler


class Wrapped(GenericBase):
    """The handlers of a service, each in a wrapper that is made once.

    Args:
        generic: the service.
        wrap: returns the wrapper of one method's handler.
    """

    def __init__(self, generic: GenericHandler, wrap: Callable[[RpcHandler], RpcHandler]) -> None:
        self._generic = generic
        self._wrap = wrap
        self._made: dict[str, RpcHandler] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> RpcHandler | None:
        """Return the handler of a call; grpc.aio asks every handler group."""
        method = handler_call_details.method
        if method not in self._made:
            handler = self._generic.service(handler_call_details)
            if handler is None:  # belongs to another service
                return None
            self._made[method] = self._wrap(handler)
        return self._made[method]


class EveryMethod(GenericBase):
    """Gives the calls of all methods to one handler. Put after the services, it gets calls of unknown methods."""

    def __init__(self, handler: Handler) -> None:
        self._handler = grpc.stream_stream_rpc_method_handler(handler)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> RpcHandler:  # noqa: ARG002 - all alike
        """Return the handler of a call."""
        return self._handler
