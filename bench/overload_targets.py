"""The targets of a measured overload, and where a run missed them. Pure: it reads records (`record_of`)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from forebay_server.bench.overload import LIMIT_MS
from forebay_server.bench.overload_account import REACH_BUDGETS

Record: TypeAlias = Mapping[str, Any]

MOST_HEALTH_MS = 250.0
LEAST_DECIDED = 0.99  # of the refusals: the last hundredth is the clock's, and the interpreter's switch interval
LEAST_DISTURBED = 0.75  # of what a load of 1.0 gives beside the same hog
LEAST_MOVED = 0.80  # of what two cores can move, where that is less than the capacity
LEAST_CAPACITY = 0.95  # of the capacity of the run before: the rest is the machine's


def target_of(record: Record) -> float | None:
    """Return the least share in time of a quiet cell; None where none is set.

    602 KB above 1.2 times the capacity: LEAST_MOVED of what the cores can move, by the CPU that this very cell took.
    """
    cell = record["cell"]
    size, load = cell["payload_bytes"], cell["load"]
    if load <= 1.0:
        return None
    if size < 100_000:
        return 0.95
    if size < 500_000:
        return 0.90 if load <= 2.0 else None
    if load <= 1.2:
        return 0.90
    movable: float | None = record["cost"]["movable_per_s"]
    capacity: float = record["capacity_per_s"]
    return None if movable is None else LEAST_MOVED * min(1.0, movable / capacity)


def shortcomings(records: Sequence[Record]) -> list[str]:
    """Say where a run misses its targets, one line each."""
    return [f"{name_of(record)}: {what}" for record in records for what in _shortcomings_of(record, records)]


def _shortcomings_of(record: Record, records: Sequence[Record]) -> Iterator[str]:
    account, health = record["account"], record["health"]
    yield from (f"void: {reason}" for reason in account["void"])
    target = target_of(record)
    if record["cell"]["is_disturbed"]:
        share = of_load_one(record, records)
        if share is not None and share < LEAST_DISTURBED:
            yield f"{share:.2f} in time of what a load of 1.0 gives beside the hog, at least {LEAST_DISTURBED}"
    elif target is not None and record["share"] < target:
        yield f"{record['share']:.2f} in time, at least {target:.2f}"
    if account["refusals"] and account["decided_share"] < LEAST_DECIDED:
        yield f"{account['decided_share']:.1%} of the refusals decided within their budget"
    if account["refusals"] and account["refusal_p99_ms"] > REACH_BUDGETS * LIMIT_MS:
        yield f"refusals come after {account['refusal_p99_ms']:.0f} ms (p99), at most {REACH_BUDGETS * LIMIT_MS:.0f}"
    if health["failed"] or health["most_ms"] > MOST_HEALTH_MS:
        longest = "-" if health["most_ms"] is None else f"{health['most_ms']:.0f} ms"
        yield f"health: {health['failed']} checks failed, the longest took {longest}"


def name_of(record: Record) -> str:
    """Return a cell's name."""
    cell = record["cell"]
    beside = ", beside a hog" if cell["is_disturbed"] else ""
    return f"{size_words(cell['payload_bytes'])} {cell['delivery'].upper()} at {cell['load']:g}{beside}"


def size_words(payload_bytes: int) -> str:
    """Return a frame's size in KB, as the page says it."""
    return f"{payload_bytes // 1000 or 1} KB"


def of_load_one(record: Record, records: Sequence[Record]) -> float | None:
    """Return frames in time of a disturbed cell over those at a load of 1.0; None if that was not measured."""
    cell = record["cell"]
    for other in records:
        if other["cell"] == {**cell, "load": 1.0}:
            at_one: float = other["account"]["in_time_per_s"]
            return record["account"]["in_time_per_s"] / at_one if at_one else None
    return None


def capacity_lines(capacities: Mapping[str, float], before: Record | None) -> tuple[list[str], bool]:
    """Compare the capacities of a run with those of the one before; return lines, and whether none is lower.

    Args:
        capacities: frames per second by bytes of a frame.
        before: `capacities` and `commit` of the newest record on a machine like this one; None if there is none.
    """
    lines, is_held = [], True
    for size, capacity in capacities.items():
        words = f"capacity at {size_words(int(size))}: {capacity:.0f} frames a second"
        earlier = None if before is None else before["capacities"].get(size)
        if before is not None and earlier is not None:
            is_lower = capacity < LEAST_CAPACITY * earlier
            is_held &= not is_lower
            words += f", {'LOWER THAN' if is_lower else 'not below'} {earlier:.0f} at commit {before['commit']}"
        lines.append(words)
    return lines, is_held
