"""The environment of a session, stricter than the real parts and without a thread.

A model version whose former and lanes are moved by hand, an arena that knows every lease, a sink and a worker pool that
are emptied by hand.
"""

import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from forebay.wire import frames_pb2 as pb
from forebay_server.engines.device import DeviceKind
from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.service.batching.egress_time import EgressTime
from forebay_server.service.errors import Outcome, OverloadedError, RequestCancelledError, ServiceError, SupersededError
from forebay_server.service.frontend.admission import Admission
from forebay_server.service.frontend.frames.codec import FrameMessage
from forebay_server.service.frontend.frames.opening import StreamConfig, accept_open
from forebay_server.service.frontend.frames.session import Session
from forebay_server.service.frontend.frames.video.codecs import VideoCodecs
from forebay_server.service.frontend.frames.video.limits import VideoLimits
from forebay_server.service.journal.statistics import REASON_BY_OUTCOME, CountingSink, VersionStatistics
from forebay_server.service.models.description import InstanceGroup, ModelDescription
from forebay_server.service.pictures.device_picture import FilePlace
from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.pipeline.shares import Share
from forebay_server.service.request import Completion, Delivery, Feasibility, Request
from forebay_server.service.results.task import Task
from forebay_server.service.settings import ServeSettings
from forebay_server.service.worker_pool import MOST_BEGUN
from tests.support.clock import ManualClock

UINT8 = np.dtype(np.uint8)
POISON = 0xEE
PICTURE = PictureInput(4, 4, "RGB")


class StrictBuffer:
    """Host memory that may only be touched while it is leased."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.is_leased = False
        self._memory = np.full(nbytes, POISON, np.uint8)

    def write_view(self):
        assert self.is_leased, "a frame buffer is written without a lease"
        return self._memory

    read_view = write_view

    @property
    def is_poison(self) -> bool:
        return bool((self._memory == POISON).all())

    def poison(self) -> None:
        self._memory[:] = POISON


class StrictLease:
    """See service.request.FrameBuffer. `on_write` runs at the beginning of a write, as if on another thread."""

    def __init__(self, arena: "StrictArena", host: StrictBuffer) -> None:
        self._arena = arena
        self._host = host
        self.is_released = False

    @property
    def host(self) -> StrictBuffer:
        assert not self.is_released, "a released lease is used"
        if self._arena.on_write is not None:
            hook, self._arena.on_write = self._arena.on_write, None
            hook()
        return self._host

    @property
    def offsets(self) -> tuple[int, ...]:
        return self._arena.offsets

    def release(self) -> None:
        if not self.is_released:
            self.is_released = True
            self._host.is_leased = False
            self._host.poison()
            self._arena.leases.remove(self)
            self._arena.free.append(self._host)


class StrictArena:
    """`permits` buffers; `leases` are the ones that are out."""

    def __init__(self, inputs: Sequence[TensorSpec], permits: int) -> None:
        self.offsets = tuple(64 * i + sum(spec.row_bytes for spec in inputs[:i]) for i in range(len(inputs)))
        nbytes = self.offsets[-1] + inputs[-1].row_bytes
        self.row_bytes = tuple(spec.row_bytes for spec in inputs)
        self.free = [StrictBuffer(nbytes) for _ in range(permits)]
        self.leases: list[StrictLease] = []
        self.on_write = None
        self.place_of = lambda lease: None  # where a lease has room for a file

    def borrow(self, payload: memoryview, share: Share) -> None:
        """As a device with memory of its own: inputs are always copied."""

    def files_of(self, frame: StrictLease) -> FilePlace | None:
        return self.place_of(frame)

    def borrows(self, payload: memoryview) -> bool:
        """As `borrow`."""
        return False

    def lease_rows(self, rows: int, share: Share | None = None) -> StrictLease:
        assert rows == 1
        return self.lease(share)

    def lease(self, share: Share | None = None) -> StrictLease:
        if not self.free:
            raise OverloadedError("no permit is free")
        host = self.free.pop()
        assert host.is_poison, "a buffer was written after its release"
        host.is_leased = True
        lease = StrictLease(self, host)
        self.leases.append(lease)
        return lease


class ManualSink:
    """Completions that have been posted; `drain` is one iteration of the event loop. Every request ends once."""

    def __init__(self) -> None:
        self.posted: list[Completion] = []
        self._ended: set[int] = set()

    def post(self, completions: Sequence[Completion]) -> None:
        for completion in completions:
            assert completion.request.id not in self._ended, f"request {completion.request.id} ended twice"
            self._ended.add(completion.request.id)
            self.posted.append(completion)

    def drain(self) -> int:
        count = len(self.posted)
        while self.posted:
            completion = self.posted.pop(0)
            completion.request.on_completion(completion)
        return count


class ManualPool:
    """A worker pool without workers: `run_one` is one job of a worker, or one step of an item.

    Attributes:
        begun: next steps of items, oldest first.
    """

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.ring = deque()
        self.results = deque()
        self.begun = deque()

    def submit_result(self, job) -> None:
        self.results.append(job)

    def run_one(self) -> bool:
        if self.results:
            self.results.popleft()()
            return True
        if self.ring and len(self.begun) < MOST_BEGUN:
            step = self.ring.popleft().run_oldest
        elif self.begun:
            step = self.begun.popleft()
        else:
            return False
        following = step()
        if following is not None:
            self.begun.append(following)
        return True


def specs_of(input_shapes=((4, 4, 3),), output_shapes=((4, 4, 3),), dtype=UINT8, max_batch_size=8) -> EngineSpecs:
    inputs = tuple(TensorSpec(f"x{i}", dtype, shape) for i, shape in enumerate(input_shapes))
    outputs = tuple(TensorSpec(f"y{i}", dtype, shape) for i, shape in enumerate(output_shapes))
    return EngineSpecs(inputs, outputs, max_batch_size)


class ManualVersion:
    """A model version as the front end sees it (`service.models.version`); the test runs its identity model.

    Attributes:
        pending: requests by id, in order of arrival.
        executing: requests in a batch.
        is_ordered: whether requests of a stream must arrive in its order; False for video with B-frames.
        users: how many keep it open.
    """

    unbound = requests = None

    def __init__(
        self,
        clock,
        sink: ManualSink | None = None,
        *,
        specs: EngineSpecs | None = None,
        image: PictureInput | None = None,
        task: Task | None = None,
        permits: int = 8,
        latency_budget_ms: float | None = None,
    ) -> None:
        self.name, self.version = "m", "1"
        self.users = 0
        self.is_ordered = True
        self.statistics = VersionStatistics(clock)
        self.specs = specs or specs_of()
        self.description = ModelDescription(
            "m",
            "simulated",
            self.specs.max_batch_size,
            specs=self.specs,
            image=image,
            task=task,
            latency_budget_ms=latency_budget_ms,
        )
        self.arena = StrictArena(self.specs.inputs, permits)
        self.feasibility = Feasibility()
        self.egress_time = EgressTime()
        self.pending: dict[int, Request] = {}
        self.executing: list[Request] = []
        self._clock = clock
        self._sink = CountingSink(sink or ManualSink(), self.statistics)
        self._inputs: dict[int, list[np.ndarray]] = {}
        self._arrived: set[int] = set()
        self._named_in_cancel: set[int] = set()
        self._newest: dict[object, int] = {}

    def try_use(self) -> bool:
        self.users += 1
        return True

    def end_use(self) -> None:
        self.users -= 1
        assert self.users >= 0, "a use ends twice"

    def arrive(self, request: Request) -> None:
        times = request.timeline
        assert request.id not in self._arrived, "a request arrives twice"
        is_newer = request.id > self._newest.get(request.stream, 0)
        assert is_newer or not self.is_ordered, "requests of a stream arrive out of order"
        assert not request.frame.is_released, "a request arrives without its frame"
        assert 0 < times.received_ns <= times.validated_ns <= times.admitted_ns <= self._clock.now_ns()
        self._arrived.add(request.id)
        self._newest[request.stream] = request.id
        if request.stream.delivery is Delivery.LATEST:
            for older in [other for other in self.pending.values() if other.stream is request.stream]:
                self._end(older, SupersededError("a newer frame took its place"))
        self.pending[request.id] = request

    def arrive_on_loop(self, request: Request) -> None:
        self.arrive(request)

    def cancel(self, requests: Sequence[Request]) -> None:
        assert requests, "an empty cancellation fills the inbox for nothing"
        for request in requests:
            assert request.is_cancelled
            assert not request.frame.is_released, "a cancelled request holds no permit: the inbox has no bound"
            assert request.id not in self._named_in_cancel, "a request is named in two cancellations"
            self._named_in_cancel.add(request.id)
            if request.id in self.pending:
                self._end(request, RequestCancelledError("cancelled before execution"))

    def form(self) -> list[Request]:
        """Put all pending requests into a batch, upload it, and leave out cancelled ones."""
        formed = []
        for request in tuple(self.pending.values()):
            if request.is_cancelled:
                self._end(request, RequestCancelledError("cancelled before execution"))
                continue
            del self.pending[request.id]
            request.timeline.formed_ns = self._clock.now_ns()
            flat = request.frame.host.read_view()
            pairs = zip(self.specs.inputs, request.frame.offsets, strict=True)
            self._inputs[request.id] = [np.array(flat[offset : offset + spec.row_bytes]) for spec, offset in pairs]
            request.frame.release()
            formed.append(request)
        self.executing += formed
        return formed

    def finish(self, index: int = 0, error: ServiceError | None = None) -> None:
        """End one of those that execute; outputs equal inputs."""
        request = self.executing.pop(index)
        request.timeline.readable_ns = self._clock.now_ns()
        completion = Completion(request, error)
        if error is None:
            completion.model_version, completion.batch_size = self.version, 1
            completion.outputs = tuple(
                values.view(spec.dtype).reshape(1, *spec.shape)
                for values, spec in zip(self._inputs.pop(request.id), self.specs.outputs, strict=True)
            )
        self._sink.post([completion])

    @property
    def counted(self) -> dict[str, int]:
        """How requests ended by the version's statistics: by reason, or `ok`."""
        counts = self.statistics.snapshot()
        return {reason: n for reason, n in {**counts.failures, "ok": counts.success.count}.items() if n}

    def _end(self, request: Request, error: ServiceError) -> None:
        del self.pending[request.id]
        request.frame.release()
        self._sink.post([Completion(request, error)])


def by_reason(outcomes: Mapping[Outcome, int]) -> dict[str, int]:
    """Counts by outcome as `ManualVersion.counted` has them."""
    counts: Counter[str] = Counter()
    for outcome, count in outcomes.items():
        counts["ok" if outcome is Outcome.OK else REASON_BY_OUTCOME.get(outcome, "OTHER")] += count
    return dict(counts)


class SessionHarness:
    """A session with its environment; the test moves the reader and the writer of its stream.

    `gpu` is a `device_video.Gpu` on which the model runs; None for a model of the CPU.

    Attributes:
        results: written results, parsed, in order.
        output_calls: number of times that the writer was woken.
        room_calls: number of times that the reader was woken.
    """

    def __init__(
        self,
        *,
        permits: int = 8,
        image=PICTURE,
        specs=None,
        settings=None,
        gpu=None,
        pool=None,
        recorder=None,
        **open_fields,
    ):
        self.clock = ManualClock() if gpu is None else gpu.clock
        self.sink = ManualSink()
        self.pool = pool or ManualPool()
        self.version = ManualVersion(self.clock, self.sink, image=image, specs=specs, permits=permits)
        if gpu is not None:
            self.version.description = replace(
                self.version.description, device_kind=DeviceKind.CUDA, groups=(InstanceGroup(gpus=(gpu.INDEX,)),)
            )
        self.config = open_config(self.version, settings, **open_fields)
        self.results: list[pb.Result] = []
        self.output_calls = self.room_calls = 0
        self.session = Session(
            self.config,
            self.pool,
            self.sink,
            self.clock,
            Admission(self.clock, self.sink.drain),
            max_image_pixels=1_000_000,
            on_output=self._on_output,
            on_room=self._on_room,
            recorder=recorder,
            video=None if self.config.video is None else VideoLimits(1, 1 << 30, self._codecs(gpu)).take(),
        )

    def _codecs(self, gpu) -> VideoCodecs:
        return VideoCodecs("cpu", 1_000_000, 1, self.clock) if gpu is None else gpu.codecs

    def _on_output(self) -> None:
        self.output_calls += 1

    def _on_room(self) -> None:
        self.room_calls += 1

    def send(self, seq: int, payload: bytes | None = None, budget_ms: float | None = None) -> None:
        """The reader got a frame; its pixels hold `seq` unless `payload` is given."""
        if payload is None:
            payload = bytes([seq % 251]) * (self.config.payload_bytes or 48)
        frame = FrameMessage(seq, -(seq % 2**62), budget_ms, memoryview(payload))
        self.session.on_frame(frame, self.clock.now_ns())

    def write(self) -> int:
        """The writer writes all it can; returns how many results that were."""
        count = 0
        while (message := self.session.next_message()) is not None:
            found = pb.ServerMessage.FromString(message)
            if found.HasField("result"):
                self.results.append(found.result)
                count += 1
        return count

    def settle(self) -> None:
        """Let everything end that is under way."""
        while self.pool.run_one() or self.version.form() or self.version.executing or self.sink.posted:
            while self.version.executing:
                self.version.finish()
            self.sink.drain()
        self.write()

    @property
    def codes(self) -> list[tuple[int, str]]:
        """(seq, status) of every result so far."""
        return [(r.seq, pb.StatusCode.Name(r.status.code).removeprefix("STATUS_")) for r in self.results]


def open_config(version: ManualVersion, settings: ServeSettings | None = None, **open_fields) -> StreamConfig:
    """Accept an Open for `version`; by default TENSOR frames of a stream called `camera`."""
    fields = {"model": "m", "stream_id": "camera", "encoding": pb.ENCODING_TENSOR, **open_fields}
    return accept_open(pb.Open(**fields), lambda name, number: version, settings or ServeSettings())
