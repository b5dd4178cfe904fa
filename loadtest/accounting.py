"""Every frame has exactly one end: the identity that a report must satisfy before its latencies mean anything.

    offered = sent + client_dropped
    sent    = answered + superseded + expired + overloaded + failed + lost

answered = OK, failed = FAILED + INVALID + CANCELLED + NEEDS_KEYFRAME. It is checked over the whole run, warm-up
included. The left sides come from counters incremented at each write, the right sides from counters incremented at
each answer and from a scan of the frames, so the check can fail.
"""

from dataclasses import asdict, dataclass

import numpy as np

from forebay_server.loadtest.recorder import Counters, Rows
from forebay_server.loadtest.target import Outcome

FAILURES = ("FAILED", "INVALID", "CANCELLED", "NEEDS_KEYFRAME")


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounting:
    """Frames by their end."""

    offered: int
    client_dropped: int
    sent: int
    answered: int
    superseded: int
    expired: int
    overloaded: int
    failed: int
    lost: int

    @property
    def is_balanced(self) -> bool:
        """Whether both identities hold."""
        ends = self.answered + self.superseded + self.expired + self.overloaded + self.failed + self.lost
        return self.offered == self.sent + self.client_dropped and self.sent == ends

    def to_dict(self) -> dict[str, int]:
        """Return the numbers by name."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the identity in one line, with its numbers."""
        return (
            f"sent {self.sent} = answered {self.answered} + superseded {self.superseded} + expired {self.expired}"
            f" + overloaded {self.overloaded} + failed {self.failed} + lost {self.lost};"
            f" offered {self.offered} = sent + client_dropped {self.client_dropped}"
        )


def account(rows: Rows, counters: Counters) -> Accounting:
    """Count the frames of a run that is over."""
    answers = counters.answers
    return Accounting(
        offered=counters.offered,
        client_dropped=counters.client_dropped,
        sent=counters.sent,
        answered=answers.get("OK", 0),
        superseded=answers.get("SUPERSEDED", 0),
        expired=answers.get("EXPIRED", 0),
        overloaded=answers.get("OVERLOADED", 0),
        failed=sum(answers.get(name, 0) for name in FAILURES),
        lost=int(np.count_nonzero(rows["outcome"] == Outcome.LOST)),
    )


def violations(rows: Rows, counters: Counters) -> list[str]:
    """Return the violated identities, in words; empty if every frame has exactly one end."""
    found = []
    accounts = account(rows, counters)
    if not accounts.is_balanced:
        found.append(f"the accounting does not add up: {accounts}")
    ends = np.bincount(rows["outcome"], minlength=len(Outcome))
    for name, count in counters.answers.items():
        if ends[Outcome[name]] != count:
            found.append(f"{count} answers were {name} but {ends[Outcome[name]]} frames ended so")
    if len(rows) != accounts.offered:
        found.append(f"{accounts.offered} frames were offered but {len(rows)} were recorded")
    wrong = (
        (counters.duplicates, "answers for frames that were already answered"),
        (counters.strangers, "answers for frames that were never sent"),
        (counters.garbage, "messages that could not be understood"),
        (counters.wrong_echo, "answers with another frame's capture time"),
    )
    found += [f"the server sent {count} {words}" for count, words in wrong if count]
    return found
