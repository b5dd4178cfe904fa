"""Values of the diagnosis: rates and stages go in, findings come out."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from forebay_server.service.errors import Outcome

Stages = Mapping[str, tuple[float, float]]
"""p50 and p99 of stages in ms, of frames that ended well; empty if there were none."""

GOOD_SHARE = 0.99
FAIR_SHARE = 0.9
FAILURES = (Outcome.FAILED, Outcome.LOST, Outcome.INTERNAL, Outcome.CORRUPT)
MISTAKES = (Outcome.INVALID, Outcome.UNSUPPORTED)


class Level(enum.Enum):
    """How bad it is."""

    GOOD = "good"
    QUIET = "quiet"  # there is nothing to judge
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence of the diagnosis.

    Attributes:
        cause: a row of the tables in docs/observability.md.
        level: how bad it is.
        text: a sentence without its subject, the model or the camera.
    """

    cause: str
    level: Level
    text: str


@dataclass(frozen=True)  # without slots, for `ended`, which most of the others need
class Rates:
    """How frames ended in the last seconds.

    Attributes:
        per_s: frames a second by outcome.
        late_per_s: of the OK ones, those past their deadline.
    """

    per_s: Mapping[Outcome, float]
    late_per_s: float = 0.0

    @cached_property
    def ended(self) -> float:
        """Frames a second, without those whose client had left."""
        return sum(self.per_s.values()) - self.of(Outcome.CANCELLED)

    @property
    def in_time(self) -> float:
        """Frames a second that ended well before their deadline, or had none."""
        return self.of(Outcome.OK) - self.late_per_s

    @property
    def share(self) -> float | None:
        """The part of the ended frames that was in time; None without frames."""
        return self.in_time / self.ended if self.ended > 0 else None

    @property
    def level(self) -> Level:
        """How bad the share is."""
        share = self.share
        if share is None:
            return Level.QUIET
        return Level.GOOD if share >= GOOD_SHARE else Level.WARN if share >= FAIR_SHARE else Level.BAD

    def of(self, *outcomes: Outcome) -> float:
        """Return the frames a second that ended in one of these ways."""
        return sum(self.per_s.get(outcome, 0.0) for outcome in outcomes)

    def are_mostly(self, *outcomes: Outcome) -> bool:
        """Whether most of the frames that were not in time ended in one of these ways."""
        return self.of(*outcomes) > (self.ended - self.in_time) / 2

    def say(self, part: float | None = None) -> str:
        """Return `11 of 21 frames a second`, of `part` or of those in time."""
        part, whole = self.in_time if part is None else part, self.ended
        digits = 0 if whole >= 10 and (round(part) != round(whole) or part == whole) and round(part) > 0 else 1
        if part <= 0:
            return f"none of {_number(whole, digits)} frames a second"
        if part >= whole:
            return f"all {_number(whole, digits)} frames a second"
        return f"{_number(part, digits)} of {_number(whole, digits)} frames a second"

    def say_in_time(self) -> str:
        """Return `11 of 21 frames a second are in time`."""
        return f"{self.say()} {'is' if self.in_time <= 0 else 'are'} in time"


def slowest(stages: Stages) -> str:
    """Return the stage with the largest p99; empty if there is none."""
    return max(stages, key=lambda stage: stages[stage][1], default="")


def ms(value: float) -> str:
    """Return a duration as text."""
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


def ago(seconds: float) -> str:
    """Return a time span as text: `42 s`, `2 min`."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _number(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.removesuffix(".0")
