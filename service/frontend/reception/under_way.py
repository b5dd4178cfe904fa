"""The calls that are under way: whose they are, and which of them were there before a drain began.

Theory of operation
    When gRPC's server stops it closes the listener and tells every connection so (GOAWAY). A call that arrives between
    that and the client's knowing of it is cancelled by gRPC itself: its client sees CANCELLED, which says that it gave
    up. Nothing of grpc.aio sends the word first. So connections on which nothing goes on are closed before: whoever
    called there meanwhile sees UNAVAILABLE and tries another server (docs/adr/0087).

    Which connections those are, the kernel and the calls' peers tell together. A call ends with its handler's task,
    which waits until the transport has taken the answer.

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
        self._requests: dict[asyncio.Task[Any], str] = {}  # single ones, with their peers
        self._streams: dict[asyncio.Task[Any], str] = {}
        self._came = 0

    def noted(self, generic: GenericHandler) -> GenericHandler:
        """Return a handler whose calls are noted while they are under way."""
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
        """Note the call of the handler that asks."""
        task = asyncio.current_task()
        if task is not None:
            peers = self._streams if is_stream else self._requests
            peers[task] = context.peer()
            task.add_done_callback(peers.pop)
        self._came += 1

    async def settle(self, timeout_s: float) -> set[str]:
        """Wait until the single requests that are under way have been answered; return the peers of calls that go on.

        Requests that come meanwhile do not count: they are refused. What gRPC has not handed over yet it would cancel,
        so the end is a moment in which none comes.
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
