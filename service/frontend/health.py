"""grpc.health.v1: whether the server, and each model, takes streams. The empty name stands for the whole server.

The servicer of grpcio-health-checking keeps a Watch open until its client leaves, so that one watching client would
hold up every shutdown for the whole grace. Here a watch ends once it has been told NOT_SERVING for good.

Owner: the event loop's thread.
"""

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_Status = health_pb2.HealthCheckResponse


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # no stubs
    """See the module."""

    def __init__(self) -> None:
        self._statuses: dict[str, int] = {"": _Status.NOT_SERVING}
        self._changed = asyncio.Event()  # set, and replaced, at every change
        self._is_draining = False

    def set(self, service: str, *, is_serving: bool) -> None:
        """Publish the health of a model, or of the whole server with an empty name. Without effect after `drain`."""
        if not self._is_draining:
            self._statuses[service] = _Status.SERVING if is_serving else _Status.NOT_SERVING
            self._wake()

    def drain(self) -> None:
        """Everything is NOT_SERVING from now on, and watches end. Idempotent."""
        self._is_draining = True
        self._statuses = dict.fromkeys(self._statuses, _Status.NOT_SERVING)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802 - generated names without stubs
        """Answer once."""
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.service[:128]!r} here")
        return _Status(status=status)

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: ANN401, N802
        """Answer now and at every change."""
        told = None
        while True:
            changed = self._changed
            status = self._statuses.get(request.service, _Status.SERVICE_UNKNOWN)
            if status != told:
                await context.write(_Status(status=status))
                told = status
            if self._is_draining:
                return
            if changed is self._changed:  # nothing changed while it wrote
                await changed.wait()
