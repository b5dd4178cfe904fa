"""Who goes into the batch that is due, and who is given up when time is short. Pure, a part of `policy`.

Theory of operation
    If the whole batch can be done before its tightest deadline, it goes as it is. Under overload that means almost
    surely (the upper estimate): a row that turns out late cost another its place. Below it means probably (the mean):
    giving a head up loses it for certain, trying loses it at worst. If the batch cannot be done, there are two ways.
    Shrink: serve the head in a batch small enough for it, if all rows behind it can still be served in time
    (`_rest_in_time`). Else give heads up until the rate of served rows per time is at its best (`_best_start`): a
    server that gives every head the tiny batch that it needs dies under overload.

    The time of a batch from its upload to its last result depends on its rows in every stage, so a smaller batch is
    charged less in every stage (`_left_ns`). Charged for rows that it does not have, it would shrink to nothing.

    In a sustained overload some streams must lose frames; then the streams that were served least go first.
"""

from bisect import bisect_right
from typing import NamedTuple

from forebay_server.service.batching.constants import (
    CERTAIN_OVERLOAD,
    FAIR_WINDOW,
    GREEDY,
    HYSTERESIS,
    LEAST_FAIR_WINDOW,
    OVERLOAD,
    SUSTAINED_OVERLOAD,
)
from forebay_server.service.batching.cost_model import CostModel
from forebay_server.service.batching.decision import Form
from forebay_server.service.batching.egress import Egress
from forebay_server.service.batching.entries import Group, PendingStream, QueueItem
from forebay_server.service.batching.pending import PendingQueue


class Situation(NamedTuple):
    """The values that all rules of one decision read.

    Attributes:
        largest: rows of the largest batch worth forming.
        rate: rows per nanosecond that arrive of late.
        free_ns: predicted compute-free instant of the lane.
        lane_index: the lane that takes the batch.
    """

    now_ns: int
    group: Group
    pending: PendingQueue
    cost: CostModel
    egress: Egress
    largest: int
    rate: float
    free_ns: float
    lane_index: int

    @property
    def full_rate(self) -> float:
        """Rows per nanosecond in batches of the largest size."""
        return self.largest / self.cost.mean_ns(self.largest)


def choose(situation: Situation, rows: int) -> Form:
    """Return the batch to form now, of at most `rows` rows."""
    group = situation.group
    full_rate = situation.full_rate
    sustained_load = situation.pending.demand.sustained_rate / full_rate
    is_overloaded = situation.rate > OVERLOAD * full_rate
    tightest_ns = _tightest_ns(group, rows)
    upper_ns = situation.cost.estimate_ns
    # In an overload a row that turns out late has cost another one its place: the whole batch must fit almost surely.
    # Below it, giving a head up loses it for certain, and trying loses it at worst: it must fit on average.
    likely_ns = upper_ns if is_overloaded else situation.cost.mean_ns
    whole_ns = _left_ns(situation, rows, likely_ns(rows), is_sure=is_overloaded)
    if whole_ns <= tightest_ns:  # all rows are in time; fairness decides which are in the batch if demand is too high
        return _form(situation, rows, whole_ns, is_fair=sustained_load > CERTAIN_OVERLOAD)
    lefts_ns = [
        _left_ns(situation, size, upper_ns(size), is_sure=is_overloaded)
        for size in range(max(rows, situation.largest) + 1)
    ]
    kept = max(1, group.queue[0].entry.rows, min(rows, _rows_until(lefts_ns, tightest_ns)))
    if kept >= group.rows or (not is_overloaded and _rest_in_time(situation, kept)):
        # Shrink: a smaller batch saves the head, and all rows behind it stay in time.
        return _form(situation, kept, lefts_ns[kept], is_fair=False)
    # Shrinking would lose others: serve where rows per time are best, and give up the heads before it. Nothing else
    # keeps a server in overload from serving ever smaller batches.
    first, best_rows = _best_start(situation, lefts_ns, kept)
    # Where batching gains nothing no head is given up (`first` is 0), but most expire behind the others all the same.
    is_fair = sustained_load > (SUSTAINED_OVERLOAD if first else CERTAIN_OVERLOAD)
    return _form(situation, best_rows, lefts_ns[best_rows], is_fair=is_fair, first=first)


def _left_ns(situation: Situation, rows: int, execute_ns: float, *, is_sure: bool) -> float:
    """Return when the results of a batch of `rows` rows will have left; surely the last of them, or likely all."""
    cost, egress = situation.cost, situation.egress
    executed_ns = max(situation.now_ns + cost.h2d_ns(rows), situation.free_ns) + execute_ns
    downloaded_ns = executed_ns + cost.d2h_ns(rows)
    return egress.left_upper_ns(downloaded_ns, rows) if is_sure else egress.left_ns(downloaded_ns, rows)


def _rows_until(lefts_ns: list[float], deadline_ns: float) -> int:
    """Return the most rows that are done by a deadline; 0 if not even one is."""
    return max(0, bisect_right(lefts_ns, deadline_ns) - 1)


def _tightest_ns(group: Group, rows: int) -> int:
    """Return the smallest deadline among the first `rows` rows of the group."""
    queue = group.queue
    if not (group.early_entries or group.delayed_entries):
        return queue[0].order_key
    return min([item.entry.deadline_ns for item in queue[:rows]])


def _rest_in_time(situation: Situation, kept: int) -> bool:
    """Whether all rows behind the first `kept`, in order and in batches that may shrink, would be in time."""
    cost, egress, queue, largest = situation.cost, situation.egress, situation.group.queue, situation.largest
    spans_ns = [
        cost.estimate_ns(rows) + egress.with_download_ns(cost.d2h_ns(rows), rows) for rows in range(largest + 1)
    ]
    end_ns = max(situation.now_ns + cost.h2d_ns(kept), situation.free_ns) + cost.mean_ns(kept)
    position, left = _skip(situation.group, 0, kept)
    while position < len(queue):
        head = queue[position].entry
        size = min(largest, left, _rows_until(spans_ns, head.deadline_ns - end_ns))
        if size < head.rows:
            return False
        end_ns += cost.mean_ns(size)
        position, skipped_left = _skip(situation.group, position, size, left)
        left = skipped_left
    return True


def _skip(group: Group, position: int, rows: int, left: int | None = None) -> tuple[int, int]:
    """Return the position behind a prefix of at most `rows` rows (at least one entry), and the rows left there."""
    left = group.rows if left is None else left
    if not group.multi_row_entries:
        return position + rows, left - rows
    queue = group.queue
    taken = queue[position].entry.rows
    position += 1
    while position < len(queue) and taken + queue[position].entry.rows <= rows:
        taken += queue[position].entry.rows
        position += 1
    return position, left - taken


def _best_start(situation: Situation, lefts_ns: list[float], kept: int) -> tuple[int, int]:
    """Return how many heads to pass over and how many rows to serve behind them, for the best rate.

    Later heads have more time, so the batch only grows on the way; the search ends at the first that cannot grow.
    """
    cost, queue = situation.cost, situation.group.queue
    best_rate, best_first, best_rows = kept / cost.mean_ns(kept), 0, kept
    left = situation.group.rows - queue[0].entry.rows
    for first in range(1, len(queue)):
        entry = queue[first].entry
        possible = min(situation.largest, left)
        rows = min(possible, _rows_until(lefts_ns, entry.deadline_ns))
        left -= entry.rows
        if rows < entry.rows:
            continue
        rate = rows / cost.mean_ns(rows)
        if rate > best_rate * HYSTERESIS:
            best_rate, best_first, best_rows = rate, first, rows
        if rows >= possible:
            break
    return best_first, best_rows


def _form(situation: Situation, rows: int, done_ns: float, *, is_fair: bool, first: int = 0) -> Form:
    """Build the decision: rows that go, rows given up, rows of lower levels that are in time by `done_ns`."""
    group, cost = situation.group, situation.cost
    queue = group.queue
    shed_ids: tuple[int, ...] = ()
    candidates = queue
    if first:
        shed_ids = tuple(item.id for item in queue[:first] if item.entry.deadline_ns < done_ns)
        candidates = [item for item in queue[:first] if item.entry.deadline_ns >= done_ns] + queue[first:]
    most = GREEDY * situation.largest
    if len(candidates) > 1 and (is_fair or any(item.entry.stream.entries > most for item in candidates[:rows])):
        candidates = _least_served_first(candidates[: max(LEAST_FAIR_WINDOW, FAIR_WINDOW * situation.largest)])
    ids, taken = _take(candidates, rows, is_unit=not group.multi_row_entries)
    if taken < rows and len(situation.pending.groups) > 1:
        taken += _fill(situation, ids, rows - taken, done_ns)
    return Form(tuple(ids), taken, cost.bucket(taken), situation.lane_index, shed_ids)


def _take(candidates: list[QueueItem], rows: int, *, is_unit: bool) -> tuple[list[int], int]:
    """Return the ids of the longest prefix of at most `rows` rows (at least one entry), and its rows."""
    if is_unit:
        ids = [item.id for item in candidates[:rows]]
        return ids, len(ids)
    ids, taken = [candidates[0].id], candidates[0].entry.rows
    for item in candidates[1:]:
        if taken + item.entry.rows > rows:
            break
        ids.append(item.id)
        taken += item.entry.rows
    return ids, taken


def _fill(situation: Situation, ids: list[int], room: int, done_ns: float) -> int:
    """Append to `ids` what other levels can add in `room` rows without being late; return the rows added.

    On an ordered stream, the frames behind one that would be late stay too: another lane may still serve that one.
    """
    lead = situation.group
    others = [g for g in situation.pending.groups.values() if g.batch_key == lead.batch_key and g is not lead]
    added = 0
    passed_over: set[PendingStream | None] = set()
    for group in sorted(others, key=lambda other: other.level):
        for item in group.queue:
            entry = item.entry
            if entry.ordered_stream in passed_over:
                continue
            if entry.deadline_ns < done_ns:
                if entry.ordered_stream is not None:
                    passed_over.add(entry.ordered_stream)
                continue
            if entry.rows > room - added:
                return added
            ids.append(item.id)
            added += entry.rows
    return added


def _least_served_first(candidates: list[QueueItem]) -> list[QueueItem]:
    """Return the candidates by how much was served of their stream; those of one stream stay as they were."""
    picked: dict[PendingStream, int] = {}
    ranked = []
    for position, item in enumerate(candidates):
        entry = item.entry
        rows = picked.get(entry.stream, 0)
        picked[entry.stream] = rows + entry.rows
        ranked.append((entry.stream.share.with_picked(rows), position, item))
    ranked.sort()
    return [item for _, _, item in ranked]
