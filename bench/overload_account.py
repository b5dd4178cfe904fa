"""The fate of every frame of the cameras in a run, and the totals. Pure.

A frame is one row of numbers (`Frame`), written by the client's process and read by the measuring one. The account
keeps every frame: the offered frames are the sum of all fates, or the run is void.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

REACH_BUDGETS = 1.2  # a refusal is at the client within so many budgets of the intended send (p99)


class Fate(StrEnum):
    """How a frame ended, by the client's clock. Values are the report's words."""

    IN_TIME = "in time"
    LATE = "late"  # executed, and at the client after the limit
    EXPIRED = "expired"
    OVERLOADED = "overloaded"
    SUPERSEDED = "superseded"
    NOT_SENT = "not sent"  # too old, or replaced by a newer one, before the connection took it
    UNANSWERED = "unanswered"
    OTHER = "other"  # INVALID, FAILED, CANCELLED: none of them belongs here


REFUSALS = (Fate.EXPIRED, Fate.OVERLOADED, Fate.SUPERSEDED)
"""Never executed, and answered by the server."""


class Frame(NamedTuple):
    """One frame that a camera wanted to send.

    Attributes:
        fate: how it ended.
        due_s: when it was to be sent, since the measurement began.
        lag_ms: how much later the client came to it; NaN if it never did.
        latency_ms: from the intended send to the answer at the client; NaN without one.
        budget_ms: the budget that the frame gave the server; NaN if it was not sent.
        decided_ms: from its arrival at the server to the decision about it, by the server's clock; NaN without one.
        batch_size: rows of the batch that it was executed in; 0 if it was not.
    """

    fate: Fate
    due_s: float
    lag_ms: float = math.nan
    latency_ms: float = math.nan
    budget_ms: float = math.nan
    decided_ms: float = math.nan
    batch_size: int = 0


def frames_of(result: Mapping[str, Any]) -> list[Frame]:
    """Return the frames that a process of cameras has written."""
    return [Frame(Fate(fate), *numbers) for fate, *numbers in result["frames"]]


def mean_stage_ms(results: Sequence[Mapping[str, Any]], executed: int) -> dict[str, float]:
    """Return the mean time of an executed frame in each stage of the server; empty if none was executed."""
    total_us = Counter[str]()
    for result in results:
        total_us.update(result["stages_us"])
    return {stage: us / 1e3 / executed for stage, us in total_us.items()} if executed else {}


@dataclass(frozen=True, slots=True)
class FrameAccount:
    """One run. Rates are frames per second; quantiles of nothing are NaN.

    Attributes:
        fates: frames by fate; they add up to the offered frames.
        in_time_each_s: frames in time among those intended in each second, to see a run that collapses.
        decided_share: share of the refusals that were decided within the frame's budget.
        refusal_p99_ms: from the intended send to the refusal at the client.
        lag_p99_ms: lateness of the client itself.
    """

    offered_per_s: float
    in_time_per_s: float
    fates: dict[str, int]
    in_time_each_s: list[int]
    p50_ms: float
    p99_ms: float
    mean_batch: float
    refusals: int
    decided_share: float
    refusal_p50_ms: float
    refusal_p99_ms: float
    lag_p99_ms: float
    void: list[str] = field(default_factory=list)

    def share_of(self, capacity_per_s: float) -> float:
        """Frames in time over what could be: all that was offered, or the capacity."""
        return self.in_time_per_s / min(self.offered_per_s, capacity_per_s)


def account_of(frames: Sequence[Frame], span_s: float) -> FrameAccount:
    """Add up the frames that were intended within a span.

    Raises:
        ValueError: there are none.
    """
    if not frames:
        raise ValueError("no frame was offered: the run says nothing")
    fates = Counter(frame.fate for frame in frames)
    executed = [frame for frame in frames if frame.fate in (Fate.IN_TIME, Fate.LATE)]
    refused = [frame for frame in frames if frame.fate in REFUSALS]
    in_time = [frame.due_s for frame in frames if frame.fate is Fate.IN_TIME]
    each_s = Counter(int(due_s) for due_s in in_time)
    return FrameAccount(
        offered_per_s=len(frames) / span_s,
        in_time_per_s=fates[Fate.IN_TIME] / span_s,
        fates={fate.value: fates[fate] for fate in Fate},
        in_time_each_s=[each_s[second] for second in range(math.ceil(span_s))],
        p50_ms=quantile([frame.latency_ms for frame in executed], 0.5),
        p99_ms=quantile([frame.latency_ms for frame in executed], 0.99),
        mean_batch=sum(frame.batch_size for frame in executed) / max(1, len(executed)),
        refusals=len(refused),
        decided_share=sum(frame.decided_ms <= frame.budget_ms for frame in refused) / max(1, len(refused)),
        refusal_p50_ms=quantile([frame.latency_ms for frame in refused], 0.5),
        refusal_p99_ms=quantile([frame.latency_ms for frame in refused], 0.99),
        lag_p99_ms=quantile([frame.lag_ms for frame in frames if not math.isnan(frame.lag_ms)], 0.99),
        void=_void(fates),
    )


def _void(fates: Counter[Fate]) -> list[str]:
    """Say why a run counts for nothing."""
    unwanted = (Fate.UNANSWERED, Fate.OTHER)
    return [f"{fates[fate]} frames {fate.value}" for fate in unwanted if fates[fate]]


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of the values do not exceed; NaN of none."""
    if not values:
        return math.nan
    return sorted(values)[math.ceil(share * len(values)) - 1]


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU of one run, in cores (CPU seconds per second), and frames it paid for.

    Attributes:
        server: the server's process.
        clients: all cameras' processes.
        hog: the process that disturbs on purpose.
        others: all other processes on these cores, and the kernel's own work for the sockets.
        cores: that server and clients may use.
        sent_per_s: frames that were sent, that is, whose payload moved.
        server_waited: seconds per second that the server's threads were ready to run and no core was free.
    """

    server: float
    clients: float
    hog: float
    others: float
    cores: int
    sent_per_s: float
    server_waited: float

    @property
    def server_ms(self) -> float:
        """CPU milliseconds of the server for each frame sent."""
        return self.server * 1e3 / self.sent_per_s if self.sent_per_s else math.nan

    @property
    def clients_ms(self) -> float:
        """CPU milliseconds of the clients for each frame sent."""
        return self.clients * 1e3 / self.sent_per_s if self.sent_per_s else math.nan

    @property
    def movable_per_s(self) -> float:
        """Frames per second that the cores can move if server and clients have them alone."""
        cost_ms = self.server_ms + self.clients_ms
        return self.cores * 1e3 / cost_ms if cost_ms else math.nan
