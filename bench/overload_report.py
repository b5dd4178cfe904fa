"""The measured overload as a record for the history, on a line, and as the page's section. Pure.

A record can be written as JSON; the table on a terminal and the one in docs/benchmarks.md are made from records alone,
so that the page can be written anew from the history.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from forebay_server.bench.overload import LIMIT_MS, Measured
from forebay_server.bench.overload_targets import Record, name_of, of_load_one, shortcomings, size_words, target_of

HEADING = "Overload as a client sees it"
COLUMNS = (
    "frame",
    "delivery",
    "load",
    "in time, quiet",
    "target",
    "in time, disturbed",
    "of load 1, disturbed",
    "refused after (p50 / p99)",
    "disturbed",
    "decided in the budget",
    "health, longest",
    "disturbed",
    "server + client CPU a frame",
    "others' cores",
)


def record_of(outcome: Measured) -> dict[str, Any]:
    """Return a cell for JSON, which knows no NaN."""
    account, cost = asdict(outcome.account), outcome.cost
    fields = {
        "cell": asdict(outcome.cell),
        "capacity_per_s": outcome.capacity_per_s,
        "share": outcome.account.share_of(outcome.capacity_per_s),
        "account": account,
        "cost": asdict(cost)
        | {"server_ms": cost.server_ms, "clients_ms": cost.clients_ms, "movable_per_s": cost.movable_per_s},
        "health": asdict(outcome.health),
    }
    plain: dict[str, Any] = _without_nan(fields)
    return plain


def _without_nan(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def line_of(record: Record) -> str:
    """Return a cell on one line, for the one who watches the run."""
    account, cost, health = record["account"], record["cost"], record["health"]
    fates = ", ".join(f"{count} {fate}" for fate, count in account["fates"].items() if count)
    return (
        f"{name_of(record)}: {record['share']:.3f} in time ({fates}); batch {account['mean_batch']:.1f}; refused after "
        f"{_ms(account['refusal_p50_ms'])} / {_ms(account['refusal_p99_ms'])} ms, {account['decided_share']:.1%} "
        f"decided in their budget; health {_ms(health['most_ms'])} ms; client {_ms(account['lag_p99_ms'])} ms late "
        f"(p99); cores: server {cost['server']:.2f} (waited {cost['server_waited']:.2f}), clients "
        f"{cost['clients']:.2f}, hog {cost['hog']:.2f}, others {cost['others']:.2f}"
    )


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def section(document: Record, introduction: str) -> str:
    """Return the page's section of one run.

    Args:
        document: `capacities` by size, `seconds`, `is_alone`, and the `cells` as records.
        introduction: date, command and machine of the measurement.
    """
    records = document["cells"]
    disturbed = {_place(record): record for record in records if record["cell"]["is_disturbed"]}
    quiet = [record for record in records if not record["cell"]["is_disturbed"]]
    lines = [f"## {HEADING}", "", introduction, "", *_explanation(document), ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    lines += ["| " + " | ".join(_row(record, disturbed.get(_place(record)), records)) + " |" for record in quiet]
    missed = shortcomings(records)
    lines += ["", "Every target is met." if not missed else "Missed:", *([""] if missed else [])]
    return "\n".join([*lines, *(f"- {line}" for line in missed)])


def _place(record: Record) -> tuple[int, str, float]:
    cell = record["cell"]
    return cell["payload_bytes"], cell["delivery"], cell["load"]


def _explanation(document: Record) -> list[str]:
    capacities = ", ".join(
        f"{size_words(int(size))} {capacity:.0f} a second" for size, capacity in document["capacities"].items()
    )
    alone = (
        " Others used the machine: quiet cells ran with real-time priority, disturbed ones beside the hog and them."
        if document["is_alone"]
        else ""
    )
    return [
        f"Open loop, {document['seconds']:g} s a cell, cameras in two processes of their own on the same cores, limit "
        f"{LIMIT_MS:.0f} ms from the intended send; capacity: {capacities} (the engine's, or closed loop with 64 in "
        "flight if that is less). *In time* is over what could be: all that was offered, or the capacity. *Disturbed* "
        "is beside a process that takes one core. *Refused after* is from the intended send to the refusal at the "
        "client, in ms; *decided in the budget* is by the server's clock. *Others' cores* is what other processes and "
        f"the kernel took meanwhile.{alone}",
    ]


def _row(record: Record, beside: Record | None, records: Sequence[Record]) -> list[str]:
    cell, account, cost = record["cell"], record["account"], record["cost"]
    target = target_of(record)
    share = None if beside is None else of_load_one(beside, records)
    return [
        size_words(cell["payload_bytes"]),
        cell["delivery"].upper(),
        f"{cell['load']:g}",
        f"{record['share']:.2f}",
        "" if target is None else f"{target:.2f}",
        "" if beside is None else f"{beside['share']:.2f}",
        "" if share is None else f"{share:.2f}",
        f"{_ms(account['refusal_p50_ms'])} / {_ms(account['refusal_p99_ms'])}",
        ""
        if beside is None
        else _ms(beside["account"]["refusal_p50_ms"]) + " / " + _ms(beside["account"]["refusal_p99_ms"]),
        f"{account['decided_share']:.1%}" if account["refusals"] else "",
        f"{_ms(record['health']['most_ms'])} ms",
        "" if beside is None else f"{_ms(beside['health']['most_ms'])} ms",
        f"{cost['server_ms']:.2f} + {cost['clients_ms']:.2f} ms: {cost['movable_per_s']:.0f}/s",
        f"{cost['others']:.1f}",
    ]
