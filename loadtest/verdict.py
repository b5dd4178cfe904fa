"""The verdict on a run: one word, the reasons, and an exit code.

NO_SERVER: the server went away and did not come back; the part before is reported. INVALID: the generator was the
bottleneck, or the accounting fails; the run does not measure the server. SLO_MISSED: an --assert does not hold, or
needs a number that the run cannot give. INCONCLUSIVE: too few samples or no steady state; not an error.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from forebay_server.loadtest.errors import ExitCode, UsageError

MAX_LAG_MS = 5.0
MAX_LAG_SHARE = 0.1  # of p50
MIN_CEILING_RATIO = 3.0  # null-server rate over the tested rate

_ASSERTION = re.compile(r"\s*([a-z][a-z0-9_]*)\s*(<=|>=|==|!=|=|<|>)\s*([0-9]+(?:\.[0-9]+)?)\s*(us|ms|s|%|/s|)\s*")
_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "": 1.0}
_SHARES = {"dropped_share", "goodput_share"}
ALIASES = {
    "p99_upper": "p99_ci_high_ms",
    "dropped": "dropped_share",
    "drop": "dropped_share",
    "goodput": "goodput_per_s",
}


class Verdict(StrEnum):
    """The one word; see the module."""

    OK = "OK"
    INCONCLUSIVE = "INCONCLUSIVE"
    SLO_MISSED = "SLO_MISSED"
    NO_SERVER = "NO_SERVER"
    INVALID = "INVALID"

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of a command that ends in this verdict."""
        return _EXIT_CODES[self]


_EXIT_CODES = {
    Verdict.OK: ExitCode.OK,
    Verdict.INCONCLUSIVE: ExitCode.OK,
    Verdict.SLO_MISSED: ExitCode.SLO_MISSED,
    Verdict.NO_SERVER: ExitCode.CANNOT_CONNECT,
    Verdict.INVALID: ExitCode.INVALID,
}


@dataclass(frozen=True, slots=True)
class Assertion:
    """One --assert: `metric operator value`, the value in the metric's unit.

    `is_share`: the value is a share of the offered frames, for every metric.
    """

    text: str
    metric: str
    operator: str
    value: float
    is_share: bool


@dataclass(frozen=True, slots=True)
class Judged:
    """An assertion with the run's value; `actual` None: the run cannot give it."""

    assertion: Assertion
    actual: float | None
    holds: bool

    def __str__(self) -> str:
        """Return the sentence for a report."""
        if self.actual is None:
            return f"{self.assertion.text}: the run gives no number for it"
        return f"{self.assertion.text}: {'holds' if self.holds else 'does not hold'} ({self.actual:.6g})"


def parse_assertion(text: str, metrics: Mapping[str, float | None]) -> Assertion:
    """Read 'p99<50ms', 'lost=0', 'dropped<0.1%'. Raises UsageError.

    Args:
        text: as the user wrote it.
        metrics: the known names, see `metrics_of`; the values do not matter.
    """
    match = _ASSERTION.fullmatch(text)
    if match is None:
        raise UsageError(f"--assert {text!r} does not parse: METRIC OPERATOR NUMBER[UNIT], for example 'p99<50ms'")
    name, operator, number, unit = match.groups()
    metric = ALIASES.get(name, name)
    metric = metric if metric in metrics else f"{metric}_ms"
    if metric not in metrics:
        raise UsageError(f"--assert {text!r}: there is no metric {name}; there are {', '.join(sorted(metrics))}")
    if metric.endswith("_ms"):
        if unit not in _MILLISECONDS:
            raise UsageError(f"--assert {text!r}: {name} is a time: us, ms or s")
        value = float(number) * _MILLISECONDS[unit]
    elif unit in {"us", "ms", "s"} or (unit == "/s") > metric.endswith("_per_s"):
        raise UsageError(f"--assert {text!r}: {unit} does not fit {name}")
    else:
        value = float(number) / (100 if unit == "%" else 1)
    is_share = unit == "%" and metric not in _SHARES
    return Assertion(text, metric, "==" if operator == "=" else operator, value, is_share)


def judge_assertion(assertion: Assertion, metrics: Mapping[str, float | None]) -> Judged:
    """Compare; a number that the run cannot give does not hold."""
    actual = metrics[assertion.metric]
    offered = metrics["offered"]
    if actual is not None and assertion.is_share:
        actual = actual / offered if offered else None
    if actual is None:
        return Judged(assertion, None, holds=False)
    value = assertion.value
    holds = {
        "<": actual < value,
        "<=": actual <= value,
        ">": actual > value,
        ">=": actual >= value,
        "==": actual == value,
        "!=": actual != value,
    }[assertion.operator]
    return Judged(assertion, actual, holds)


def generator_fault(lag_p99_ms: float | None, p50_ms: float | None, *, is_open_loop: bool) -> str:
    """Return why the generator was the bottleneck; empty if it was not."""
    limit_ms = max(MAX_LAG_MS, MAX_LAG_SHARE * (p50_ms or 0.0))
    if not is_open_loop or lag_p99_ms is None or lag_p99_ms <= limit_ms:
        return ""
    return (
        f"the generator was the bottleneck: it sent 1 % of the frames more than {lag_p99_ms:.1f} ms late"
        f" (limit {limit_ms:.1f} ms); use more --processes, a quieter host or a lower rate"
    )


def decide(
    *, faults: list[str], ended_early: str, judged: list[Judged], doubts: list[str]
) -> tuple[Verdict, list[str]]:
    """Return the verdict and its reasons, the worst first."""
    missed = [str(item) for item in judged if not item.holds]
    reasons = [*([ended_early] if ended_early else []), *faults, *missed, *doubts]
    if ended_early:
        return Verdict.NO_SERVER, reasons
    if faults:
        return Verdict.INVALID, reasons
    if missed:
        return Verdict.SLO_MISSED, reasons
    return (Verdict.INCONCLUSIVE, reasons) if doubts else (Verdict.OK, [])
