"""Measures what batches cost at warm-up, and keeps the result so that a restart does not start blind.

A size is run until its last three executions agree within 10 %, or for 250 ms. The engine is expected to be warm: the
first run of a size is not counted all the same. Other work on the machine only ever adds time, and service corrects all
sizes by one factor: so a size that looks disturbed beside the others is measured again.

Blocks: for as long as it measures. Thread: the one that loads the model.
"""

import functools
import hashlib
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import structlog

from forebay_server.engines.clock import Clock
from forebay_server.engines.errors import EngineError
from forebay_server.service.batching.constants import (
    LIMIT_NS,
    MOST_RUNS,
    RECHECK_RUNS,
    RECHECK_TOLERANCE,
    STABLE_RUNS,
    STABLE_SPREAD,
    SUSPICIOUS,
)
from forebay_server.service.batching.cost_table import (
    CostIdentity,
    CostTable,
    CostTableError,
    StageTimes,
    load_table,
    save_table,
)

Measure = Callable[[int], StageTimes]
"""Runs one batch of so many rows through all stages and returns how long each took."""

log = structlog.get_logger(__name__)


def calibrate(
    measure: Measure,
    sizes: Sequence[int],
    clock: Clock,
    *,
    identity: CostIdentity = CostIdentity(),  # noqa: B008 - frozen
) -> CostTable:
    """Measure every size and return the table. Raises CostTableError if the engine refuses one of the sizes."""
    times = {size: _measure_size(measure, size, clock) for size in sorted(set(sizes))}
    for size in _disturbed(times):
        times[size] = min(times[size], _measure_size(measure, size, clock), key=lambda run: run.execute_ns)
    return CostTable.from_times(times, identity)


def _disturbed(times: dict[int, StageTimes]) -> list[int]:
    """Return the sizes that take longer than a larger one, or longer for a row than a smaller one."""
    nearby = list(pairwise(sorted(times)))
    too_long = [small for small, large in nearby if times[small].execute_ns > SUSPICIOUS * times[large].execute_ns]
    per_row = {size: times[size].execute_ns / size for size in times}
    return too_long + [large for small, large in nearby if per_row[large] > SUSPICIOUS * per_row[small]]


def table_path(folder: Path | None, identity: CostIdentity) -> Path | None:
    """Return where the table of `identity` is kept below `folder`; None if nothing is kept."""
    if folder is None:
        return None
    digest = hashlib.sha256(json.dumps(asdict(identity), sort_keys=True).encode()).hexdigest()[:12]
    return folder / "costs" / f"{identity.model}-{identity.version}-{digest}.json"


def obtain_table(
    path: Path | None, identity: CostIdentity, measure: Measure, sizes: Sequence[int], clock: Clock
) -> tuple[CostTable, bool]:
    """Return the kept table if it still holds, else a fresh one, which is kept; and whether it was the kept one."""
    wanted = tuple(sorted(set(sizes)))
    if path is not None:
        kept = load_table(path, identity)
        if kept is not None and kept.sizes == wanted and still_holds(kept, measure):
            return kept, True
    table = calibrate(measure, wanted, clock, identity=identity)
    if path is not None and not save_table(path, table):
        _warn_once(path.parent)
    return table, False


@functools.cache
def _warn_once(folder: Path) -> None:
    """Warn of a folder, once for all models of this process."""
    log.warning("costs cannot be kept and are measured at every start: is cache_folder writable?", folder=str(folder))


def still_holds(table: CostTable, measure: Measure) -> bool:
    """Whether the smallest and the largest size still take about as long as the table says."""
    for position in (0, -1):
        size, kept_ns = table.sizes[position], table.execute_ns[position]
        errors = (_run(measure, size).execute_ns / kept_ns - 1.0 for _ in range(RECHECK_RUNS))
        if not any(abs(error) <= RECHECK_TOLERANCE for error in errors):  # one is enough: noise only ever adds
            return False
    return True


def _measure_size(measure: Measure, size: int, clock: Clock) -> StageTimes:
    limit_ns = clock.now_ns() + LIMIT_NS
    first = _run(measure, size)
    if clock.now_ns() >= limit_ns:  # so slow that the first run's cost of caches does not show
        return first
    runs: list[StageTimes] = []
    while len(runs) < MOST_RUNS:
        runs.append(_run(measure, size))
        latest = [run.h2d_ns + run.execute_ns + run.d2h_ns for run in runs[-STABLE_RUNS:]]
        if len(latest) == STABLE_RUNS and max(latest) <= STABLE_SPREAD * max(1, min(latest)):
            runs = runs[-STABLE_RUNS:]
            break
        if clock.now_ns() >= limit_ns:
            break
    return StageTimes(
        round(statistics.median(run.h2d_ns for run in runs)),
        max(1, round(statistics.median(run.execute_ns for run in runs))),
        round(statistics.median(run.d2h_ns for run in runs)),
    )


def _run(measure: Measure, size: int) -> StageTimes:
    try:
        return measure(size)
    except EngineError as error:
        raise CostTableError(
            f"the engine refuses a batch of {size} rows: {error}; set max_batch_size to what the model can take"
        ) from error
