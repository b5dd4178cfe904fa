"""The change between two snapshots of a version's counts, and its addition to other counts. Pure.

Several engine processes run one version. Each sends the changes of its counts to the first, whose counts are the sums.
"""

from forebay_server.service.journal.statistics import BatchCounts, Counts, Duration

_DURATIONS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
_OF_BATCH = ("compute_input", "compute_infer", "compute_output")


def change(now: Counts, before: Counts) -> Counts | None:
    """Return what was counted since `before`; None if nothing was.

    Args:
        now: a snapshot.
        before: an earlier one of the same version.
    """
    if now == before:
        return None
    none = BatchCounts()
    batches = {
        rows: BatchCounts(*(_less(counts, before.batches.get(rows, none), name) for name in _OF_BATCH))
        for rows, counts in now.batches.items()
        if counts != before.batches.get(rows)
    }
    durations = {name: _less(now, before, name) for name in _DURATIONS}
    rows, executions = now.rows - before.rows, now.executions - before.executions
    failures = now.failures - before.failures
    pictures = now.pictures - before.pictures
    return Counts(
        now.last_inference_ms, rows, executions, **durations, failures=failures, batches=batches, pictures=pictures
    )


def add(counts: Counts, more: Counts) -> None:
    """Add a change to `counts`."""
    counts.last_inference_ms = max(counts.last_inference_ms, more.last_inference_ms)
    counts.rows += more.rows
    counts.executions += more.executions
    for name in _DURATIONS:
        _more(counts, more, name)
    counts.failures.update(more.failures)
    counts.pictures.update(more.pictures)
    for rows, batch in more.batches.items():
        own = counts.batches.setdefault(rows, BatchCounts())
        for name in _OF_BATCH:
            _more(own, batch, name)


def _less(now: Counts | BatchCounts, before: Counts | BatchCounts, name: str) -> Duration:
    later, earlier = getattr(now, name), getattr(before, name)
    return Duration(later.count - earlier.count, later.ns - earlier.ns)


def _more(counts: Counts | BatchCounts, more: Counts | BatchCounts, name: str) -> None:
    duration, added = getattr(counts, name), getattr(more, name)
    duration.count += added.count
    duration.ns += added.ns
