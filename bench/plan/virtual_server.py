"""A server on a machine of few cores, in virtual time: the real former core, and threads that share the cores.

A frame takes the way that docs/architecture.md draws: gRPC's threads, the event loop, a worker that decodes, the batch
former, an execution, a worker that makes the result, the event loop. Cameras on the same machine are one more thread,
before it and after it. Every step costs the CPU time that was measured
for it, and takes longer when the threads want more cores than there are. The rules that drop frames are the service's:
a newer frame of a LATEST stream replaces one that waits, and a frame that cannot be in time is refused.

Nothing waits and nothing reads a clock. The same costs, cameras and seed give the same outcome, always.
"""

import itertools
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from forebay_server.bench.plan.costs import PlanCosts
from forebay_server.bench.plan.shared_cores import SharedCores
from forebay_server.service.batching.core import FormerCore
from forebay_server.service.batching.cost_model import CostModel
from forebay_server.service.batching.egress_time import EgressTime
from forebay_server.service.batching.settings import BatchingSettings
from forebay_server.service.request import Batch, Completion, Delivery, Feasibility, FrameBuffer, Request, StreamKey

READ_SHARE = 0.6
"""Part of the event loop's time that a frame takes before its execution: reading costs more than writing."""
SENT_SHARE = 0.6
"""Part of a camera's time that a frame takes before it is sent: a picture is larger than its result."""
SLICE_NS = 2_000_000_000
"""Time for which the cores keep one of the measured speeds: as long as a part of the measurement takes."""
MODEL = "the model"
"""Of the parts of a server, the one that executes."""
MOST_WORKERS = 8
"""Workers of a process, as `service.worker_pool` has them: one for each core, at most eight."""
_SLOTS = 4
_FRAME = cast("FrameBuffer", SimpleNamespace(release=lambda: None))


class Arrivals(Sequence[tuple[int, int]]):
    """Frames of cameras: `(instant_ns, camera)` in order of time."""

    def __init__(self, instants_ns: NDArray[np.int64], cameras: NDArray[np.int64]) -> None:
        self._instants, self._cameras = instants_ns.tolist(), cameras.tolist()

    def __len__(self) -> int:
        """How many frames there are."""
        return len(self._instants)

    def __getitem__(self, index: int) -> tuple[int, int]:  # type: ignore[override]  # no slices
        """Return the instant and the camera of a frame."""
        return self._instants[index], self._cameras[index]


@dataclass(slots=True)
class Outcome:
    """How the frames of a run ended.

    Attributes:
        latencies_ns: of the frames that got a result, in order of their ends.
        due_ns: when each of these was due, in the same order.
        lags_ns: how late each frame left its camera; empty for cameras elsewhere.
        offered: frames that the cameras sent.
        busy: by thread, the share of its time that it had work.
        cores_busy: share of the machine's cores in use.
        mean_batch: rows.
    """

    latencies_ns: list[int] = field(default_factory=list)
    due_ns: list[int] = field(default_factory=list)
    lags_ns: list[int] = field(default_factory=list)
    offered: int = 0
    busy: dict[str, float] = field(default_factory=dict)
    cores_busy: float = 0.0
    mean_batch: float = 0.0

    @property
    def dropped_share(self) -> float:
        """Share of the offered frames without a result."""
        return 1.0 - len(self.latencies_ns) / self.offered if self.offered else 0.0


class _Thread:
    """Does jobs one after the other, or `width` at a time."""

    def __init__(self, cores: SharedCores, width: int = 1, strands: int = 1) -> None:
        self._cores, self._width, self._strands = cores, width, strands
        self._waiting: deque[tuple[float, Callable[[int], None]]] = deque()
        self._running = 0
        self.work_ns = 0.0

    def do(self, work_ns: float, on_end: Callable[[int], None], now_ns: int) -> None:
        """Do a job once those before it are done."""
        self.work_ns += work_ns
        if not work_ns:
            on_end(now_ns)
        elif self._running < self._width:
            self._begin(work_ns, on_end)
        else:
            self._waiting.append((work_ns, on_end))

    @property
    def is_free(self) -> bool:
        """Whether a job would begin at once."""
        return self._running < self._width

    def _begin(self, work_ns: float, on_end: Callable[[int], None]) -> None:
        self._running += 1

        def end(now_ns: int) -> None:
            self._running -= 1
            if self._waiting:
                self._begin(*self._waiting.popleft())
            on_end(now_ns)

        self._cores.begin(work_ns, end, self._strands)


class _Lane:
    """Runs batches one after the other; implements `service.lane.Lane`. The server does the rest."""

    def __init__(
        self, index: int, thread: _Thread, duration_ns: Callable[[int], float], server: "VirtualServer"
    ) -> None:
        self.index = index
        self.slot_count = _SLOTS
        self._thread, self._duration_ns, self._server = thread, duration_ns, server
        self._free = list(range(_SLOTS))
        self._free_ns = 0  # when the latest execution ended

    def try_reserve(self) -> int | None:
        """Take a free slot."""
        return self._free.pop() if self._free else None

    def unreserve(self, slot_index: int) -> None:
        """Give a slot back."""
        self._free.append(slot_index)

    def submit(self, batch: Batch) -> bool:
        """Begin the execution, or queue it behind the one that runs."""
        now_ns = self._server.now_ns
        batch.claim.start()

        def end(ended_ns: int) -> None:
            began_ns, self._free_ns = max(now_ns, self._free_ns), ended_ns
            self._server.executed(batch, ended_ns, max(1, ended_ns - began_ns))

        self._thread.do(self._duration_ns(batch.executed_rows), end, now_ns)
        return False


class VirtualServer:
    """See the module.

    Args:
        costs: of model and frames.
        cores: that the server can have.
        settings: of the former.
        delivery: of the streams.
        budget_ns: of each frame.
        workers: threads that decode, all front-end processes together.
        front_ends: event loops that share the streams.
        has_cameras: whether the cameras' program shares the cores.
        seed: of the scatter of executions.
    """

    def __init__(
        self,
        costs: PlanCosts,
        cores: float,
        settings: BatchingSettings,
        delivery: Delivery,
        budget_ns: int,
        *,
        workers: int,
        front_ends: int = 1,
        has_cameras: bool = False,
        seed: int = 1,
    ) -> None:
        self.now_ns = 0
        self._costs, self._delivery, self._budget_ns = costs, delivery, budget_ns
        self._cores = SharedCores(cores)
        self._random = Random(seed)  # noqa: S311 - scatter, not secrets
        self._transport, self._loop = _Thread(self._cores, front_ends), _Thread(self._cores, front_ends)
        self._front_ends = front_ends
        self._cameras = _Thread(self._cores)
        self._camera_ns = costs.frame.camera_ns if has_cameras else 0
        self._stages = _Thread(self._cores)
        self._workers = _Thread(self._cores, workers)
        self._worker_count = workers
        on_gpu = costs.strands == 0
        engine_cores = SharedCores(float(costs.instances)) if on_gpu else self._cores
        self._all_cores = (self._cores, engine_cores) if on_gpu else (self._cores,)
        self._engines = [_Thread(engine_cores, strands=max(1, costs.strands)) for _ in range(costs.instances)]
        lanes = [_Lane(index, thread, self._execution_ns, self) for index, thread in enumerate(self._engines)]
        self._lanes = lanes
        self._egress = EgressTime()
        self._feasible = Feasibility(executed_ns=0)
        cost = CostModel(costs.executed_sizes, costs.table)
        self._core = FormerCore(lanes, cost, settings, self._publish, egress_time=self._egress)
        self._wake_ns: int | None = None
        self._is_core_due = False  # whether the former has something new to look at
        self._speeds = itertools.cycle(costs.speeds or (1.0,))
        self._next_speed_ns = 0
        self._streams: dict[int, StreamKey] = {}
        self._waiting: dict[int, deque[Request]] = {}  # to be decoded, by camera
        self._ring: deque[int] = deque()  # cameras with frames that wait
        self._results: deque[Batch] = deque()
        self._arrived: dict[int, int] = {}  # request -> instant at which its frame left the camera
        self._out = Outcome()
        self._batches = self._rows = 0

    def run(self, arrivals: Arrivals) -> Outcome:
        """Take in every frame and go on until all have ended."""
        position, count = 0, len(arrivals)
        while True:
            due = [arrivals[position][0]] if position < count else []
            due += [at_ns for cores in self._all_cores if (at_ns := cores.next_end_ns()) is not None]
            if self._wake_ns is not None:
                due.append(self._wake_ns)
            if not due:
                break
            self._advance(max(self.now_ns, min(*due, self._next_speed_ns)))
            while position < count and arrivals[position][0] <= self.now_ns:
                self._sent(position, arrivals[position][1])
                position += 1
            self._work()
            self._step()
        self._out.offered = count
        self._close()
        return self._out

    def _advance(self, now_ns: int) -> None:
        """Let time pass, and end the jobs that are due."""
        self.now_ns = now_ns
        for cores in self._all_cores:
            cores.advance(now_ns)
        if now_ns >= self._next_speed_ns:
            self._cores.set_speed(next(self._speeds))
            self._next_speed_ns += SLICE_NS
        for cores in self._all_cores:
            while cores.end_due():
                pass

    def _step(self) -> None:
        """Let the former decide, where its thread would wake: something reached it, or it set a time."""
        if self._is_core_due or (self._wake_ns is not None and self._wake_ns <= self.now_ns):
            self._is_core_due = False
            self._wake_ns = self._core.step(self.now_ns)
            self._core.take_ended()

    def executed(self, batch: Batch, now_ns: int, execute_ns: int) -> None:
        """Take the end of an execution: the lane's."""
        self._batches += 1
        self._rows += batch.rows
        self._is_core_due = True
        self._core.compute_ended(batch, now_ns, 0, execute_ns)
        for request in batch.requests:
            request.timeline.readable_ns = now_ns

        def freed(at_ns: int) -> None:
            self._lanes[batch.lane_index].unreserve(batch.slot_index)
            self._is_core_due = True
            self._core.slot_freed(batch.lane_index, batch.slot_index, max(1, at_ns - now_ns))
            self._results.append(batch)

        self._stages.do(self._costs.frame.stage_ns * batch.rows, freed, now_ns)

    # --- the way of a frame -------------------------------------------------------------------------------------------

    def _sent(self, index: int, camera: int) -> None:
        self._arrived[index] = due_ns = self.now_ns
        frame = self._costs.frame
        sending_ns = self._camera_ns * SENT_SHARE

        def sent(now_ns: int) -> None:
            if sending_ns:
                self._out.lags_ns.append(max(0, round(now_ns - due_ns - sending_ns)))
            self._transport.do(frame.transport_ns, received, now_ns)

        def received(now_ns: int) -> None:
            self._loop.do(frame.loop_ns * READ_SHARE, lambda at_ns: self._admit(index, camera, at_ns), now_ns)

        self._cameras.do(sending_ns, sent, due_ns)

    def _admit(self, index: int, camera: int, now_ns: int) -> None:
        deadline_ns = now_ns + self._budget_ns
        if self._feasible.is_hopeless(now_ns, deadline_ns, self._costs.frame.decode_ns):
            return
        key = self._streams.get(camera)
        if key is None:
            key = self._streams[camera] = StreamKey(str(camera), self._delivery)
        request = Request(index, key, 1, None, deadline_ns, now_ns, 1, _FRAME, _ignore)
        if not self._costs.frame.decode_ns:
            self._arrive(request, now_ns)
            return
        queue = self._waiting.setdefault(camera, deque())
        if self._delivery is Delivery.LATEST:
            queue.clear()
        queue.append(request)
        if camera not in self._ring:
            self._ring.append(camera)

    def _arrive(self, request: Request, now_ns: int) -> None:
        self._is_core_due = True
        self._core.arrive(request, now_ns)

    def _work(self) -> None:
        """Give the free workers something to do: results first, then a frame of each camera in turn."""
        while self._workers.is_free and (self._results or self._ring):
            if self._results:
                batch = self._results.popleft()
                work_ns = self._costs.frame.result_ns * batch.rows
                self._workers.do(work_ns, lambda now_ns, batch=batch: self._deliver(batch, now_ns), self.now_ns)  # type: ignore[misc]
                continue
            camera = self._ring.popleft()
            queue = self._waiting[camera]
            if not queue:
                continue
            request = queue.popleft()
            if queue:
                self._ring.append(camera)
            if self._feasible.is_hopeless(self.now_ns, request.deadline_ns, self._costs.frame.decode_ns):
                continue
            self._workers.do(
                self._costs.frame.decode_ns,
                lambda now_ns, request=request: self._arrive(request, now_ns),  # type: ignore[misc]
                self.now_ns,
            )

    def _deliver(self, batch: Batch, now_ns: int) -> None:
        for request in batch.requests:
            self._loop.do(
                self._costs.frame.loop_ns * (1.0 - READ_SHARE),
                lambda at_ns, request=request: self._left(request, at_ns),  # type: ignore[misc]
                now_ns,
            )

    def _left(self, request: Request, now_ns: int) -> None:
        self._egress.observe(request.timeline.readable_ns, now_ns)
        self._cameras.do(self._camera_ns * (1.0 - SENT_SHARE), lambda at_ns: self._seen(request, at_ns), now_ns)

    def _seen(self, request: Request, now_ns: int) -> None:
        due_ns = self._arrived.pop(request.id)
        self._out.due_ns.append(due_ns)
        self._out.latencies_ns.append(now_ns - due_ns)

    # --- the rest -----------------------------------------------------------------------------------------------------

    def _execution_ns(self, rows: int) -> float:
        costs = self._costs
        scatter = costs.scatter
        factor = math.exp(self._random.gauss(-(scatter**2) / 2, scatter)) if scatter else 1.0
        size = next(each for each in costs.executed_sizes if each >= rows)
        return execution_ns(costs, size) * factor

    def _publish(self, feasible: Feasibility) -> None:
        self._feasible = feasible

    def _close(self) -> None:
        span_ns = max(1, self.now_ns)
        engines = sum(thread.work_ns for thread in self._engines) / len(self._engines)
        self._out.busy = {
            "gRPC's threads": self._transport.work_ns / span_ns / self._front_ends,
            "the event loop": self._loop.work_ns / span_ns / self._front_ends,
            "the workers": self._workers.work_ns / span_ns / self._worker_count,
            MODEL: engines / span_ns,
            "the cameras' program": self._cameras.work_ns / span_ns,
        }
        self._out.cores_busy = self._cores.busy_ns / span_ns
        self._out.mean_batch = self._rows / self._batches if self._batches else 0.0


def execution_ns(costs: PlanCosts, rows: int) -> float:
    """Return the duration of all stages of a batch with the machine to itself, between measured sizes by a line."""
    table = costs.table
    sizes = table.sizes
    stages = [sum(times) for times in zip(table.h2d_ns, table.execute_ns, table.d2h_ns, strict=True)]
    return float(np.interp(rows, sizes, stages))


def _ignore(_: Completion) -> None:
    """Completions are read from the core, not from requests."""
