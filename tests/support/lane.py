"""Drives a real pipeline step by step on the calling thread, in any legal interleaving of its stages."""

from collections import deque
from itertools import count

import numpy as np

from forebay_server.engines import open_engine
from forebay_server.engines.device_simulated import SimulatedDevice
from forebay_server.service.errors import ServiceError
from forebay_server.service.pipeline.arena import FrameArena
from forebay_server.service.pipeline.builder import LaneContext, build_lane
from forebay_server.service.pipeline.model_priority import ModelPriority
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.request import Batch, Completion, Request
from tests.support.requests import frame_request
from tests.support.virtual_clock import VirtualClock

ROW_BYTES = 64
MAX_BATCH_SIZE = 4


class LaneDriver:
    """A pipeline on the simulated device, its frame arena, and its completions.

    A batch waits in `waiting[stage]`; `step(stage)` lets that stage process the oldest one, as its thread would.
    """

    def __init__(
        self,
        slot_count: int,
        device_class=SimulatedDevice,
        engine_options=None,
        clock=None,
        priority=ModelPriority(),  # noqa: B008 - frozen
        pictures=None,
        **device_options,
    ) -> None:
        self.clock = VirtualClock() if clock is None else clock
        self.device = device_class(clock=self.clock, **device_options)
        self._engine_options = engine_options or {}
        self.engine = self._open_engine()
        self.completions: list[Completion] = []
        self.fatal: list[ServiceError] = []
        context = LaneContext(
            self.clock, "1", self.completions.extend, self.fatal.append, slot_count, pictures=pictures
        )
        self.pipeline = build_lane(0, "lane", self.device, self.engine, context, priority)
        self.pipeline.warm_up((1, MAX_BATCH_SIZE))
        self.arena = FrameArena(self.device, self.engine.specs.inputs, Permits(MAX_BATCH_SIZE * (slot_count + 1)))
        self.waiting: dict[str, deque[Batch]] = {"h2d": deque(), "execute": deque(), "d2h": deque()}
        self._ids = count(1)

    def _open_engine(self):
        return open_engine(
            "simulated",
            model_path=None,
            device=self.device,
            clock=self.clock,
            options={"input_bytes": str(ROW_BYTES), "output": "copy", **self._engine_options},
            max_batch_size=MAX_BATCH_SIZE,
        )

    @property
    def slots(self):
        return self.pipeline.pool.slots

    def form(self, rows: int = 2) -> Batch | None:
        """Reserve a slot and form a batch of `rows` new requests; None if there is no free slot."""
        index = self.pipeline.try_reserve()
        if index is None:
            return None
        requests = [self.request() for _ in range(rows)]
        batch = Batch(next(self._ids), 0, index, requests, rows, rows, self.clock.now_ns())
        self.waiting["h2d"].append(batch)
        return batch

    def request(self) -> Request:
        """A request whose row holds its own id."""
        request_id = next(self._ids)
        lease = self.arena.lease()
        lease.host.write_view()[:ROW_BYTES] = request_id % 256
        return frame_request(request_id, lease, arrival_ns=self.clock.now_ns())

    def step(self, stage: str) -> Batch:
        """Let one stage process its oldest batch, and pass it on."""
        batch = self.waiting[stage].popleft()
        getattr(self.pipeline, stage).process(batch)
        if stage != "d2h":
            self.waiting["execute" if stage == "h2d" else "d2h"].append(batch)
        return batch

    def run(self, batches: int) -> None:
        """Run batches with as much overlap as the slots allow: every stage is one batch behind the one before."""
        formed = 0
        while formed < batches or any(self.waiting.values()):
            for stage in ("d2h", "execute", "h2d"):
                if self.waiting[stage]:
                    self.step(stage)
            if formed < batches and self.form() is not None:
                formed += 1

    def check_answers(self) -> None:
        """Every completion is OK and carries its own request's row."""
        for completion in self.completions:
            assert completion.error is None
            assert completion.outputs is not None
            expected = np.full((1, ROW_BYTES), completion.request.id % 256, np.uint8)
            np.testing.assert_array_equal(completion.outputs[0], expected)

    def close(self) -> None:
        """Close everything; the device reports leaks."""
        assert self.pipeline.close()
        self.arena.close()
        self.device.close()
