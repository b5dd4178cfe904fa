"""The numbers of a batch former for metrics and the live page."""

from dataclasses import dataclass

from forebay_server.service.batching.core import FormerCore


@dataclass(frozen=True, slots=True)
class FormerStatistics:
    """A snapshot of a former.

    Attributes:
        pending_requests: in no batch yet.
        waiting_requests: not executed yet: pending, or in a batch that waits in its lane.
        pending_streams: with pending requests.
        guard_ns: how much before the last moment batches are bound now.
        drift_ratio: how much slower executions are than calibrated.
        egress_ns: forecast of egress for the batch that is formed next, the results in front of it included.
        in_flight: batches from formed to computed.
    """

    pending_requests: int
    waiting_requests: int
    pending_streams: int
    guard_ns: int
    drift_ratio: float
    egress_ns: int
    in_flight: int


def statistics_of(core: FormerCore) -> FormerStatistics:
    """Return a snapshot. Thread: any; numbers may be of neighbouring moments."""
    pending_requests = len(core.pending)
    return FormerStatistics(
        pending_requests=pending_requests,
        waiting_requests=pending_requests + len(core.lanes.waiting()),
        pending_streams=core.pending.waiting_streams,
        guard_ns=core.lanes.guard.guard_ns,
        drift_ratio=core.cost.execute_drift.ratio,
        egress_ns=core.egress.first_result_ns,
        in_flight=core.lanes.in_flight,
    )
