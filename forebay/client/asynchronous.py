"""Client and Stream for asyncio. Owner of every object here: the event loop on which the client was first used."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Self, Unpack

from forebay.client.clock import Clock, MonotonicClock
from forebay.client.encode import FrameData
from forebay.client.errors import ResultTimeoutError, SendTimeoutError, StreamClosedError
from forebay.client.forks import is_child, refuse_in_child
from forebay.client.keywords import StreamKeywords
from forebay.client.link import Link
from forebay.client.models import METHOD, Model, models_of, request
from forebay.client.options import Encoding, Reconnection, Tls
from forebay.client.picture import PictureData, PictureKeywords, as_frame
from forebay.client.result import Opened, Result
from forebay.client.route import Route
from forebay.client.servers import Servers
from forebay.client.state import StreamState
from forebay.client.statistics import Statistics
from forebay.client.streams import LIST_METHOD, MOVE_METHOD, StreamList, list_of, list_request, move_request, moved_of
from forebay.client.waiters import Waiters
from forebay.client.wrong_option import check_client, stream_options

CLOSE_TIMEOUT_S = 5.0
INFER_TIMEOUT_S = 60.0  # the first batch of a model may take seconds
ASK_TIMEOUT_S = 10.0


class Client:
    """One server or several that are alike, any number of streams over one connection to each."""

    def __init__(
        self,
        address: str = "127.0.0.1:8001",
        *,
        tls: Tls | None = None,
        reconnection: Reconnection | None = None,
        clock: Clock | None = None,
        capture_clock_ns: Callable[[], int] = time.monotonic_ns,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Set up a client; it connects when its first stream opens.

        Args:
            address: host:port or unix:path; several with commas in between.
            tls: None speaks plain text, which servers accept only on the local machine by default.
            reconnection: limits and back-off of connection attempts.
            clock: source of monotonic nanoseconds; tests pass a manual one.
            capture_clock_ns: clock of `capture_time_ns`; `time.time_ns` for stamps of ROS or NTP.
            draw: source of uniform numbers from 0 to 1 for the back-off and the choice among servers.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: an entry of the address is none.
        """
        check_client(address, tls, reconnection)
        self.address = address
        self._reconnection = reconnection or Reconnection()
        self._clock = clock or MonotonicClock()
        self._capture_clock_ns = capture_clock_ns
        self._draw = draw
        self._servers = Servers(address, tls, self._clock, draw)
        self._streams: set[Stream] = set()

    def stream(self, camera: str, **keywords: Unpack[StreamKeywords]) -> "Stream":
        """Return a stream named after its camera; entering it, or its first frame, opens it. See StreamKeywords."""
        state = StreamState(stream_options(camera, keywords), self._clock, self._capture_clock_ns)
        stream = Stream(state, self._link_of, self._clock)
        self._streams.add(stream)
        return stream

    async def infer(
        self,
        picture: PictureData,
        *,
        model: str,
        encoding: Encoding | None = None,
        camera: str = "picture",
        timeout_s: float = INFER_TIMEOUT_S,
        **keywords: Unpack[PictureKeywords],
    ) -> Result:
        """Send one picture and return its result; many pictures are quicker through one stream.

        Args:
            picture: an array of uint8, shape (height, width, 3) or (height, width); the bytes of a JPEG or PNG file; or
                the path of one.
            model: name in the server's model repository.
            encoding: of an array with three channels: "bgr8" (default, as OpenCV has it) or "rgb8".
            camera: name in the server's log and pages.
            timeout_s: longest wait for the result.
            keywords: see PictureKeywords.

        Raises:
            TypeError, ValueError: wrong arguments, with the reason; nothing was sent.
            OSError: the file cannot be read.
            StreamRefusedError, UnreachableError, ResultTimeoutError: there is no result.
        """
        found, frame = await asyncio.to_thread(as_frame, picture, encoding)
        stream = self.stream(camera, model=model, encoding=found, delivery="every", max_in_flight=1, **keywords)
        try:
            await stream.send(frame)
            stream.finish()
            result = await stream.receive(timeout_s)
            if result is not None:
                await stream.close()  # let the call end: the server takes one that is cancelled for broken
        finally:
            await stream.abort()
        if result is None:
            raise ResultTimeoutError(f"no result of the picture within {timeout_s:g} s; timeout_s=SECONDS waits longer")
        if not result.is_answered and stream.state.error is not None:
            raise stream.state.error
        return result

    async def models(
        self, *, timeout_s: float = ASK_TIMEOUT_S, headers: Mapping[str, str] | None = None
    ) -> tuple[Model, ...]:
        """Return the models of the server, each version that is or was loaded.

        Raises:
            UnreachableError: no answer came within `timeout_s`.
            CallRefusedError: the server refused, for example because the call is restricted.
        """
        metadata = tuple((headers or {}).items())
        return models_of(await self._servers.ask(METHOD, request(), metadata, timeout_s))

    async def list_streams(
        self, *, timeout_s: float = ASK_TIMEOUT_S, headers: Mapping[str, str] | None = None
    ) -> tuple[StreamList, ...]:
        """Return the open streams of each server, of all clients. Behind a proxy they are those of one server.

        Raises:
            UnreachableError: no server has answered within `timeout_s`; of one of several, its list has the reason.
            CallRefusedError: none has answered, and the first refused, for example because the call is restricted.
        """
        metadata = tuple((headers or {}).items())
        answers = await self._servers.ask_each(LIST_METHOD, list_request(), metadata, timeout_s)
        return tuple(list_of(str(address), answer) for address, answer in answers)

    async def move_streams(
        self,
        count: int,
        *,
        server: str | None = None,
        timeout_s: float = ASK_TIMEOUT_S,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Have a server ask streams, of any client, to go to other servers; return how many it asked.

        Args:
            count: the heaviest are asked first, those with state last, and only those that are "movable".
            server: as `list_streams` names it; needed where the client has several.
            timeout_s: for the answer.
            headers: for a server that restricts the call.

        Raises:
            ValueError: `count` is less than 1, or `server` names none of the servers.
            UnreachableError: no answer came within `timeout_s`.
            CallRefusedError: the server refused.
        """
        metadata = tuple((headers or {}).items())
        return moved_of(await self._servers.ask_one(server, MOVE_METHOD, move_request(count), metadata, timeout_s))

    async def close(self) -> None:
        """Abort the open streams and close the connections. Idempotent."""
        if is_child():  # the connections belong to the parent
            return
        for stream in list(self._streams):
            await stream.abort()
        self._streams.clear()
        await self._servers.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _link_of(self, stream: "Stream") -> Link:
        stream.on_end(self._streams.discard)
        return Link(
            stream.state,
            route=Route(self._servers),
            reconnection=self._reconnection,
            clock=self._clock,
            draw=self._draw,
        )


class Stream:
    """Frames of one camera in, one Result for each out, in order. Iterate the stream, or call `receive`.

    Take the results: frames whose results are not taken count against the window, so that results never pile up unseen.
    """

    def __init__(self, state: StreamState, link_of: Callable[["Stream"], Link], clock: Clock) -> None:
        self.state = state
        self._link_of = link_of
        self._clock = clock
        self._link: Link | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiters = Waiters(state.monitor, clock)
        self._end_listeners: list[Callable[[Stream], object]] = []
        state.on_change = self._waiters.wake

    @property
    def camera(self) -> str:
        """The camera's name."""
        return self.state.options.camera

    @property
    def opened(self) -> Opened | None:
        """The server's grant for the latest call of this stream; None before the first."""
        return self.state.opened

    @property
    def server(self) -> str:
        """The address of the server that opened the latest call; empty before the first."""
        return self.state.server

    @property
    def needs_keyframe(self) -> bool:
        """Whether a keyframe is wanted, of h264 and h265: ask the encoder for one, if it can be asked.

        Either the server lacks pictures, or it has asked the stream to leave, which is done at a keyframe.
        """
        return self.state.needs_keyframe

    @property
    def has_ended(self) -> bool:
        """Whether every result was taken and no more will come: None of `receive` is then the end."""
        return self.state.has_ended

    def statistics(self) -> Statistics:
        """Return the stream's counters."""
        return self.state.statistics()

    def on_end(self, listener: Callable[["Stream"], object]) -> None:
        """Call `listener` when the link has ended."""
        self._end_listeners.append(listener)

    def start(self) -> None:
        """Start the link. Idempotent."""
        if self._task is None:
            self._link = self._link_of(self)
            self._task = asyncio.create_task(self._link.run(), name=f"forebay {self.camera}")
            self._task.add_done_callback(lambda _: [listener(self) for listener in self._end_listeners])

    async def open(self) -> Opened:
        """Wait until the server has opened the stream. Raises StreamRefusedError, UnreachableError.

        Raises:
            ValueError: width and height are not known yet; the first frame will open the stream.
        """
        if not self.state.is_openable:
            raise ValueError("the first frame opens this stream: width and height were not given")
        self.start()
        while (opened := self.state.opened) is None:
            if self.state.is_over:
                raise self.state.error or StreamClosedError("closed before it was opened")
            await self._waiters.wait(lambda: self.state.opened is not None or self.state.is_over)
        return opened

    async def send(
        self,
        frame: FrameData,
        *,
        capture_time_ns: int | None = None,
        budget_ms: float | None = None,
        timeout_s: float | None = None,
    ) -> int:
        """Copy and queue a frame, and return its seq.

        Args:
            frame: an array that fits the encoding, or bytes; for tensor also one array for each input.
            capture_time_ns: on the client's capture clock; None: now.
            budget_ms: for this frame instead of the stream's.
            timeout_s: longest wait for room, with the policy "block".

        Raises:
            SendTimeoutError, StreamClosedError, StreamRefusedError, UnreachableError: the frame was not queued.
            TypeError, ValueError: the frame does not fit the stream; it was not queued.
        """
        refuse_in_child()
        self.start()
        until_ns = None if timeout_s is None else self._clock.now_ns() + round(timeout_s * 1e9)
        while (seq := self.state.try_send(frame, capture_time_ns, budget_ms)) is None:
            if not await self._waiters.wait(self.state.can_send, until_ns):
                raise SendTimeoutError(f"no room for a frame within {timeout_s} s")
        return seq

    async def receive(self, timeout_s: float | None = None) -> Result | None:
        """Return the next result in order; None if no more will come, or none came within `timeout_s`.

        `has_ended` tells the two apart. Raises the error that ended the stream, after the last result.
        """
        refuse_in_child()
        until_ns = None if timeout_s is None else self._clock.now_ns() + round(timeout_s * 1e9)
        while (result := self.state.take()) is None:
            with self.state.monitor.lock:
                is_exhausted = self.state.is_exhausted
            if is_exhausted or not await self._waiters.wait(self.state.can_take, until_ns):
                return self.state.take()
        return result

    async def __aiter__(self) -> AsyncIterator[Result]:
        while (result := await self.receive()) is not None:
            yield result

    async def map(self, frames: AsyncIterable[FrameData]) -> AsyncIterator[Result]:
        """Send every frame and yield the results; the stream is finished after the last frame."""
        feeder = asyncio.create_task(self._feed(frames))
        try:
            async for result in self:
                yield result
            await feeder
        finally:
            feeder.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(feeder, return_exceptions=True)

    async def _feed(self, frames: AsyncIterable[FrameData]) -> None:
        try:
            async for frame in frames:
                await self.send(frame)
        finally:
            self.finish()

    def finish(self) -> None:
        """Stop accepting frames. Waiting frames are still sent, and iterating ends after the last result."""
        self.start()
        self.state.finish()

    async def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Finish, wait until every frame has ended, and abort the rest after `timeout_s`. Idempotent.

        Results that were not taken can still be taken.
        """
        if is_child():
            return
        self.finish()
        until_ns = self._clock.now_ns() + round(timeout_s * 1e9)
        while not self.state.is_over:
            if not await self._waiters.wait(lambda: self.state.is_over, until_ns):
                break
        await self.abort()

    async def abort(self) -> None:
        """End the stream at once; frames in flight become UNANSWERED, waiting frames NOT_SENT. Idempotent."""
        if is_child():
            return
        self.start()
        self.state.finish()
        if self._link is not None and self._task is not None:
            self._link.abort()
            await asyncio.wait({self._task})

    async def __aenter__(self) -> Self:
        if self.state.is_openable:
            try:
                await self.open()
            except BaseException:
                await self.abort()
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.close()
        else:
            await self.abort()
