"""Client and Stream for synchronous code: one thread per client runs the asynchronous ones.

Frames and results cross between the threads under one lock (`state`); only opening and closing wait for the loop.
Thread: any; one thread may send while another receives.
"""

import random
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Self, Unpack

from forebay.client import asynchronous
from forebay.client.asynchronous import ASK_TIMEOUT_S, CLOSE_TIMEOUT_S, INFER_TIMEOUT_S
from forebay.client.clock import Clock, MonotonicClock
from forebay.client.encode import FrameData
from forebay.client.errors import SendTimeoutError, StreamClosedError
from forebay.client.forks import is_child, refuse_in_child
from forebay.client.keywords import StreamKeywords
from forebay.client.loop import LoopThread
from forebay.client.models import Model
from forebay.client.options import Encoding, Reconnection, Tls
from forebay.client.picture import PictureData, PictureKeywords
from forebay.client.result import Opened, Result
from forebay.client.state import StreamState
from forebay.client.statistics import Statistics
from forebay.client.streams import StreamList


class Client:
    """One server or several that are alike, any number of streams over one connection to each.

    Close it, or use it in `with`.
    """

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
        self._clock = clock or MonotonicClock()
        self._client = asynchronous.Client(
            address,
            tls=tls,
            reconnection=reconnection,
            clock=self._clock,
            capture_clock_ns=capture_clock_ns,
            draw=draw,
        )
        self._lock = threading.Lock()
        self._loop: LoopThread | None = None
        self._is_closed = False

    @property
    def address(self) -> str:
        """As given."""
        return self._client.address

    def stream(self, camera: str, **keywords: Unpack[StreamKeywords]) -> "Stream":
        """Return a stream named after its camera; entering it, or its first frame, opens it. See StreamKeywords."""
        return Stream(self, self._client.stream(camera, **keywords), self._running_loop(), self._clock)

    def infer(
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
        loop = self._running_loop()
        return loop.call(
            self._client.infer(picture, model=model, encoding=encoding, camera=camera, timeout_s=timeout_s, **keywords)
        )

    def models(
        self, *, timeout_s: float = ASK_TIMEOUT_S, headers: Mapping[str, str] | None = None
    ) -> tuple[Model, ...]:
        """Return the models of the server, each version that is or was loaded.

        Raises:
            UnreachableError: no answer came within `timeout_s`.
            CallRefusedError: the server refused, for example because the call is restricted.
        """
        return self._running_loop().call(self._client.models(timeout_s=timeout_s, headers=headers))

    def list_streams(
        self, *, timeout_s: float = ASK_TIMEOUT_S, headers: Mapping[str, str] | None = None
    ) -> tuple[StreamList, ...]:
        """Return the open streams of each server, of all clients. Behind a proxy they are those of one server.

        Raises:
            UnreachableError: no server has answered within `timeout_s`; of one of several, its list has the reason.
            CallRefusedError: none has answered, and the first refused, for example because the call is restricted.
        """
        return self._running_loop().call(self._client.list_streams(timeout_s=timeout_s, headers=headers))

    def move_streams(
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
        return self._running_loop().call(
            self._client.move_streams(count, server=server, timeout_s=timeout_s, headers=headers)
        )

    def close(self) -> None:
        """Abort the open streams, close the connections and end the thread. Idempotent.

        In a child of a fork it does nothing: the connections belong to the parent.
        """
        if is_child():
            return
        with self._lock:
            loop, self._is_closed = self._loop, True
        if loop is not None:
            loop.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _running_loop(self) -> LoopThread:
        refuse_in_child()
        with self._lock:
            if self._is_closed:
                raise StreamClosedError("the client is closed")
            if self._loop is None:
                self._loop = LoopThread("forebay client", self._client.close)
                weakref.finalize(self, self._loop.stop)  # if the user does not close the client: at the latest at exit
            return self._loop


class Stream:
    """Frames of one camera in, one Result for each out, in order. Iterate the stream, or call `receive`.

    Take the results: frames whose results are not taken count against the window, so that results never pile up unseen.
    A single thread that both sends and receives with the policy "block" uses `map`; otherwise it would wait for itself.
    """

    def __init__(self, client: Client, stream: asynchronous.Stream, loop: LoopThread, clock: Clock) -> None:
        self._client = client  # keeps it, and its loop, alive
        self._stream = stream
        self._loop = loop
        self._clock = clock
        self._sending = threading.Lock()
        self._is_started = False

    @property
    def camera(self) -> str:
        """The camera's name."""
        return self._stream.camera

    @property
    def opened(self) -> Opened | None:
        """The server's grant for the latest call of this stream; None before the first."""
        return self._stream.opened

    @property
    def server(self) -> str:
        """The address of the server that opened the latest call; empty before the first."""
        return self._stream.server

    @property
    def needs_keyframe(self) -> bool:
        """Whether a keyframe is wanted, of h264 and h265: ask the encoder for one, if it can be asked.

        Either the server lacks pictures, or it has asked the stream to leave, which is done at a keyframe.
        """
        return self._state.needs_keyframe

    @property
    def has_ended(self) -> bool:
        """Whether every result was taken and no more will come: None of `receive` is then the end."""
        return self._state.has_ended

    def statistics(self) -> Statistics:
        """Return the stream's counters."""
        return self._stream.statistics()

    def open(self) -> Opened:
        """Wait until the server has opened the stream. Raises StreamRefusedError, UnreachableError.

        Raises:
            ValueError: width and height are not known yet; the first frame will open the stream.
        """
        refuse_in_child()
        self._is_started = True
        return self._loop.call(self._stream.open())

    def send(
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

        Blocks: never with "drop_oldest"; with "block" until a result was taken or a frame was sent.

        Raises:
            SendTimeoutError, StreamClosedError, StreamRefusedError, UnreachableError: the frame was not queued.
            TypeError, ValueError: the frame does not fit the stream; it was not queued.
        """
        refuse_in_child()
        until_ns = None if timeout_s is None else self._clock.now_ns() + round(timeout_s * 1e9)
        with self._sending:
            self._start()
            while (seq := self._state.try_send(frame, capture_time_ns, budget_ms)) is None:
                if not self._wait(self._state.can_send, until_ns):
                    raise SendTimeoutError(f"no room for a frame within {timeout_s} s")
            return seq

    def receive(self, timeout_s: float | None = None) -> Result | None:
        """Return the next result in order; None if no more will come, or none came within `timeout_s`.

        `has_ended` tells the two apart. Raises the error that ended the stream, after the last result.
        """
        refuse_in_child()
        until_ns = None if timeout_s is None else self._clock.now_ns() + round(timeout_s * 1e9)
        while (result := self._state.take()) is None:
            if not self._wait(self._state.can_take, until_ns):
                return None
            with self._state.monitor.lock:
                if self._state.is_exhausted:
                    break
        return result or self._state.take()

    def __iter__(self) -> Iterator[Result]:
        while (result := self.receive()) is not None:
            yield result

    def map(self, frames: Iterable[FrameData]) -> Iterator[Result]:
        """Send every frame and yield the results, all from this thread; the stream is finished after the last frame."""
        for frame in frames:
            while not self._has_room():
                self._wait(lambda: self._state.can_send() or self._state.can_take(), None)
                if (result := self._state.take()) is not None:
                    yield result
            self.send(frame)
            while (result := self._state.take()) is not None:
                yield result
        self.finish()
        yield from self

    def finish(self) -> None:
        """Stop accepting frames. Waiting frames are still sent, and iterating ends after the last result."""
        refuse_in_child()
        self._start()
        self._state.finish()

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Finish, wait until every frame has ended, and abort the rest after `timeout_s`. Idempotent.

        Results that were not taken can still be taken.
        """
        if is_child() or not self._loop.is_running:
            return
        self._state.finish()
        self._loop.call(self._stream.close(timeout_s))

    def abort(self) -> None:
        """End the stream at once; frames in flight become UNANSWERED, waiting frames NOT_SENT. Idempotent."""
        if not is_child() and self._loop.is_running:
            self._loop.call(self._stream.abort())

    def __enter__(self) -> Self:
        if self._state.is_openable:
            try:
                self.open()
            except BaseException:
                self.abort()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    @property
    def _state(self) -> StreamState:
        return self._stream.state

    def _has_room(self) -> bool:
        with self._state.monitor.lock:
            return self._state.can_send()

    def _start(self) -> None:
        if not self._is_started:
            self._is_started = True
            self._loop.call(self._start_on_loop())

    async def _start_on_loop(self) -> None:
        self._stream.start()

    def _wait(self, is_ready: Callable[[], bool], until_ns: int | None) -> bool:
        """Wait until `is_ready`, which is called with the state's lock held; return False at the time `until_ns`."""
        monitor = self._state.monitor
        while True:
            with monitor.lock:
                if is_ready():
                    return True
                if until_ns is not None and self._clock.now_ns() >= until_ns:
                    return False
                waiter = monitor.subscribe()
            if not self._clock.wait(waiter, until_ns):
                monitor.unsubscribe(waiter)
