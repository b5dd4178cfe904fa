"""The numbers of a batch former for metrics."""

from dataclasses import dataclass
from typing import Any

from forebay_server.service.batching.core import FormerCore
from forebay_server.service.batching.endings import Reason
from forebay_server.service.channel import Channel, ChannelStatistics


@dataclass(frozen=True, slots=True)
class FormerStatistics:
    """A snapshot for metrics; counts only rise.

    Attributes:
        pending_requests: in no batch yet.
        waiting_requests: not executed yet: pending, or in a batch that waits in its lane.
        ended: requests that ended without execution, by reason.
        guard_ns: how much before the last moment batches are bound now.
        drift_ratio: how much slower executions are than calibrated.
        egress_ns: forecast of egress for the batch that is formed next, the results in front of it included.
    """

    pending_requests: int
    waiting_requests: int
    pending_streams: int
    arrivals: int
    batches: int
    rows: int
    executed_rows: int
    decisions: int
    wake_ups: int
    ended: dict[Reason, int]
    guard_ns: int
    drift_ratio: float
    egress_ns: int
    in_flight: int
    inbox: ChannelStatistics


def statistics_of(core: FormerCore, inbox: Channel[Any]) -> FormerStatistics:
    """Return a snapshot. Thread: any; numbers may be of neighbouring moments."""
    counters = core.counters
    pending_requests = len(core.pending)
    return FormerStatistics(
        pending_requests=pending_requests,
        waiting_requests=pending_requests + len(core.lanes.waiting()),
        pending_streams=core.pending.waiting_streams,
        arrivals=counters.arrivals,
        batches=counters.batches,
        rows=counters.rows,
        executed_rows=counters.executed_rows,
        decisions=counters.decisions,
        wake_ups=counters.steps,
        ended=dict(core.endings),
        guard_ns=core.lanes.guard.guard_ns,
        drift_ratio=core.cost.execute_drift.ratio,
        egress_ns=core.egress.first_result_ns,
        in_flight=core.lanes.in_flight,
        inbox=inbox.statistics(),
    )
