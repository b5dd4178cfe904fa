"""About calls of grpc.aio: the trace context they bring, and ending those whose client takes nothing.

grpc.aio has no way to do the second.

A write waits for as long as the client's flow control says so, and so does a status sent behind it: `abort` of a call
whose client does not read returns when it reads. Cancelling the write frees the coroutine, not the call: the call, and
the message in it, live until the client goes away.

gRPC's core ends a call at once, past the flow control, when its last reference goes. In grpc.aio that is held by the
task which waits for the client's cancellation and which made the handler's task. `CallTasks` notes, for every handler's
task, the task that made it; `cut` sends the status, waits a moment, and cancels that task. The status is on its way
before the rest is thrown away, so that a client which reads again sees why. No public way of grpc.aio does this, so a
handler's task is recognised by a private name (docs/adr/0150).

All objects of ours are freed in every case. grpc.aio itself keeps the call that it accepted last until it accepts the
next one, so that one cut call may last so long. If a release of grpcio does all this differently, no maker is found and
a cut call lasts until its client leaves (tests/rpc/test_slow_readers.py shows it).

Owner: the event loop's thread.
"""

import asyncio
import re
import weakref
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeAlias

import grpc

from forebay_server.service.journal.events import TraceContext

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_HANDLER_COROUTINE = "_handle_exceptions"  # grpc.aio's, around every handler
DELIVERY_TIMEOUT_S = 0.5


_TRACE_ID = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-")
MAX_TRACE_CONTEXT = 1024  # characters of a header; W3C asks for 512 of tracestate at least


def trace_context(context: Context) -> TraceContext | None:
    """Return the W3C trace context that a client sent with its call, or None."""
    carrier = {
        str(key): value
        for key, value in context.invocation_metadata() or ()
        if key in ("traceparent", "tracestate") and isinstance(value, str) and len(value) <= MAX_TRACE_CONTEXT
    }
    return carrier if "traceparent" in carrier else None


def trace_id(trace: TraceContext | None) -> str | None:
    """Return the trace's number for the log, 32 hexadecimal digits; None for a context that has none."""
    match = None if trace is None else _TRACE_ID.match(trace["traceparent"])
    return None if match is None else match[1]


class CallTasks:
    """Which task of grpc.aio holds the call of a handler's task.

    Attributes:
        delivery_timeout_s: time for a status to reach a client that reads again just now.
        is_patient: whether a client has all the time that the server has. In a drain, a call that is thrown away ends
            its connection, and the status that was on its way goes down with it.
    """

    def __init__(self) -> None:
        self.delivery_timeout_s = DELIVERY_TIMEOUT_S
        self.is_patient = False
        self._makers: weakref.WeakKeyDictionary[asyncio.Task[Any], weakref.ref[asyncio.Task[Any]]] = (
            weakref.WeakKeyDictionary()
        )

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note the tasks that are made on `loop` from now on."""
        loop.set_task_factory(self._make)  # type: ignore[arg-type]  # the protocol is of the newest Python

    def _make(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, Any],
        **options: Any,  # noqa: ANN401 - what the Python release passes on
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=loop, **options)
        if getattr(coroutine, "__name__", "") == _HANDLER_COROUTINE:
            maker = asyncio.current_task(loop)
            if maker is not None:
                self._makers[task] = weakref.ref(maker)
        return task

    def be_patient(self) -> None:
        """Wait with every status until its client reads, from now on: gRPC ends all calls at the drain's end."""
        self.is_patient = True

    def holder(self) -> "asyncio.Task[Any] | None":
        """Return the task that holds the call of the handler that asks, or None."""
        current = asyncio.current_task()
        maker = None if current is None else self._makers.get(current)
        return None if maker is None else maker()


async def cut(context: Context, tasks: CallTasks, message: str) -> NoReturn:
    """End a call whose client takes nothing, from its handler. The initial metadata have been sent.

    Raises:
        CancelledError: always. A handler that returned would have grpc.aio raise its AbortError, whose traceback and
            the call hold each other until the next garbage collection.
    """
    aborting = asyncio.ensure_future(context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, message))
    try:
        await asyncio.wait([aborting], timeout=tasks.delivery_timeout_s)
        if tasks.is_patient:
            await asyncio.wait([aborting])
        elif not _has_left(aborting) and (holder := tasks.holder()) is not None:
            holder.cancel()
            await asyncio.wait([aborting], timeout=tasks.delivery_timeout_s)
    finally:
        aborting.cancel()
        await asyncio.wait([aborting])
        _has_left(aborting)
    raise asyncio.CancelledError


def _has_left(aborting: "asyncio.Future[Any]") -> bool:
    """Whether the status is out: then, and only then, `abort` has ended with its own error."""
    return aborting.done() and not aborting.cancelled() and isinstance(aborting.exception(), grpc.aio.AbortError)
