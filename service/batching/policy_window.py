"""The policies that know no deadlines: `window` (the dynamic batcher of Triton, exactly) and `eager`. Pure.

Window, in the order of arrival within each level, levels one after the other: a preferred size that is reached leaves
at once (the largest one that is there), unless the oldest request is older than the delay, then everything pending
leaves. A request that would take the batch over the largest preferred size stays behind, and those before it leave at
once. A delay of 0 holds nothing back. The wait ends early when the next queue timeout comes. A request of another batch
key ends the batch before it.

Where a queue policy or priority levels could still change what becomes of a request, a lane gets no batch before it is
empty: a request that is bound can no longer be rejected, delayed or overtaken.

Source: `DynamicBatchScheduler::GetDynamicBatch` and `PriorityQueue` (`support_prefetching_`) of Triton's core.

Eager: all pending requests leave as soon as a lane is open.
"""

from forebay_server.service.batching.cost_model import CostModel
from forebay_server.service.batching.decision import IDLE, Decision, Form, WaitUntil
from forebay_server.service.batching.egress import NO_EGRESS, Egress
from forebay_server.service.batching.entries import Entry
from forebay_server.service.batching.lanes import LaneSet
from forebay_server.service.batching.pending import PendingQueue
from forebay_server.service.batching.settings import BatchingSettings, PolicyName


def decide_by_arrival(
    now_ns: int,
    pending: PendingQueue,
    lanes: LaneSet,
    cost: CostModel,
    settings: BatchingSettings,
    *,
    is_draining: bool = False,
    egress: Egress = NO_EGRESS,  # noqa: ARG001 - deadlines alone need it
    wants_probe: bool = False,  # noqa: ARG001 - nothing is given up here
) -> Decision:
    """Return what to do now under policy window or eager. Draining, nothing is held back."""
    lane, _ = lanes.earliest_free(settings.depth if settings.may_prefetch else 1, now_ns, cost)
    if lane is None or not pending.groups:
        return IDLE
    entries, is_closed = _candidates(pending, settings.max_batch_size)
    rows = sum(entry.rows for entry in entries)
    is_eager = settings.policy is PolicyName.EAGER
    delay_ns = 0 if is_draining or is_eager else settings.max_queue_delay_us * 1000
    preferred = () if is_eager else settings.preferred_batch_sizes or (settings.max_batch_size,)
    oldest_ns = min(entry.arrival_ns for entry in entries)
    is_delay_over = delay_ns > 0 and now_ns - oldest_ns >= delay_ns
    count, best_rows = (0, 0) if is_delay_over else _preferred_prefix(entries, preferred)
    if count:
        return _form(entries[:count], best_rows, lane.lane.index, cost)
    if is_closed or delay_ns == 0 or is_delay_over or rows >= max(preferred):
        return _form(entries, rows, lane.lane.index, cost)
    return WaitUntil(min(oldest_ns + delay_ns, pending.timeouts.next_ns or oldest_ns + delay_ns))


def _candidates(pending: PendingQueue, most_rows: int) -> tuple[list[Entry], bool]:
    """Return the entries that may be in the next batch, and whether nothing that comes can join them."""
    places = sorted((group.level, item) for group in pending.groups.values() for item in group.queue[: most_rows + 1])
    batch_key = places[0][1].entry.request.batch_key
    entries: list[Entry] = []
    rows = 0
    for _, item in places:
        entry = item.entry
        if entry.request.batch_key != batch_key or rows + entry.rows > most_rows:
            return entries, True
        entries.append(entry)
        rows += entry.rows
    return entries, rows == most_rows


def _preferred_prefix(entries: list[Entry], preferred: tuple[int, ...]) -> tuple[int, int]:
    """Return entries and rows of the prefix to send without waiting; 0 and 0 if none is worth it.

    That is the longest prefix of a preferred size; if none has one, all in front of the request that would take the
    batch over the largest preferred size.
    """
    best, best_rows, rows = 0, 0, 0
    for count, entry in enumerate(entries):
        if rows and not best and rows + entry.rows > max(preferred, default=rows + entry.rows):
            best, best_rows = count, rows
        rows += entry.rows
        if rows in preferred:
            best, best_rows = count + 1, rows
    return best, best_rows


def _form(entries: list[Entry], rows: int, lane_index: int, cost: CostModel) -> Form:
    return Form(tuple(entry.id for entry in entries), rows, cost.bucket(rows), lane_index)
