"""What cameras noticed of faults: frames lost and sent again, and the longest gap between two results. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

NEVER_NS = 1 << 62
BEFORE_NS = 1_000_000_000
AFTER_NS = 2_000_000_000
"""Around a fault: a gap that begins in this time is its effect. The server starts anew later."""


@dataclass(frozen=True, slots=True)
class Account:
    """The cameras' own lists, compared.

    Attributes:
        name: of the scenario.
        faults: how many there were.
        sent: frames that the cameras sent.
        lost: frames without the result ok.
        twice: results for a frame that had one already.
        resent: how many times a frame was written again.
        most_reopened: the most calls that one camera opened after one fault; no frame was sent again more often.
        moved: calls opened after the first, all cameras together.
        gap_ms: longest time between two results of a camera around a fault, less the usual time; all faults.
        median_gap_ms: the median over the faults of the longest of each.
        quiet_gap_ms: the same as `gap_ms` where there was no fault: the machine's own share.
    """

    name: str
    faults: int
    sent: int
    lost: int
    twice: int
    resent: int
    most_reopened: int
    moved: int
    gap_ms: float
    median_gap_ms: float
    quiet_gap_ms: float

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def account(name: str, cameras: Sequence[Mapping[str, Any]], faults_ns: Sequence[int]) -> Account:
    """Compare what the cameras sent with the results that they got.

    Args:
        name: of the scenario.
        cameras: reports of `scale_cameras`.
        faults_ns: when something was done to a server or a proxy.
    """
    lost = twice = 0
    for camera in cameras:
        counts = Counter(seq for seq, status, *_ in camera["results"] if status == "ok")
        lost += len(camera["sent_ns"]) - len(counts)
        twice += sum(count - 1 for count in Counter(seq for seq, *_ in camera["results"]).values())
    gaps = [max((_gap_ms(camera, at_ns, at_ns + AFTER_NS) for camera in cameras), default=0.0) for at_ns in faults_ns]
    quiet = [
        max((_gap_ms(camera, at_ns - BEFORE_NS, at_ns, at_ns) for camera in cameras), default=0.0)
        for at_ns in faults_ns
    ]
    return Account(
        name=name,
        faults=len(faults_ns),
        sent=sum(len(camera["sent_ns"]) for camera in cameras),
        lost=lost,
        twice=twice,
        resent=sum(camera["resent"] for camera in cameras),
        most_reopened=max((_reopened(camera, at_ns) for camera in cameras for at_ns in faults_ns), default=0),
        moved=sum(camera["opened"] - 1 for camera in cameras),
        gap_ms=round(max(gaps, default=0.0), 1),
        median_gap_ms=round(sorted(gaps)[len(gaps) // 2], 1) if gaps else 0.0,
        quiet_gap_ms=round(max(quiet, default=0.0), 1),
    )


def _gap_ms(camera: Mapping[str, Any], start_ns: int, end_ns: int, limit_ns: int = NEVER_NS) -> float:
    """Return the longest time between two results that reaches into a window and ends by the limit, less the usual."""
    times = [at_ns for _, status, at_ns, _ in camera["results"] if status == "ok"]
    steps = [(later - earlier, earlier, later) for earlier, later in pairwise(times)]
    if not steps:
        return 0.0
    usual_ns: int = sorted(step for step, *_ in steps)[len(steps) // 2]
    found = [step for step, earlier, later in steps if later >= start_ns and earlier <= end_ns and later <= limit_ns]
    return max(0.0, (max(found, default=usual_ns) - usual_ns) / 1e6)


def _reopened(camera: Mapping[str, Any], fault_ns: int) -> int:
    """Return how many calls the camera opened after a fault."""
    before = [opened for *_, at_ns, opened in camera["results"] if at_ns < fault_ns]
    after = [opened for *_, at_ns, opened in camera["results"] if fault_ns <= at_ns <= fault_ns + AFTER_NS]
    return max(after) - before[-1] if before and after else 0
