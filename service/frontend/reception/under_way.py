"""The calls in progress: their peers, and whether they began before a drain.

Theory of operation
    When gRPC's server stops it closes the listener and notifies every connection (GOAWAY). A call that arrives before
    its client has read that is cancelled by gRPC itself: its client sees CANCELLED, which means that the client gave
    up. grpc.aio cannot send the notification first. So idle connections are closed before: a client that called there
    meanwhile sees UNAVAILABLE and tries another server (docs/adr/0087).

    The kernel and the calls' peers together identify the idle connections. A call ends with its handler's task, which
    waits until the transport has taken the answer.

Owner: the event loop's thread.
"""

import asyncio
from typing import Any

from forebay_server.service.frontend.handlers import Context, GenericHandler, Handler, RpcHandler, Wrapped

MOMENT_S = 0.001
MOST_MOMENTS = 100  # a server that never catches up is overloaded, and its clients see worse


class CallsUnderWay:
    """See the module."""

    def __init__(self) -> None:
        self._requests: dict[asyncio.Task[Any], str] = {}  # single requests, with their peers
        self._streams: dict[asyncio.Task[Any], str] = {}
        self._came = 0

    def noted(self, generic: GenericHandler) -> GenericHandler:
        """Return a handler whose calls are recorded while they are in progress."""
        return Wrapped(generic, self._noted)

    def _noted(self, handler: RpcHandler) -> RpcHandler:
        for kind in ("unary_unary", "unary_stream", "stream_stream"):
            inner = getattr(handler, kind)
            if inner is not None:
                handler = handler._replace(**{kind: self._noted_call(inner, is_stream=kind != "unary_unary")})
        return handler

    def _noted_call(self, inner: Handler, *, is_stream: bool) -> Handler:
        async def call(request: Any, context: Context) -> Any:  # noqa: ANN401 - bytes, or an iterator
            self.note(context, is_stream=is_stream)
            return await inner(request, context)

        return call

    def note(self, context: Context, *, is_stream: bool) -> None:
        """Record the call of the calling handler."""
        task = asyncio.current_task()
        if task is not None:
            peers = self._streams if is_stream else self._requests
            peers[task] = context.peer()
            task.add_done_callback(peers.pop)
        self._came += 1

    async def settle(self, timeout_s: float) -> set[str]:
        """Wait until the single requests in progress have been answered; return the peers of calls that go on.

        Later requests do not count: they are refused. gRPC would cancel requests that it has not handed over yet, so
        the wait ends at a moment in which none comes.
        """
        before = set(self._requests)
        if before:
            _, before = await asyncio.wait(before, timeout=timeout_s)
        for _ in range(MOST_MOMENTS):
            came = self._came
            await asyncio.sleep(MOMENT_S)
            if came == self._came:
                break
        return {self._requests[task] for task in before if not task.done()} | set(self._streams.values())
