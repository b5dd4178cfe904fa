"""Nominal costs of an unbound model: those of the example (`service.models.example`) at every batch size.

Costs vary with the shapes that clients send, so the table is a start that the drift corrects, and no deadline is
refused because of the table alone: the drift must agree. A model that fails on the example has nominal
costs.
"""

import structlog

from forebay_server.engines.errors import EngineError
from forebay_server.service.batching.cost_model import CostTable, StageTimes
from forebay_server.service.batching.cost_table import CostTableError
from forebay_server.service.clock import Clock
from forebay_server.service.models.example import repeated
from forebay_server.service.models.trials import run_trial
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.pipeline.pipeline import Pipeline
from forebay_server.service.pipeline.unbound import Inputs, UnboundFrames

log = structlog.get_logger(__name__)

NOMINAL_NS = 1_000_000
HANG_LIMIT_NS = 600_000_000_000  # ten minutes: the duration of one batch depends on the client's shapes
FRAMES_LIMIT_BYTES = 256 << 20


def measure_unbound(lane: Pipeline, sizes: tuple[int, ...], example: Inputs, clock: Clock) -> CostTable:
    """Run each size twice on the calling thread, before the lane starts, and return the duration of the second run."""
    frames = UnboundFrames(Permits(1), FRAMES_LIMIT_BYTES)
    times: dict[int, StageTimes] = {}
    try:
        for size in sizes:
            for _ in range(2):
                frame = frames.lease(repeated(example, size, lane.engine.specs))
                run = run_trial(lane, [frame], clock, rows_each=size)
                times[size] = StageTimes(run.h2d_ns, max(1, run.execute_ns), run.d2h_ns)
        return CostTable.from_times(times)
    except (EngineError, CostTableError) as error:
        log.info("nominal costs", lane=lane.h2d.name, reason=str(error))
        return CostTable.from_times({size: StageTimes(0, NOMINAL_NS, 0) for size in sizes})
