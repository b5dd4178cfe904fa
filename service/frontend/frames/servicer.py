"""forebay.v1.FrameInference: opens streams of frames, and says how their calls end. Thread: the event loop's."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeAlias

import grpc
import structlog

from forebay.wire import frames_pb2 as pb
from forebay_server.service.clock import Clock
from forebay_server.service.errors import (
    AskedToLeaveError,
    InvariantError,
    NotReadyError,
    Outcome,
    ServiceError,
    SessionStateError,
    SlowReaderError,
    TooManyStreamsError,
)
from forebay_server.service.frontend.admission import Admission
from forebay_server.service.frontend.calls import CallTasks, cut, trace_context, trace_id
from forebay_server.service.frontend.frames.codec import STREAM_STATUS, parse_client_message, tensor_spec
from forebay_server.service.frontend.frames.names import keypoint_names_to_send, labels_to_send
from forebay_server.service.frontend.frames.opening import StreamConfig, accept_open, encoding_name
from forebay_server.service.frontend.frames.recorder import StreamRecorder
from forebay_server.service.frontend.frames.session import Session
from forebay_server.service.frontend.frames.stream import OPEN_DEADLINE_S, FrameStream
from forebay_server.service.frontend.frames.tracks import StreamTracks, open_tracks
from forebay_server.service.frontend.frames.video.codecs import VideoCodecs, most_of_process
from forebay_server.service.frontend.frames.video.limits import VideoLimits, VideoPlace
from forebay_server.service.frontend.statuses import metadata_of
from forebay_server.service.frontend.stream_call import StreamCalls
from forebay_server.service.journal.events import Ending, Journal, Origin
from forebay_server.service.journal.pictures import PictureSlot
from forebay_server.service.journal.streams import ASKED, DRAIN, LIMIT, NEW, RESUMED, UNWANTED, Why
from forebay_server.service.load.choice import Weight, chosen
from forebay_server.service.load.door import Door, attempt_of
from forebay_server.service.load.listing import Listing, listing_of
from forebay_server.service.load.moving import FrameTotals
from forebay_server.service.load.overload import Wish
from forebay_server.service.models.served import FindModel, ServedVersion
from forebay_server.service.request import CompletionSink, Delivery
from forebay_server.service.settings import ServeSettings
from forebay_server.service.worker_pool import WorkerPool

log = structlog.get_logger(__name__)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
MOST_WEIGHTS = 64  # of the streams of a process; more than a twentieth of those that it may have


class FramesServicer:
    """Serves every frame stream of the process.

    Args:
        find_model: name and version to a version that is ready.
        pool: decoding.
        sink: completions made on workers.
        clock: source of monotonic nanoseconds.
        settings: limits.
        calls: ends those whose client takes nothing.
        stream_calls: has those that are open.
        admission: the way in.
        journal: receives a record of each stream and each finished frame; None disables observation.
    """

    def __init__(
        self,
        find_model: FindModel,
        pool: WorkerPool,
        sink: CompletionSink,
        clock: Clock,
        settings: ServeSettings,
        calls: CallTasks,
        stream_calls: StreamCalls,
        admission: Admission,
        journal: Journal | None = None,
    ) -> None:
        self.streams: set[FrameStream] = set()
        self.frames_received = 0  # on streams that have closed, like `outcomes`
        self.outcomes: Counter[Outcome] = Counter()
        self.late_count = 0  # of the same streams
        self.asked_to_leave: Counter[str] = Counter()  # streams, by why
        self._find_model = find_model
        self._pool = pool
        self._sink = sink
        self._clock = clock
        self._settings = settings
        self._calls = calls
        self._stream_calls = stream_calls
        self._journal = journal
        self._next_session_id: Callable[[], int] = itertools.count(1).__next__
        self._admission = admission
        most_decoders = min(settings.max_video_streams, most_of_process(settings.front_ends))
        codecs = VideoCodecs(settings.video_decode, settings.max_image_pixels, most_decoders, clock)
        self.video_decoders = codecs.store
        self.video = VideoLimits(settings.max_video_streams, settings.video_memory_bytes, codecs)
        self.door = Door()
        self._is_draining = False
        self.open_deadline_s = OPEN_DEADLINE_S

    def handler(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """Return the handler for grpc.aio. Raw bytes: the codec parses and builds."""
        method = grpc.stream_stream_rpc_method_handler(self.stream)
        return grpc.method_handlers_generic_handler("forebay.v1.FrameInference", {"Stream": method})

    def refuse(self) -> None:
        """Refuse new streams from now on: the server drains."""
        self._is_draining = True

    def ask_to_leave(self, grace_ms: int) -> None:
        """Ask the open streams to leave: the server drains."""
        for stream in self.streams:
            stream.ask_to_leave(Why.DRAIN, grace_ms, self._clock.now_ns())

    def send_away(self, version: ServedVersion, grace_ms: int) -> None:
        """Ask the streams of a version that is being unloaded to reconnect."""
        for stream in self.streams:
            if stream.session is not None and stream.session.config.version is version:
                stream.ask_to_leave(Why.UNLOADED, grace_ms, self._clock.now_ns())

    @property
    def movable_count(self) -> int:
        """How many streams `rebalance` can ask."""
        return sum(stream.can_move for stream in self.streams)

    @property
    def leaving_count(self) -> int:
        """How many streams `rebalance` has asked that are still here: those of video wait for a keyframe."""
        return sum(stream.leaves_why is Why.UNEVEN for stream in self.streams)

    def rebalance(self, count: int, grace_ms: int) -> None:
        """Ask some streams, chosen by chance, to go to other front-end processes."""
        movable = [stream for stream in self.streams if stream.can_move]
        for stream in random.sample(movable, min(count, len(movable))):
            stream.ask_to_leave(Why.UNEVEN, grace_ms, self._clock.now_ns())

    def weights(self) -> list[Weight]:
        """Return the weights of streams that `move` can ask, heavy ones first, at most `MOST_WEIGHTS` of all sizes."""
        weights = sorted((stream.weight for stream in self._movable()), key=lambda each: (each[0], -each[1]))
        return weights[:: -(-len(weights) // MOST_WEIGHTS) or 1]

    def move(self, wish: Wish, grace_ms: int, why: Why) -> int:
        """Ask some streams to go to other servers, as `choice` says. Return how many.

        Args:
            wish: which; its surplus is in shares of one instance's time.
            grace_ms: for each to half-close.
            why: OVERLOAD or OPERATOR.
        """
        now_ns = self._clock.now_ns()
        self.door.asked(now_ns)
        movable = self._movable(by_operator=why is Why.OPERATOR)
        weights = [stream.weight for stream in movable]
        asked = [movable[place] for place in chosen(weights, wish.count, wish.surplus)]
        for stream in asked:
            stream.ask_to_leave(why, grace_ms, now_ns)
        return len(asked)

    def listing(self, inference_streams: int) -> Listing:
        """Return the list of open streams; `inference_streams` are those of the other protocol."""
        now_ns = self._clock.now_ns()
        lines = [line for stream in self.streams if (line := stream.line(now_ns)) is not None]
        return listing_of(lines, len(lines), inference_streams)

    def _movable(self, *, by_operator: bool = False) -> list[FrameStream]:
        now_ns = self._clock.now_ns()
        can_go = FrameStream.can_be_sent if by_operator else FrameStream.can_go_elsewhere
        return [stream for stream in self.streams if can_go(stream, now_ns)]

    def totals(self) -> FrameTotals:
        """Return the totals of all frames so far."""
        frames, not_in_time = self.outcomes.total(), self.late_count + _missed(self.outcomes)
        for stream in self.streams:
            if stream.session is not None:
                frames += sum(stream.session.outcomes.values())
                not_in_time += stream.session.late_count + _missed(stream.session.outcomes)
        return FrameTotals(frames, not_in_time, len(self.streams))

    def _note_asked(self, why: Why) -> None:
        self.asked_to_leave[why.value] += 1

    def stop_reading(self) -> None:
        """End reading on every stream; frames that were read are still answered."""
        for stream in self.streams:
            stream.call.stop_reading()

    async def stream(self, _: Any, context: Context) -> None:  # noqa: ANN401 - grpc's request iterator, unused
        """Serve one stream: grpc.aio's handler. Every end has a status other than UNKNOWN."""
        metadata: tuple[tuple[str, str], ...] = ()
        try:
            await self._serve(context)
        except SlowReaderError as error:
            await cut(context, self._calls, error.message)
        except ServiceError as error:
            if isinstance(error, InvariantError):
                log.exception("stream failed", detail=error.detail)
            metadata = metadata_of(is_for_elsewhere=error.is_for_elsewhere, retry_after_ms=error.retry_after_ms)
            code, message = STREAM_STATUS[error.outcome], error.message
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except grpc.aio.InternalError:  # a write failed: the client has left
            raise asyncio.CancelledError from None
        except Exception:
            log.exception("stream failed")
            code, message = grpc.StatusCode.INTERNAL, "internal error; the server's log has the details"
        else:
            return
        # Outside the except blocks: `abort` keeps the error that is handled, whose frames hold a message (StatusError).
        await context.abort(code, message, metadata)

    async def _serve(self, context: Context) -> None:
        if self._is_draining:
            self._stream_calls.refused[DRAIN] += 1
            raise NotReadyError("the server is shutting down; open the stream on another one")
        if not self._stream_calls.has_room(self._settings.max_streams):
            self._stream_calls.refused[LIMIT] += 1
            raise TooManyStreamsError(
                f"the server has {self._settings.max_streams} streams open, its limit", retry_after_ms=1000
            )
        # Streams opened together must not all come back together.
        lifetime_s = self._settings.stream_lifetime_s * random.uniform(0.8, 1.2)  # noqa: S311 - not a secret
        call = self._stream_calls.begin(context)
        session_id = f"s{self._next_session_id()}"
        stream = FrameStream(call, session_id, lifetime_s, self._settings, self.open_deadline_s, self._note_asked)
        call.on_look = stream.look
        self.streams.add(stream)
        try:
            config = await self._open(stream, context)
            if config is not None:
                video = None
                try:
                    self._send_on(config, context)
                    video = self._video_place(config)
                    await self._run(stream, config, video, context)
                finally:
                    if stream.session is None:
                        config.version.end_use()
                        if video is not None:
                            video.give_back()
                    else:  # a worker may still decode into a frame buffer of the version
                        stream.session.call_at_rest(config.version.end_use)
        finally:
            self.streams.discard(stream)
            self._stream_calls.end(call)

    async def _open(self, stream: FrameStream, context: Context) -> StreamConfig | None:
        call = stream.call
        data = await call.read(context)
        if data is None:
            if call.reading.refusal is not None:
                raise call.reading.refusal
            if call.is_stopped and not self._is_draining:
                raise SessionStateError(f"no open came within {self.open_deadline_s:g} s; send it first, then frames")
            return None
        first = parse_client_message(data)
        if not isinstance(first, pb.Open):
            raise SessionStateError("the first message must be open; this one is a frame")
        while True:
            config = accept_open(first, self._find_model, self._settings)
            if config.version.try_use():
                return config  # otherwise it was unloaded just now, and the next lookup finds its successor

    def _send_on(self, config: StreamConfig, context: Context) -> None:
        if not config.is_resumed:
            return
        if self.door.sends_on(attempt_of(context.invocation_metadata() or ()), self._clock.now_ns()):
            self._stream_calls.refused[ASKED] += 1
            raise AskedToLeaveError("this server has asked streams to go elsewhere; open this one on another server")

    def _video_place(self, config: StreamConfig) -> VideoPlace | None:
        try:
            return None if config.video is None else self.video.take()
        except TooManyStreamsError:
            self._stream_calls.refused[LIMIT] += 1
            raise

    async def _run(self, stream: FrameStream, config: StreamConfig, video: VideoPlace | None, context: Context) -> None:
        call, journal, version = stream.call, self._journal, config.version
        trace = trace_context(context) if self._settings.trace_every_frames else None
        record, recorder = None, None
        if journal is not None:
            picture = PictureSlot() if config.allows_picture else None
            origin = Origin(call.reading.account.shown_address, encoding_name(config.encoding), config.budget_ms)
            record = journal.open(
                config.stream_id, version.name, version.version, trace=trace, picture=picture, origin=origin
            )
            recorder = StreamRecorder(
                record,
                journal.frames.append,
                config.encoding,
                is_video=config.video is not None,
                finds_objects=config.finds_objects,
            )
        ending = Ending.LOST
        tracks = None if config.tracks is None else open_tracks(config.tracks, self._pool, self._sink, self._clock)
        session = Session(
            config,
            self._pool,
            self._sink,
            self._clock,
            self._admission,
            max_image_pixels=self._settings.max_image_pixels,
            on_output=call.output.set,
            on_room=call.room.set,
            recorder=recorder,
            tracks=tracks,
            video=video,
        )
        # Nothing is awaited since `try_use`: `send_away` finds every stream that uses a version.
        how = self._opened_how(config)
        stream.opened(session, how)
        self._stream_calls.opened[how] += 1
        session.send_control(self._opened(stream, config, tracks).SerializeToString())
        stream.names = {"session": stream.session_id, "stream": config.stream_id}
        if record is not None:
            stream.names["id"] = record.uid  # as in metrics, page and spans
        if (found := trace_id(trace)) is not None:
            stream.names["trace_id"] = found
        log.info("stream opened", **stream.names, model=config.version.name)
        try:
            await call.converse(session, context)
            ending = Ending.ENDED
        except SlowReaderError:
            ending = Ending.SLOW
            raise
        except ServiceError:
            ending = Ending.REFUSED
            raise
        finally:
            self._log_closed(stream, session)
            if journal is not None and record is not None:
                journal.close(record, session.outcomes, ending)

    def _opened_how(self, config: StreamConfig) -> str:
        if not config.is_resumed:
            return NEW
        return RESUMED if self.door.has_room else UNWANTED

    def _opened(self, stream: FrameStream, config: StreamConfig, tracks: StreamTracks | None) -> pb.ServerMessage:
        version = config.version
        every = config.delivery is Delivery.EVERY
        return pb.ServerMessage(
            opened=pb.Opened(
                session_id=stream.session_id,
                model=version.name,
                model_version=version.version,
                inputs=[tensor_spec(spec) for spec in version.specs.inputs],
                outputs=[tensor_spec(spec) for spec in version.specs.outputs],
                window=config.window,
                stream_lifetime_s=stream.lifetime_s,
                delivery=pb.DELIVERY_EVERY if every else pb.DELIVERY_LATEST,
                latency_budget_ms=(config.budget_ns or 0) / 1e6,
                heartbeat_interval_s=self._settings.heartbeat_interval_s,
                labels=labels_to_send(version.description.task),
                keypoint_names=keypoint_names_to_send(version.description.task),
                track_resumption=_resumption(tracks),
                reorder_frames=None if config.video is None else config.video.reorder_frames,
            )
        )

    def _log_closed(self, stream: FrameStream, session: Session) -> None:
        self.frames_received += session.frames_received
        self.outcomes.update(session.outcomes)
        self.late_count += session.late_count
        outcomes = {outcome.value: count for outcome, count in session.outcomes.items()}
        log.info("stream closed", **stream.names, frames=session.frames_received, outcomes=outcomes)


def _resumption(tracks: StreamTracks | None) -> pb.TrackResumption:
    if tracks is None:
        return pb.TRACK_RESUMPTION_UNSPECIFIED
    return pb.TRACK_RESUMPTION_CONTINUED if tracks.is_continued else pb.TRACK_RESUMPTION_ANEW


def _missed(outcomes: Counter[Outcome]) -> int:
    return outcomes.get(Outcome.EXPIRED, 0) + outcomes.get(Outcome.OVERLOADED, 0)
