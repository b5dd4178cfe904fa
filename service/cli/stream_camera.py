"""One source of `forebay stream` as one camera: its frames are read on a thread of its own and sent on the event loop.

Owner of everything here: the event loop, except the source, which belongs to its thread.
"""

import asyncio
from collections import Counter
from collections.abc import Callable

import forebay
import forebay.aio
from forebay.client.clock import Clock
from forebay.client.encode import FrameData
from forebay.client.keywords import StreamKeywords
from forebay.client.options import Encoding
from forebay.client.state import StreamState
from forebay.connect_words import is_nothing_there
from forebay_server.service.cli import exit_codes
from forebay_server.service.cli.clip_writer import CannotWriteError
from forebay_server.service.cli.server_process import ServerStartError
from forebay_server.service.cli.source_thread import SourceThread
from forebay_server.service.cli.stream_output import AnnotatedClip, Sink
from forebay_server.service.cli.stream_plan import CameraPlan, Pace
from forebay_server.service.cli.stream_server import StreamServer
from forebay_server.service.cli.stream_sources import (
    Frame,
    Transcode,
    file_of,
    keywords_for,
    open_frames,
    payload_of,
    picture_of,
)
from forebay_server.service.cli.video import Source, SourceError

FILE_WINDOW = 4  # enough to keep a server busy; more would only hold more pictures in memory
INTERRUPTED_CLOSE_S = 1.0
LONGEST_LET_NS = 10_000_000  # less than the interval of a camera's frames: they must not queue before this client
FAULTS = frozenset({"invalid", "failed"})  # statuses that say that a picture or the model is wrong


class CameraRun:
    """One camera from its first frame to its totals. `run` once.

    Args:
        plan: how it is sent.
        server: of all cameras.
        sink: of all cameras.
        clip: with the found objects drawn into its frames.
        clock: of the client; it also waits.
        say: takes one line for people. Thread: any.

    Attributes:
        hangs: after the end: its thread is still in a read that does not return.
    """

    def __init__(
        self,
        plan: CameraPlan,
        server: StreamServer,
        sink: Sink,
        clip: AnnotatedClip | None,
        clock: Clock,
        say: Callable[[str], None],
    ) -> None:
        self.hangs = False
        self._plan = plan
        self._server = server
        self._sink = sink
        self._clip = clip
        self._clock = clock
        self._say = say
        self._thread = SourceThread(f"source {plan.name}")
        self._source: Source | None = None
        self._encoding: Encoding = "bgr8"
        self._pace = Pace(0)
        self._is_pumped = False
        self._sent = 0  # frames, on all streams
        self._sent_before = 0  # on earlier streams than the present one
        self._in_flight: dict[int, Frame] = {}  # by seq; as many as the window and the queue hold
        self._by_status: Counter[str] = Counter()
        self._fault = ""  # the reason of the first frame that is wrong or failed
        self._fault_index = -1  # of that frame
        self._clip_fault = ""  # at its end

    async def run(self) -> int:
        """Send every frame, show every result, and return the exit code. A cancelled run ends in order."""
        words, code = "", exit_codes.INTERRUPTED
        try:
            words, code = await self._carry()
        except asyncio.CancelledError:
            pass
        except SourceError as error:
            words, code = str(error), exit_codes.NO_INPUT
        except ServerStartError as error:
            words, code = str(error), exit_codes.UNAVAILABLE
        except forebay.ForebayError as error:
            words, code = self._explained(error)
        except CannotWriteError as error:
            words, code = str(error), exit_codes.CANNOT_WRITE
        except (ValueError, OSError) as error:
            words, code = str(error), exit_codes.USAGE
        finally:
            self.hangs = not await self._thread.close(self._close)
        words, code = self._with_clip(words, code)
        self._tell_end(words)
        return code

    def _with_clip(self, words: str, code: int) -> tuple[str, int]:
        """Return what is wrong, of the clip too, and the exit code."""
        if self.hangs and self._clip is not None:
            return words or f"{self._clip.path} is not complete: its source hangs", code
        if self._clip_fault and code == exit_codes.OK:
            return self._clip_fault, exit_codes.CANNOT_WRITE
        return words, code

    async def _carry(self) -> tuple[str, int]:
        """Return what is wrong, if anything, and the exit code."""
        first: Frame | None = await self._first_frame(self._plan.transcode)
        client, model = await self._server.connected()
        while first is not None:
            await self._play(*await self._opened_for(client, model, first))
            first = await self._thread.call(self._first_of_next_video)
        if self._by_status["unanswered"]:
            return "frames were sent and not answered", exit_codes.FAILED
        shortfall = await self._thread.call(self._shortfall)
        if self._fault:
            return f"{self._fault}{self._about_end(shortfall)}", exit_codes.FAILED
        if shortfall:
            return f"{shortfall}; its frames were answered", exit_codes.INCOMPLETE
        return "", exit_codes.OK

    def _about_end(self, shortfall: str) -> str:
        """Return words after a fault that may come from the end of the file: raw H.264 declares no length."""
        if shortfall:
            return f"; {shortfall}"
        source = self._opened_source
        is_last = self._fault_index == source.read_frames - 1 and self._sent != self._plan.limit
        return f"; it is the last one of {source.info.name}: cut short?" if is_last and source.info.path else ""

    def _shortfall(self) -> str:
        """Return why frames are missing at the end of the source; empty if none are. Thread: the source's."""
        source, limit = self._opened_source, self._plan.limit
        return source.shortfall if limit is None or source.read_frames < limit else ""

    async def _opened_for(
        self, client: forebay.aio.Client, model: str, first: Frame
    ) -> tuple[forebay.aio.Stream, Frame]:
        """Return an open stream and its first frame: another one if the server cannot decode `first`."""
        try:
            return await self._opened(client, model, first), first
        except forebay.StreamRefusedError as error:
            if error.code != "UNIMPLEMENTED" or self._plan.transcode != "auto":
                raise
            first = await self._first_frame("always")  # the server cannot decode it, or not for this stream
            return await self._opened(client, model, first), first

    def _first_of_next_video(self) -> Frame | None:
        """Return the frame with which another video begins, if the source has come to one. Thread: the source's."""
        source = self._opened_source
        return source.read() if source.has_changed else None

    async def _first_frame(self, transcode: Transcode) -> Frame:
        frame = await self._thread.call(self._open_source, transcode)
        if frame is None:
            raise SourceError(f"{self._plan.name} has no frames that can be read")
        if self._opened_source.remark:
            self._tell(self._opened_source.remark)
        return frame

    def _open_source(self, transcode: Transcode) -> Frame | None:
        """Open the source and return its first frame. Thread: the source's."""
        if self._source is not None:
            self._source.close()
        plan = self._plan
        self._source = open_frames(plan.source, transcode, is_looping=plan.is_looping, tell=self._tell)
        return self._source.read()

    async def _opened(self, client: forebay.aio.Client, model: str, first: Frame) -> forebay.aio.Stream:
        """Open the stream; as JPEG if pixels are refused and the user did not ask for them."""
        info = self._opened_source.info
        is_latest = self._plan.delivery == "latest" or (self._plan.delivery is None and info.is_live)
        self._pace = Pace(info.fps if is_latest and not info.is_live else 0.0)
        self._is_pumped = is_latest and info.is_live and self._clip is None
        if self._clip is not None:
            self._clip.begin(info.fps)
        common: StreamKeywords = {
            **self._plan.keywords,
            "model": model,
            "delivery": "latest" if is_latest else "every",
            "max_in_flight": 0 if is_latest else FILE_WINDOW,
        }
        keywords = keywords_for(self._opened_source, first, common, self._plan.encoding)
        try:
            return await self._open(client, keywords)
        except forebay.StreamRefusedError as error:
            # One cause is a picture larger than the server's messages. Any other cause is refused again.
            is_choice = self._plan.encoding is None and keywords.get("encoding") == "bgr8"
            if error.code != "INVALID_ARGUMENT" or not is_choice:
                raise
            return await self._open(client, keywords_for(self._opened_source, first, common, "jpeg"))

    async def _open(self, client: forebay.aio.Client, keywords: StreamKeywords) -> forebay.aio.Stream:
        stream = client.stream(self._plan.name, **keywords)
        try:
            await stream.open()
        except BaseException:
            await stream.abort()
            raise
        self._encoding = keywords.get("encoding", "bgr8")
        return stream

    async def _play(self, stream: forebay.aio.Stream, first: Frame) -> None:
        feeder = asyncio.create_task(self._feed(stream, first))
        collector = asyncio.create_task(self._collect(stream))
        try:
            await asyncio.wait({collector})  # a feeder that fails finishes the stream, which ends the collector
            if collector.exception() is None:  # all is answered: let the call end, which an abort would break
                await stream.close()
        except asyncio.CancelledError:
            feeder.cancel()
            await stream.close(INTERRUPTED_CLOSE_S)  # wait a moment for frames in flight
            await asyncio.wait({collector}, timeout=INTERRUPTED_CLOSE_S)  # it may draw behind a read that hangs
            raise
        finally:
            feeder.cancel()
            collector.cancel()
            await asyncio.gather(feeder, collector, return_exceptions=True)
            await stream.abort()
        for task in (collector, feeder):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _feed(self, stream: forebay.aio.Stream, first: Frame) -> None:
        """Send the frames."""
        self._sent_before = self._sent
        try:
            if self._is_pumped:
                await self._thread.call(self._pump, stream.state, first)
            else:
                await self._send_each(stream, first)
        finally:
            stream.finish()

    def _pump(self, state: StreamState, first: Frame) -> None:
        """Send the frames of a live source as they come; the stream drops old ones. Thread: the source's.

        A frame that the thread hands over one at a time costs two more changes of threads and three turns of the loop.
        """
        frame: Frame | None = first
        while frame is not None:
            if state.has_queued:
                self._let_send(state)
            state.try_send(payload_of(frame, self._encoding), None, None)
            self._sent += 1
            if self._sent == self._plan.limit:
                return
            frame = self._opened_source.read()

    def _let_send(self, state: StreamState) -> None:
        """Let the loop send the frame before: FFmpeg has read some seconds of video when it has opened a camera."""
        until_ns = self._clock.now_ns() + LONGEST_LET_NS
        while True:
            with state.monitor.lock:
                if not state.has_queued or state.is_over:
                    return
                change = state.monitor.subscribe()
            if not self._clock.wait(change, until_ns):
                state.monitor.unsubscribe(change)
                return

    async def _send_each(self, stream: forebay.aio.Stream, first: Frame) -> None:
        """Send each frame when it is due and there is room; keep each until its result has come."""
        item: tuple[Frame, FrameData] | None = await self._thread.call(self._prepared, first)
        while item is not None:
            await self._clock.sleep(self._pace.wait_s(self._clock.now_ns()))
            self._in_flight[self._sent - self._sent_before + 1] = item[0]  # a stream counts its frames from 1
            await stream.send(item[1])
            self._sent += 1
            if self._sent == self._plan.limit:
                break
            item = await self._thread.call(self._next)

    def _next(self) -> tuple[Frame, FrameData] | None:
        """Return the next frame and its contents. Thread: the source's."""
        frame = self._opened_source.read()
        return None if frame is None else self._prepared(frame)

    def _prepared(self, frame: Frame) -> tuple[Frame, FrameData]:
        return frame, payload_of(frame, self._encoding)

    async def _collect(self, stream: forebay.aio.Stream) -> None:
        async for result in stream:
            self._by_status[result.status.value] += 1
            index = self._sent_before + result.seq - 1
            frame = self._in_flight.pop(result.seq, None)  # none of a pumped source
            file = "" if frame is None else file_of(frame)
            if result.status.value in FAULTS:
                self._note_fault(index, file or f"frame {result.seq}", result)
            self._sink.show(self._plan.name, index, file, result)
            if self._clip is not None and frame is not None:
                await self._thread.call(self._draw, self._clip, frame, result)

    def _note_fault(self, index: int, name: str, result: forebay.Result) -> None:
        if not self._fault:
            self._fault, self._fault_index = f"{name} {result.status.value}: {result.message}", index

    def _draw(self, clip: AnnotatedClip, frame: Frame, result: forebay.Result) -> None:
        """Draw into the frame, if it can be decoded here. Thread: the source's."""
        picture = picture_of(frame)
        if picture is not None:
            clip.draw(picture, result)

    def _close(self) -> None:
        """Close the source and the clip. Thread: the source's."""
        if self._source is not None:
            self._source.close()
        if self._clip is not None:
            try:
                self._clip.close()
            except CannotWriteError as error:
                self._clip_fault = str(error)

    def _explained(self, error: Exception) -> tuple[str, int]:
        if isinstance(error, forebay.UnreachableError):
            hint = "\n  start one with `forebay serve`, or add --serve" if is_nothing_there(str(error)) else ""
            return f"{error}{hint}", exit_codes.UNAVAILABLE
        if isinstance(error, forebay.StreamRefusedError) and error.code == "NOT_FOUND":
            return f"{error}{'' if self._plan.has_model else ': name one with --model'}", exit_codes.MODEL
        return str(error), exit_codes.FAILED

    def _tell_end(self, words: str) -> None:
        if self._by_status or not words:
            counts = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in self._by_status.items())
            self._say(f"{self._title}{self._by_status.total()} frames: {counts or 'none answered'}")
        for text in self._source.skipped if self._source is not None else ():
            self._tell(f"skipped: {text}")
        if words:
            self._tell(words)
        if self._clip is not None and not self.hangs and self._clip.path.exists():
            self._say(f"written: {self._clip.path}")

    def _tell(self, words: str) -> None:
        title = "" if words.startswith(f"{self._plan.name} ") else self._title  # a source without a name of its own
        self._say(f"forebay: {title}{words}")

    @property
    def _title(self) -> str:
        return f"{self._plan.name}: " if self._plan.has_title else ""

    @property
    def _opened_source(self) -> Source:
        if self._source is None:
            raise RuntimeError("the source is not open")
        return self._source
