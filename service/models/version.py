"""One version of one model, ready to serve: engine instances with their lanes, a batch former, and a frame arena.

The front end uses `arrive`, `cancel`, `arena`, `feasibility` and `egress_time`; all other methods belong to the life
cycle. Built by `service.models.opening`.
"""

import threading
from collections.abc import Callable, Sequence

from forebay_server.engines.device import Device
from forebay_server.engines.engine import EngineSpecs
from forebay_server.service.batching.egress_time import EgressTime
from forebay_server.service.batching.former import BatchFormer
from forebay_server.service.clock import Clock
from forebay_server.service.errors import InvariantError, ServiceError
from forebay_server.service.journal.events import RequestJournal
from forebay_server.service.journal.statistics import VersionStatistics
from forebay_server.service.models.description import ModelDescription
from forebay_server.service.models.shared_memory import SharedMemory
from forebay_server.service.pipeline.arena import FrameArena
from forebay_server.service.pipeline.pipeline import Pipeline
from forebay_server.service.pipeline.unbound import UnboundFrames
from forebay_server.service.request import Feasibility, Request


class ModelVersion:
    """See the module.

    Attributes:
        name: of the model.
        version: decimal number.
        description: completed.
        specs: inputs and outputs of the model.
        arena: frame buffers; empty where front ends are in other processes.
        memory: shared with front ends in other processes; None where the front end is in this one.
        unbound: set instead of frame buffers for a model whose shapes vary.
        statistics: counts so far.
        requests: receives how Open Inference requests end; None disables observation.
        load_ns: duration of the opening.
        row_ns: time of a row in large batches, of all lanes together.
        egress_time: receives how long results take to leave. Thread: the event loop's.
        lanes: one per instance.
        devices: of the lanes, each once.
        hang_limit_ns: a stage that takes longer for one batch counts as hanging.
    """

    def __init__(
        self,
        description: ModelDescription,
        version: str,
        devices: Sequence[Device],
        lanes: Sequence[Pipeline],
        former: BatchFormer,
        arena: FrameArena,
        clock: Clock,
        *,
        hang_limit_ns: int,
        unbound: UnboundFrames | None = None,
        statistics: VersionStatistics | None = None,
        requests: RequestJournal | None = None,
        load_ns: int = 0,
        row_ns: int = 1,
        on_closed: Callable[[], None] = lambda: None,
        memory: SharedMemory | None = None,
    ) -> None:
        if description.specs is None:
            raise InvariantError("a version needs a completed description")
        self.name = description.name
        self.version = version
        self.description = description
        self.specs: EngineSpecs = description.specs
        self.arena = arena
        self.unbound = unbound
        self.memory = memory
        self.statistics = statistics or VersionStatistics(clock)
        self.requests = requests
        self.load_ns = load_ns
        self.row_ns = row_ns
        self._on_closed = on_closed
        self.former = former
        self.egress_time: EgressTime = former.egress_time
        self.lanes = tuple(lanes)
        self.devices = tuple(devices)
        self.hang_limit_ns = hang_limit_ns
        self._clock = clock
        self._unused = threading.Condition()
        self._users = 0
        self._is_retired = False

    @property
    def feasibility(self) -> Feasibility:
        """The former's latest snapshot. Thread: any."""
        return self.former.feasibility

    def try_use(self) -> bool:
        """Keep the version open until `end_use`; False if it is being closed: find another. Thread: any."""
        with self._unused:
            if self._is_retired:
                return False
            self._users += 1
            return True

    def end_use(self) -> None:
        """Release the version: this user brings no more requests. Thread: any."""
        with self._unused:
            self._users -= 1
            if self._users == 0:
                self._unused.notify_all()

    def retire(self) -> None:
        """Take no new users. Idempotent. Thread: any."""
        with self._unused:
            self._is_retired = True

    def wait_unused(self, until_ns: int | None) -> bool:
        """Return whether the last user of a retired version has gone. Blocks: until then, or until `until_ns`."""
        with self._unused:
            while self._users:
                if until_ns is not None and self._clock.now_ns() >= until_ns:
                    return False
                self._clock.wait(self._unused, until_ns)
            return True

    def arrive(self, request: Request) -> None:
        """Hand a request, inputs in its frame buffer, to the former. Thread: any. Blocks: no."""
        self.former.arrive(request)

    def arrive_all(self, requests: Sequence[Request]) -> None:
        """Hand requests over in order, with one wake-up for all. Thread: any. Blocks: no."""
        self.former.arrive_all(requests)

    def refuse(self, requests: Sequence[Request], error: ServiceError) -> None:
        """End requests that cannot be handed over. Thread: any. Blocks: no."""
        self.former.refuse(requests, error)

    def arrive_on_loop(self, request: Request) -> None:
        """Hand a request over as `arrive` does. Thread: the event loop's. Blocks: no."""
        self.former.arrive_on_loop(request)

    def cancel(self, requests: Sequence[Request]) -> None:
        """Free the permits of requests that are still pending. Thread: any. Blocks: no."""
        self.former.cancel(requests)

    def start(self) -> None:
        """Start every thread."""
        for lane in self.lanes:
            lane.start(self.former)
        self.former.start()

    def close(self, timeout_s: float | None = None) -> bool:
        """Wait for the last user, finish the accepted requests, join every thread and free everything.

        Returns:
            Whether all users have gone and all threads ended; if not (an engine hangs), this process cannot do more.
        """
        until_ns = None if timeout_s is None else self._clock.now_ns() + int(timeout_s * 1e9)
        self.retire()
        if not self.wait_unused(until_ns):  # a user may be writing into a frame buffer
            return False
        is_drained = self.former.drain(until_ns)
        self.former.stop()
        # The former ends before its lanes close: they must be open for the batches that it still forms.
        is_ended = self.former.join(timeout_s)
        if not is_ended:  # it may be inside the engine, with a batch that runs inline
            return False
        closed = [lane.close(timeout_s) for lane in self.lanes]
        if not (is_drained and all(closed)):
            return False
        self.devices[0].attach_thread()  # the arena belongs to this device
        self.arena.close()
        if self.memory is not None:
            self.memory.close()
        if self.requests is not None:
            self.requests.close()
        for device in self.devices:
            device.close()
        self._on_closed()
        return True
