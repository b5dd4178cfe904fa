"""The decision under policy jit_edf: form a batch, shed requests, or wait. Pure: reads everything, changes nothing.

Theory of operation
    Earliest deadline first. A batch is bound late: only when its upload must start for compute not to run dry (the
    guard covers how late a timer can be); until then newcomers can still join or go first. On a free executor nothing
    waits, except for company that is worth it (`_gather_until_ns`). The requests of the batch, and the requests to give
    up when time is short, are chosen at that moment and no earlier (`selection`).

    Strict priority: the most urgent level that has requests leads; lower levels fill the room that is left. One batch
    in eight may be led by an aged request of a lower level, so that nothing starves.

`policy_window` holds the other policies (window, eager).
"""

import math

from forebay_server.service.batching.constants import (
    AGED_EVERY,
    AGED_SLACK_BATCHES,
    AT_ONCE_LATENESS,
    FULL_BATCH_LEAD,
    GATHER_ALPHAS,
    KNEE_LOAD,
    KNEE_MARGIN,
    LARGEST_GUARD,
    MAX_DEPTH,
    NEVER_NS,
)
from forebay_server.service.batching.cost_model import CostModel
from forebay_server.service.batching.decision import IDLE, Decision, Shed, WaitUntil
from forebay_server.service.batching.egress import NO_EGRESS, Egress
from forebay_server.service.batching.entries import Group
from forebay_server.service.batching.lanes import LaneSet
from forebay_server.service.batching.pending import PendingQueue
from forebay_server.service.batching.selection import Situation, choose
from forebay_server.service.batching.settings import BatchingSettings


def decide(
    now_ns: int,
    pending: PendingQueue,
    lanes: LaneSet,
    cost: CostModel,
    settings: BatchingSettings,
    *,
    is_draining: bool = False,
    egress: Egress = NO_EGRESS,
    wants_probe: bool = False,
) -> Decision:
    """Return what to do now. Draining, nothing waits for company.

    Args:
        now_ns: this instant.
        pending: the requests that wait.
        lanes: where a batch can go, and how late batches were bound.
        cost: predicts durations.
        settings: of the model.
        is_draining: whether no company will come.
        egress: the forecast of egress for the batch that is formed next.
        wants_probe: whether a request is to be executed even if it is expected to be late (`doubt`).
    """
    group = _leading_group(now_ns, pending, cost)
    if group is None:
        return IDLE
    largest = min(settings.max_batch_size, cost.efficient_size)
    rate = pending.demand.rate(now_ns)
    rows = _wanted_rows(now_ns, group, pending, cost, settings, _knee(rate, largest, cost))
    guard_ns = lanes.guard.within(LARGEST_GUARD * cost.mean_ns(rows))
    # Where timers usually are so late that the executor would idle for a good part of a batch, late binding loses more
    # than it wins: bind at once, and one batch deeper, so that one always waits in the lane (docs/adr/0010).
    is_bound_at_once = lanes.guard.usual_ns > AT_ONCE_LATENESS * cost.mean_ns(rows)
    lane, free_ns = lanes.earliest_free(MAX_DEPTH if is_bound_at_once else settings.depth, now_ns, cost)
    bind_ns = 0
    if lane is not None and not is_bound_at_once:
        # The last moment: the upload, at its slowest, ends when compute gets free. A full batch cannot grow while it
        # waits, so it is bound earlier: there is nothing to win, and a late timer would idle the executor.
        lead_ns = FULL_BATCH_LEAD * cost.mean_ns(largest) if _is_full(group, largest, free_ns, cost, egress) else 0.0
        bind_ns = int(free_ns - cost.h2d_upper_ns(rows) - guard_ns - lead_ns)
    if lane is None or now_ns < bind_ns:
        # Every lane is full, or it is too early: until then requests can still join or go first. All that can be done
        # is to answer those that are lost.
        return _shed_or_sleep(now_ns, pending, cost, bind_ns)
    is_idle = lane.in_flight == 0
    soonest_ns = _soonest_ns(now_ns, free_ns, cost, egress, is_idle=is_idle, wants_probe=wants_probe)
    shed_ids = _hopeless(pending, soonest_ns)
    if shed_ids:
        # Give up first, then decide again: lost requests must not count as demand for a larger batch.
        return Shed(shed_ids)
    situation = Situation(now_ns, group, pending, cost, egress, largest, rate, free_ns, lane.lane.index)
    if is_idle and settings.max_queue_delay_us and not is_draining and rows == group.rows < largest:
        # An idle executor waits for company only if the configuration allows it, and if a row that comes could still
        # join: `rows` is all there is and less than the largest batch.
        gather_until_ns = _gather_until_ns(situation, guard_ns, settings)
        if gather_until_ns > now_ns:
            return WaitUntil(gather_until_ns)
    return choose(situation, rows)


def _leading_group(now_ns: int, pending: PendingQueue, cost: CostModel) -> Group | None:
    """Return the group whose head goes first: the most urgent level, then the earliest order key."""
    groups = pending.groups
    if not groups:
        return None
    if len(groups) == 1:  # nearly always: one priority level, one batch key
        return next(iter(groups.values()))
    top_level = min(level for level, _ in groups)
    if pending.batches_taken % AGED_EVERY == AGED_EVERY - 1:
        # Once in a while a request of a lower level leads whose time is nearly over. A steady load of the top level
        # would starve it otherwise.
        horizon_ns = now_ns + AGED_SLACK_BATCHES * cost.estimate_ns(cost.max_size)
        aged = [g for g in groups.values() if g.level > top_level and g.queue[0].order_key < horizon_ns]
        if aged:
            return min(aged, key=lambda group: group.queue[0])
    return min((g for g in groups.values() if g.level == top_level), key=lambda group: group.queue[0])


def _knee(rate: float, largest: int, cost: CostModel) -> int:
    """Return the rows beyond which a batch only makes its first request wait, at this rate of arrival."""
    alpha_ns = cost.alpha_base_ns * cost.execute_drift.ratio
    beta_ns = cost.beta_base_ns * cost.execute_drift.ratio
    load = KNEE_LOAD * rate * beta_ns
    if load >= 1.0:  # batches of any size fall behind: only the best rate helps
        return largest
    # At least the size from which the rows take longer than the fixed cost. Otherwise the size at which a server that
    # takes all that is there settles: alpha * rate / (1 - rate * beta).
    knee = max(1, math.ceil(alpha_ns / beta_ns), math.ceil(KNEE_MARGIN * rate * alpha_ns / (1.0 - load)))
    return min(largest, cost.bucket(knee))


def _wanted_rows(
    now_ns: int, group: Group, pending: PendingQueue, cost: CostModel, settings: BatchingSettings, most: int
) -> int:
    """Return how many rows to form if time allows, from the pending rows, the knee, captured and preferred sizes."""
    available = group.rows
    if len(pending.groups) > 1:  # lower levels of the same key fill the room that is left
        available = sum(other.rows for other in pending.groups.values() if other.batch_key == group.batch_key)
    rows = min(available, most)
    head = group.queue[0].entry
    preferred = settings.preferred_batch_sizes
    if preferred:  # cut down to a size that the configuration prefers, until its delay is over: then all leave
        delay_ns = settings.max_queue_delay_us * 1000
        is_late = delay_ns > 0 and now_ns - head.arrival_ns >= delay_ns
        rows = rows if is_late else max((size for size in preferred if size <= rows), default=rows)
    return max(head.rows, cost.floor_or_pad(rows))


def _is_full(group: Group, largest: int, free_ns: float, cost: CostModel, egress: Egress) -> bool:
    """Whether a largest batch is there that would be in time: heads that will have to be given up do not count."""
    if group.rows < largest:
        return False
    head_of_last = group.queue[max(0, len(group.queue) - largest)].entry
    after_ns = egress.with_download_ns(cost.d2h_ns(largest), largest)
    return head_of_last.deadline_ns >= free_ns + cost.estimate_ns(largest) + after_ns


def _soonest_ns(
    now_ns: int, free_ns: float, cost: CostModel, egress: Egress, *, is_idle: bool, wants_probe: bool
) -> float:
    """Return when the result of a lone row that is bound now would have left."""
    if not is_idle:
        after_ns = egress.with_download_ns(cost.d2h_ns(1), 1)
        return max(now_ns + cost.h2d_ns(1), free_ns) + (cost.mean_ns(1) + after_ns)
    # On an idle executor, ignore the slow-drift correction: without a run nothing could correct it again. Ignore egress
    # for the same reason while nothing is on its way out. A probe (`doubt`) ignores the calibration as well.
    least_ns = 0.0 if wants_probe else cost.least_service_ns()
    return now_ns + (least_ns if egress.is_idle else least_ns + egress.first_result_ns + egress.interval_ns / 2)


def _hopeless(pending: PendingQueue, before_ns: float) -> tuple[int, ...]:
    """Return the requests whose own deadline is before `before_ns`: even alone they would be late."""
    ids: list[int] = []
    for group in pending.groups.values():
        queue = group.queue
        if group.delayed_entries:  # order keys say nothing about deadlines here: look at all
            ids.extend(item.id for item in queue if item.entry.deadline_ns < before_ns)
            continue
        for item in queue:
            if item.order_key >= before_ns:  # no deadline is before the order key
                break
            if item.entry.deadline_ns < before_ns:
                ids.append(item.id)
    if pending.blocked_entries:
        ids.extend(entry.id for entry in pending.blocked() if entry.deadline_ns < before_ns)
    return tuple(ids)


def _shed_or_sleep(now_ns: int, pending: PendingQueue, cost: CostModel, bind_ns: int) -> Decision:
    """Nothing can be formed yet: give up requests that are certainly lost, and sleep until one is or `bind_ns`."""
    # Do not use the predicted free time or the drift here: both may be pessimistic, and a request that is shed cannot
    # be brought back.
    least_ns = cost.least_service_ns()
    shed_ids = _hopeless(pending, now_ns + least_ns)
    if shed_ids:
        return Shed(shed_ids)
    earliest_ns = min((_earliest_deadline_ns(group) for group in pending.groups.values()), default=NEVER_NS)
    if pending.blocked_entries:
        earliest_ns = min(earliest_ns, *(entry.deadline_ns for entry in pending.blocked()))
    lost_ns = int(earliest_ns - least_ns) + 1
    if bind_ns and bind_ns <= lost_ns:  # binding comes first; the next decision looks for losses again
        return WaitUntil(bind_ns, is_binding=True)
    return IDLE if earliest_ns >= NEVER_NS else WaitUntil(max(lost_ns, now_ns + 1))


def _earliest_deadline_ns(group: Group) -> int:
    if group.unlimited_entries == len(group.queue):
        return NEVER_NS
    if group.delayed_entries:
        return min(item.entry.deadline_ns for item in group.queue)
    earliest_ns = NEVER_NS
    for item in group.queue:
        if item.order_key >= earliest_ns:  # and so is every later deadline
            break
        earliest_ns = min(earliest_ns, item.entry.deadline_ns)
    return earliest_ns


def _gather_until_ns(situation: Situation, guard_ns: int, settings: BatchingSettings) -> int:
    """Return until when waiting for company is worth it on an idle executor; not after now if it is not.

    The alpha/2 rule: one more row in this batch saves the fixed cost alpha of another batch, and delays those who are
    here. It pays if the next arrival is expected before the oldest is alpha/2 old.
    """
    now_ns, cost, group, egress = situation.now_ns, situation.cost, situation.group, situation.egress
    oldest_ns = min(item.entry.arrival_ns for item in group.queue)
    worth_until_ns = oldest_ns + GATHER_ALPHAS * cost.alpha_base_ns * cost.execute_drift.ratio
    if situation.rate <= 0.0 or now_ns + 1.0 / situation.rate >= worth_until_ns:
        return now_ns
    size = min(group.rows + 1, situation.largest)
    after_ns = egress.with_download_ns(cost.d2h_ns(size), size)
    finish_ns = cost.estimate_ns(size) + cost.h2d_ns(size) + after_ns + guard_ns
    return int(
        min(worth_until_ns, oldest_ns + settings.max_queue_delay_us * 1000, _earliest_deadline_ns(group) - finish_ns)
    )
