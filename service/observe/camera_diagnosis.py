"""One sentence for each camera: the reason for frames that are not in time. Pure; see `service.observe.diagnosis`."""

from collections.abc import Callable
from dataclasses import dataclass, field

from forebay_server.service.journal.events import Ending
from forebay_server.service.observe.finding import (
    FAILURES,
    MISTAKES,
    Finding,
    Level,
    Rates,
    Stages,
    ago,
    ms,
    slowest,
)

OLD_MS = 500.0  # results of that age are worth a word even if they are in time for the server
SLOW_READER_MS = 100.0
SERVER_STAGES = ("receive", "decode", "queue", "h2d", "execute", "d2h", "deliver")


@dataclass(frozen=True, slots=True)
class CameraNumbers:
    """The numbers of an open stream.

    Attributes:
        rates: of the last seconds.
        stages: durations of its own frames, and `total`; may be empty if all is well.
        p50_ms: from read() to result; None if no frame ended well.
        age_ms: median age of its results; None if there is none.
        silent_s: since its latest frame, or since it opened, if that is unusually long for it; else None.
        has_frames: whether any frame has ended.
        size: width and height of its pictures; zeros if there are none.
        budget_ms: None for no deadline.
    """

    rates: Rates
    stages: Stages = field(default_factory=dict)
    p50_ms: float | None = None
    age_ms: float | None = None
    silent_s: float | None = None
    has_frames: bool = True
    size: tuple[int, int] = (0, 0)
    budget_ms: float | None = None


def diagnose_camera(numbers: CameraNumbers, model: Finding, least_ms: float = 0.0) -> Finding:
    """Return the finding about a camera.

    Args:
        numbers: of its stream.
        model: the finding about its model: the reason for a camera that has none of its own.
        least_ms: the least that one frame alone takes on the device; 0 if it is not known.
    """
    for rule in _RULES:
        text = rule.say(numbers)
        if text is not None:
            return Finding(rule.cause, rule.level or numbers.rates.level, text)
    in_time = numbers.rates.say_in_time()
    if numbers.budget_ms is not None and least_ms > numbers.budget_ms:
        told = f"its budget is {ms(numbers.budget_ms)}, and one frame alone takes {ms(least_ms)}"
        return Finding("budget", numbers.rates.level, f"{in_time}: {told}")
    if slowest(_own(numbers)) == "decode":
        return Finding("decode", numbers.rates.level, _decode(numbers))
    if model.level in (Level.WARN, Level.BAD):
        return Finding("model", numbers.rates.level, f"{in_time}: it waits for its model, see there")
    return Finding("bursts", numbers.rates.level, f"{in_time}: {_waits(numbers)}; its frames come in bursts")


def diagnose_gone(ending: Ending, since_s: float) -> Finding:
    """Return the finding about a camera that went away."""
    level, why = _ENDINGS[ending]
    return Finding("gone", level, f"gone {ago(since_s)} ago: {why}")


_ENDINGS = {
    Ending.ENDED: (Level.QUIET, "its client ended the stream"),
    Ending.LOST: (Level.BAD, "its connection broke"),
    Ending.SLOW: (Level.BAD, "its client took no results"),
    Ending.REFUSED: (Level.BAD, "the server ended its stream with an error, which its client and the log have"),
}


def _silent(numbers: CameraNumbers) -> str | None:
    if numbers.silent_s is None:
        return None
    since = f"for {ago(numbers.silent_s)}" if numbers.has_frames else f"since it opened {ago(numbers.silent_s)} ago"
    return f"no frame {since}: look at the camera and its network"


def _no_frames(numbers: CameraNumbers) -> str | None:
    return None if numbers.rates.ended > 0 else "no frame in the last 10 s"


def _failing(numbers: CameraNumbers) -> str | None:
    failed = numbers.rates.of(*FAILURES)
    return f"{numbers.rates.say(failed)} fail in the model: the server's log has its error" if failed else None


def _invalid(numbers: CameraNumbers) -> str | None:
    invalid = numbers.rates.of(*MISTAKES)
    return f"{numbers.rates.say(invalid)} are invalid: the results tell its client why" if invalid else None


def _reader(numbers: CameraNumbers) -> str | None:
    if slowest(_own(numbers)) != "deliver":
        return None
    waited_ms = numbers.stages["deliver"][1]
    if waited_ms < SLOW_READER_MS:
        return None
    return f"results wait {ms(waited_ms)} at p99 for its client: it reads slowly, or its network is slow"


def _old(numbers: CameraNumbers) -> str | None:
    age_ms, took_ms = numbers.age_ms, numbers.p50_ms
    if numbers.rates.level is not Level.GOOD or age_ms is None or took_ms is None or age_ms < max(OLD_MS, 3 * took_ms):
        return None
    return f"results are {ms(age_ms)} old, of which the server took {ms(took_ms)}: it or its network is slow"


def _good(numbers: CameraNumbers) -> str | None:
    return numbers.rates.say_in_time() if numbers.rates.level is Level.GOOD else None


def _decode(numbers: CameraNumbers) -> str:
    width, height = numbers.size
    now = f" than {width} x {height}" if width else ""
    return f"decoding takes {ms(numbers.stages['decode'][1])} at p99: send smaller pictures{now}"


def _own(numbers: CameraNumbers) -> Stages:
    return {stage: value for stage, value in numbers.stages.items() if stage in SERVER_STAGES}


def _waits(numbers: CameraNumbers) -> str:
    stage = slowest(_own(numbers))
    return f"{stage} takes {ms(numbers.stages[stage][1])} at p99" if stage else "no frame was executed"


@dataclass(frozen=True, slots=True)
class _Rule:
    """One cause. `say` returns its sentence, or None if it does not apply."""

    cause: str
    say: Callable[[CameraNumbers], str | None]
    level: Level | None = None  # None: that of the share in time


_RULES = (
    _Rule("silent", _silent, Level.BAD),
    _Rule("no frames", _no_frames),
    _Rule("failing", _failing, Level.BAD),
    _Rule("invalid", _invalid, Level.BAD),
    _Rule("reader", _reader, Level.BAD),
    _Rule("old", _old, Level.WARN),
    _Rule("in time", _good),
)
CAUSES = (*(rule.cause for rule in _RULES), "budget", "decode", "model", "bursts", "gone")
