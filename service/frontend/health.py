"""grpc.health.v1: whether the server, and each model, takes streams. The empty name stands for the whole server.

The servicer of grpcio-health-checking keeps a Watch open until its client leaves, so that one watching client would
delay every shutdown for the whole grace. Here a watch ends after the final NOT_SERVING.

Owner: the event loop's thread.
"""

import asyncio
from typing import Any, TypeAlias

import grpc

from forebay.wire import health_pb2
from forebay_server.service.frontend.messages import MessageError, parse
from forebay_server.service.frontend.statuses import StatusError

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
SERVICE = "grpc.health.v1.Health"
_Status = health_pb2.HealthCheckResponse


class HealthServicer:
    """See the module.

    Messages are parsed here, because gRPC reports UNKNOWN, with a library's message, for invalid ones.
    """

    def __init__(self) -> None:
        self._statuses: dict[str, health_pb2.HealthCheckResponse.ServingStatus] = {"": _Status.NOT_SERVING}
        self._changed = asyncio.Event()  # set, and replaced, at every change
        self._is_draining = False

    def set(self, service: str, *, is_serving: bool) -> None:
        """Publish the health of a model, or of the whole server with an empty name. Without effect after `drain`."""
        if not self._is_draining:
            self._statuses[service] = _Status.SERVING if is_serving else _Status.NOT_SERVING
            self._wake()

    def drain(self) -> None:
        """Set everything to NOT_SERVING for good, and end the watches. Idempotent."""
        self._is_draining = True
        self._statuses = dict.fromkeys(self._statuses, _Status.NOT_SERVING)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def handler(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """Return the handler for grpc.aio."""
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(self.check),
            "List": grpc.unary_unary_rpc_method_handler(self.list),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def check(self, data: bytes, _: Context) -> bytes:
        """Answer once. Raises StatusError."""
        name = _service_of(data)
        status = self._statuses.get(name)
        if status is None:
            raise StatusError(grpc.StatusCode.NOT_FOUND, f"no model {name[:128]!r} here")
        return _Status(status=status).SerializeToString()

    async def list(self, _: bytes, __: Context) -> bytes:
        """Answer for the server and every model."""
        statuses = {name: _Status(status=status) for name, status in self._statuses.items()}
        return health_pb2.HealthListResponse(statuses=statuses).SerializeToString()

    async def watch(self, data: bytes, context: Context) -> None:
        """Answer now and at every change. Raises StatusError."""
        name = _service_of(data)
        told = None
        while True:
            changed, is_last = self._changed, self._is_draining
            status = self._statuses.get(name, _Status.SERVICE_UNKNOWN)
            if status != told:
                await context.write(_Status(status=status).SerializeToString())
                told = status
            if is_last:
                return
            if changed is self._changed:  # no change while it wrote
                await changed.wait()


def _service_of(data: bytes) -> str:
    try:
        return parse(health_pb2.HealthCheckRequest, data).service
    except MessageError as error:
        raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from None
