"""The link of one stream: it carries frames over a sequence of calls until the stream is closed or refused.

Theory of operation
    `run` loops: wait for the backoff's delay, start a call, write Open, and let three tasks work until the call ends.
    *read* is the master: it hands answers to the state and ends when the call ends, for any reason. *write* moves
    one frame at a time from the ledger to the call and waits until the transport has taken it, so frames do not pile up
    behind a slow network. *limit* cancels a call that takes too long to open, to drain or to end, or that is silent.
    Every failure ends the call, and the status of the ended call decides the next step (`retry`, `route`).

    A server asks a stream to leave by Reconnect. The stream half-closes at once and goes on with the next call. A
    stream of video first goes on here up to a keyframe, which is then the first frame of the next call: the next server
    would refuse all before, because it lacks earlier pictures. *leave* limits this to a share of the grace.

Owner: the event loop. Other threads may call only `abort` and the state's `wake_link`.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from forebay.client.backoff import Backoff
from forebay.client.clock import Clock
from forebay.client.errors import ProtocolError, UnreachableError
from forebay.client.from_wire import opened_from_wire
from forebay.client.options import Reconnection, open_message
from forebay.client.retry import CallEnd, hint_ms
from forebay.client.route import Route
from forebay.client.state import StreamState
from forebay.wire import frames_pb2 as wire

if TYPE_CHECKING:
    from forebay.client.channel import StreamCall

END_LIMIT_S = 1.0  # for the server's status once every frame is answered
DRAIN_MARGIN_S = 1.0  # on top of the grace that Reconnect grants
GRACE_SHARE = 0.5  # in which a keyframe may come; the rest is for the answers, over a slow network too
SILENT_INTERVALS = 3  # heartbeats that may be missing
LONGEST_HOLD_MS = 5_000  # of a frame's retry_after_ms

_log = logging.getLogger("forebay")


class Link:
    """See the module's theory of operation."""

    def __init__(
        self,
        state: StreamState,
        *,
        route: Route,
        reconnection: Reconnection,
        clock: Clock,
        draw: Callable[[], float],
    ) -> None:
        self._state = state
        self._route = route
        self._reconnection = reconnection
        self._clock = clock
        self._backoff = Backoff(
            base_s=reconnection.backoff_base_s,
            cap_s=reconnection.backoff_cap_s,
            reopenings_per_s=reconnection.reopenings_per_s,
            draw=draw,
        )
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._wake = asyncio.Event()
        self._aborted = asyncio.Event()
        self._is_wake_pending = False
        self._call: StreamCall | None = None
        self._limiter: asyncio.Task[None] | None = None
        self._leaver: asyncio.Task[None] | None = None
        self._reconnect: wire.Reconnect | None = None  # of this call
        self._leaves_at_keyframe = False
        self._is_open = self._is_draining = self._is_ending = False
        self._cut_reason = ""
        self._heard_ns = self._hold_until_ns = 0
        self._reachable_ns: int | None = None  # the last time at which the stream was open
        self._started_ns = 0
        state.wake_link = self._wake_from_anywhere

    async def run(self) -> None:
        """Carry the stream until it ends; never raises. `state.error` has the reason."""
        error: Exception | None = None
        try:
            await self._run()
        except Exception as caught:  # noqa: BLE001  # report a bug to the user instead of losing it with this task
            error = caught
        finally:
            self._state.over(str(error) if error else "the stream was closed", error)

    def abort(self) -> None:
        """End the stream now, even with frames in flight. Loop only."""
        self._aborted.set()
        self._wake.set()
        if self._call is not None:
            self._call.cancel()

    async def _run(self) -> None:
        while not self._state.is_openable:  # the first frame fixes the size of all frames
            if self._aborted.is_set() or self._state.is_done:
                return
            await self._wait_for_work()
        self._started_ns = self._clock.now_ns()
        delay_s = self._backoff.delay_s(self._started_ns, has_failed=False)
        while not (self._aborted.is_set() or self._state.is_done):
            if delay_s and not await self._pause(delay_s, self._needs_no_call):
                return
            end = await self._carry()
            if self._aborted.is_set() or self._state.is_done:
                return
            delay_s = self._delay_after(end)

    def _delay_after(self, end: CallEnd) -> float:
        """Return the delay before the next call, or raise the reason why there will be none."""
        pace = self._route.ended(end, was_open=self._is_open)
        now_ns = self._clock.now_ns()
        delay_s = self._backoff.delay_s(now_ns, has_failed=pace.has_failed, hint_ms=pace.hint_ms)
        is_first = self._reachable_ns is None
        limit_s = self._reconnection.connect_timeout_s if is_first else self._reconnection.give_up_after_s
        away_s = (now_ns - (self._started_ns if self._reachable_ns is None else self._reachable_ns)) / 1e9
        if limit_s is not None and away_s + delay_s >= limit_s:
            self._route.refuse()
            raise UnreachableError(
                f"no stream on {self._route.addresses} within {limit_s:g} s; the last try: {end.words}"
            )
        text = "stream %s: %s: %s; trying again in %.2f s"
        _log.info(text, self._state.options.camera, self._route.address, end.words, delay_s)
        return delay_s

    def _needs_no_call(self) -> bool:
        return self._aborted.is_set() or self._state.is_done

    async def _pause(self, seconds: float, is_over: Callable[[], bool]) -> bool:
        """Wait; return False as soon as `is_over`, which is asked at every wake-up."""
        tasks = [asyncio.ensure_future(self._clock.sleep(seconds))]
        try:
            while not tasks[0].done():
                tasks[1:] = [asyncio.ensure_future(self._wait_for_work())]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                tasks[1].cancel()
                if is_over():
                    return False
            return True
        finally:
            for task in tasks:
                task.cancel()

    async def _carry(self) -> CallEnd:
        """Run one call from start to end."""
        self._is_open = self._is_draining = self._is_ending = self._leaves_at_keyframe = False
        self._reconnect = None
        self._hold_until_ns = 0  # the advice was that of the call before
        self._cut_reason = ""
        call = self._call = await self._route.call(self._state.options.metadata)
        if self._aborted.is_set():
            call.cancel()
        limit_s = self._route.attempt_limit_s(self._reconnection.connect_timeout_s)
        self._limit(limit_s, "the server did not answer Open")
        writer = asyncio.create_task(self._write(call))
        reader = asyncio.create_task(self._read(call))
        try:
            await asyncio.wait({reader})
        finally:
            call.cancel()
            tasks = [task for task in (reader, writer, self._limiter, self._leaver) if task is not None]
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            self._call = self._limiter = self._leaver = None
        if self._is_open:
            self._reachable_ns = self._clock.now_ns()
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        return await self._end_of(call)

    async def _end_of(self, call: "StreamCall") -> CallEnd:
        code, details = (await call.code()).name, await call.details() or ""
        metadata = [(str(key), str(value)) for key, value in (await call.trailing_metadata() or ())]
        if self._cut_reason:
            code, details = "CANCELLED", self._cut_reason
        was_asked = self._reconnect is not None and not self._state.has_in_flight
        end = CallEnd(code, details, hint_ms(metadata), was_asked=was_asked)
        self._state.lost(f"the stream broke before its answer came ({end.words})")
        return end

    async def _read(self, call: "StreamCall") -> None:
        """Take the server's messages until the call ends; `call.code()` then gives the reason."""
        with contextlib.suppress(grpc.RpcError):
            while isinstance(data := await call.read(), bytes):
                self._heard_ns = self._clock.now_ns()
                self._take(_parsed(data))

    def _take(self, message: wire.ServerMessage) -> None:
        kind = message.WhichOneof("message")
        if kind == "opened" and not self._is_open:
            self._take_opened(message.opened)
        elif not self._is_open or kind == "opened":
            raise ProtocolError(f"the server sent {kind or 'an unknown message'} where Opened was due, or Opened twice")
        elif kind == "result":
            self._take_result(message.result)
        elif kind == "need_keyframe":
            self._state.keyframe_asked_for()
        elif kind == "reconnect":
            self._take_reconnect(message.reconnect)

    def _take_reconnect(self, message: wire.Reconnect) -> None:
        """Leave now, or with video at its next keyframe. A server that asks again is left now."""
        is_again, self._reconnect = self._reconnect is not None, message
        grace_s = message.grace_ms / 1e3
        self._limit(grace_s + DRAIN_MARGIN_S, "the server did not end the stream")
        if is_again or not self._state.options.is_video:
            self._leave()
            return
        self._avoid_server()  # for the client's other streams, too
        self._leaves_at_keyframe = True
        self._state.leaves_at_keyframe()
        self._leaver = asyncio.create_task(self._leave_after(grace_s * GRACE_SHARE))
        self._wake.set()  # a keyframe may be waiting

    async def _leave_after(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        if self._leaves_at_keyframe:
            self._leave()

    def _leave(self) -> None:
        """Have the writer half-close, and the next call go where the server wants it."""
        self._is_draining, self._leaves_at_keyframe = True, False
        self._avoid_server()
        self._wake.set()

    def _avoid_server(self) -> None:
        """Do what Reconnect says about the server, whose effect lasts for some seconds."""
        if self._call is not None and self._reconnect is not None:
            self._route.asked_to_leave(self._call, self._reconnect.reason)

    def _take_opened(self, message: wire.Opened) -> None:
        opened = opened_from_wire(message)
        before = self._state.granted(opened, self._route.address)
        self._is_open = True
        self._route.opened()
        self._backoff.opened(self._clock.now_ns())
        if before is not None and before.model_version != opened.model_version:
            text = "stream %s: reopened on version %s of %s, it was %s"
            _log.warning(text, self._state.options.camera, opened.model_version, opened.model, before.model_version)
        if before is not None and opened.tracks == "anew":
            _log.warning("stream %s: reopened, and its track ids begin anew", self._state.options.camera)
        silence_s = self._reconnection.silence_limit_s
        if opened.heartbeat_interval_s > 0:
            silence_s = SILENT_INTERVALS * opened.heartbeat_interval_s
        self._limit(silence_s, "the server was silent", is_silence=True)
        self._wake.set()

    def _take_result(self, message: wire.Result) -> None:
        self._backoff.succeeded()
        if message.status.retry_after_ms:
            hold_ns = min(message.status.retry_after_ms, LONGEST_HOLD_MS) * 1_000_000
            self._hold_until_ns = self._clock.now_ns() + hold_ns
        try:
            self._state.answered(message)
        except ValueError as caught:
            raise ProtocolError(f"the result of frame {message.seq} cannot be read: {caught}") from caught
        if self._state.has_queued:  # the window has room; else the next frame wakes the writer
            self._wake.set()
        if self._state.is_finishing:
            self._expect_end()

    async def _write(self, call: "StreamCall") -> None:
        """Write Open and then frames, each when the transport has taken the previous one; half-close at the end."""
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):  # the call ended: the reader has the reason
            state = self._state
            await call.write(open_message(state.options, state.resume_from, state.track_state))
            while not self._has_to_half_close():
                # A busy server's advice: no frame before its retry_after_ms has passed.
                if (held_ns := self._hold_until_ns - self._clock.now_ns()) > 0:
                    await self._pause(held_ns / 1e9, self._has_to_half_close)
                elif self._is_open and (message := state.next_to_send()) is not None:
                    await call.write(message)
                else:
                    await self._wait_for_work()
            await call.done_writing()
            self._expect_end()

    def _has_to_half_close(self) -> bool:
        """Return whether the last frame was written, or the stream leaves: with video when its next is a keyframe."""
        if self._leaves_at_keyframe and self._state.is_at_keyframe():
            self._leave()
        return self._is_draining or self._state.has_nothing_to_send

    def _expect_end(self) -> None:
        """Give the server END_LIMIT_S to end the call once every frame is answered; other limits no longer count."""
        if self._state.is_done and not self._is_ending:
            self._limit(END_LIMIT_S, "the server did not end the stream")
            self._is_ending = True

    def _limit(self, seconds: float | None, reason: str, *, is_silence: bool = False) -> None:
        """Replace the current limit of the call, unless it is the final one."""
        if self._is_ending:
            return
        if self._limiter is not None:
            self._limiter.cancel()
        watch: Coroutine[Any, Any, None] | None = None
        if seconds is not None:
            watch = self._cut_when_silent(seconds, reason) if is_silence else self._cut_after(seconds, reason)
        self._limiter = asyncio.create_task(watch) if watch is not None else None

    async def _cut_after(self, seconds: float, reason: str) -> None:
        await self._clock.sleep(seconds)
        self._cut(f"{reason} within {seconds:g} s")

    async def _cut_when_silent(self, seconds: float, reason: str) -> None:
        limit_ns = round(seconds * 1e9)
        while (left_ns := self._heard_ns + limit_ns - self._clock.now_ns()) > 0:
            await self._clock.sleep(left_ns / 1e9)
        self._cut(f"{reason} for {seconds:g} s")

    def _cut(self, reason: str) -> None:
        self._cut_reason = reason
        if self._call is not None:
            self._call.cancel()

    async def _wait_for_work(self) -> None:
        await self._wake.wait()
        self._wake.clear()

    def _wake_from_anywhere(self) -> None:
        """Wake the link from any thread; at most one wake-up is scheduled at a time.

        On the loop itself, wake it at once: a scheduled wake-up costs a write to the loop's own socket and a turn.
        """
        if threading.get_ident() == self._thread_id:
            self._wake.set()
            self._state.on_change()
            return
        if self._is_wake_pending:
            return
        self._is_wake_pending = True
        with contextlib.suppress(RuntimeError):  # the loop is closed: there is no link to wake
            self._loop.call_soon_threadsafe(self._set_wake)

    def _set_wake(self) -> None:
        self._is_wake_pending = False
        self._wake.set()
        self._state.on_change()


def _parsed(data: bytes) -> wire.ServerMessage:
    try:
        return wire.ServerMessage.FromString(data)
    except DecodeError:
        raise ProtocolError("the server sent bytes that are no message of the protocol") from None
