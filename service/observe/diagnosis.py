"""One sentence for each model: whether its frames are in time, the reason if not, and the remedy. Pure.

The sentences follow docs/observability.md, "What the page says": each row of its table is one cause here, and a test
compares the two. Rules are tried in order, and the first that applies speaks: from causes that numbers prove (frames
that fail, a device that is busy all the time) to those that are left over.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from forebay_server.service.errors import Outcome
from forebay_server.service.observe.finding import (
    FAILURES,
    GOOD_SHARE,
    MISTAKES,
    Finding,
    Level,
    Rates,
    Stages,
    ms,
    slowest,
)

BUSY_SHARE = 0.9  # of an instance's time: the model is the limit
FULL_SHARE = 0.97  # no room for more, though all frames are in time
DRIFTED = 1.5  # executions now over executions as calibrated, as the alert has it
LATE_GUARD_MS = 3.0  # threads wake as late as that; usual is 0.2
SPIKE = 3.0  # p99 of execute over its p50: one model on one machine takes about the same time for each batch
WINDOW = "in the last 10 s"


@dataclass(frozen=True, slots=True)
class ModelNumbers:
    """The numbers of a model version.

    Attributes:
        rates: of the last seconds.
        busy: share of time of h2d, execute and d2h, for each instance: 1 is all the time.
        stages: durations.
        least_ms: the least that one frame alone takes on the device; 0 if it is not known.
        shortest_budget_ms: of the open streams; None without one.
        drift: executions now over executions as calibrated.
        guard_ms: how early batches are bound, because threads wake late.
        are_slots_full: whether every slot was taken in all samples of the last seconds.
        are_workers_busy: the same of the workers.
        permits: how many there are.
        is_on_gpu: whether it runs on an accelerator.
    """

    rates: Rates
    busy: Sequence[float] = (0.0, 0.0, 0.0)
    stages: Stages = field(default_factory=dict)
    least_ms: float = 0.0
    shortest_budget_ms: float | None = None
    drift: float = 1.0
    guard_ms: float = 0.0
    are_slots_full: bool = False
    are_workers_busy: bool = False
    permits: int = 0
    is_on_gpu: bool = False


def diagnose_model(numbers: ModelNumbers) -> Finding:
    """Return the finding about a model."""
    for rule in _RULES:
        text = rule.say(numbers)
        if text is not None:
            return Finding(rule.cause, rule.level or numbers.rates.level, text)
    return Finding("queue", numbers.rates.level, _queue(numbers))


def _no_frames(numbers: ModelNumbers) -> str | None:
    return None if numbers.rates.ended > 0 else f"no frames {WINDOW}"


def _failing(numbers: ModelNumbers) -> str | None:
    failed = numbers.rates.of(*FAILURES)
    return f"{numbers.rates.say(failed)} fail in the model: the server's log has its error" if failed else None


def _full(numbers: ModelNumbers) -> str | None:
    if not _is_good(numbers) or numbers.busy[1] < FULL_SHARE:
        return None
    return f"execute is busy {_percent(numbers.busy[1])}: {numbers.rates.say_in_time()}, with no room for more"


def _good(numbers: ModelNumbers) -> str | None:
    return numbers.rates.say_in_time() if _is_good(numbers) else None


def _drift(numbers: ModelNumbers) -> str | None:
    if numbers.busy[1] < BUSY_SHARE or numbers.drift < DRIFTED:
        return None
    return (
        f"execute is busy {_percent(numbers.busy[1])} and takes {numbers.drift:.1f} times as long as calibrated: "
        f"{numbers.rates.say_in_time()}; look for another process on the machine, for heat and lower clocks"
    )


def _execute(numbers: ModelNumbers) -> str | None:
    if numbers.busy[1] < BUSY_SHARE:
        return None
    advice = "use FP16 or INT8, or add an instance or a server" if numbers.is_on_gpu else "use INT8, or add a server"
    in_time = numbers.rates.say_in_time()
    return f"execute is busy {_percent(numbers.busy[1])}: {in_time}; lower the frame rate, {advice}"


def _copies(numbers: ModelNumbers) -> str | None:
    for share, what in ((numbers.busy[0], "copying to the device"), (numbers.busy[2], "copying results back")):
        if share >= BUSY_SHARE:
            return f"{what} is busy {_percent(share)}: {numbers.rates.say_in_time()}; {_COPY_ADVICE}"
    stage = slowest(numbers.stages)
    if stage not in ("h2d", "d2h"):
        return None
    what = "copying to the device" if stage == "h2d" else "copying results back"
    return f"{what} takes {ms(numbers.stages[stage][1])} at p99: {numbers.rates.say_in_time()}; {_COPY_ADVICE}"


_COPY_ADVICE = "ask for typed results instead of tensors, or send smaller inputs"


def _invalid(numbers: ModelNumbers) -> str | None:
    if not numbers.rates.are_mostly(*MISTAKES):
        return None
    return f"{numbers.rates.say(numbers.rates.of(*MISTAKES))} are invalid: the results tell their clients why"


def _budget(numbers: ModelNumbers) -> str | None:
    budget = numbers.shortest_budget_ms
    if budget is None or not numbers.least_ms > budget:
        return None
    return (
        f"one frame alone takes {ms(numbers.least_ms)}, and budgets begin at {ms(budget)}: "
        f"{numbers.rates.say_in_time()}; give longer budgets, or use a quicker model"
    )


def _decode(numbers: ModelNumbers) -> str | None:
    is_slowest = slowest(numbers.stages) == "decode"
    if not is_slowest and not numbers.are_workers_busy:
        return None
    took = f"decoding takes {ms(numbers.stages['decode'][1])} at p99" if "decode" in numbers.stages else ""
    busy = "every worker is busy" if numbers.are_workers_busy else ""
    advice = "send smaller pictures or RGB8 of the model's size, or raise worker_threads if cores are free"
    return f"{' and '.join(filter(None, (took, busy)))}: {numbers.rates.say_in_time()}; {advice}"


def _permits(numbers: ModelNumbers) -> str | None:
    if not numbers.rates.are_mostly(Outcome.OVERLOADED):
        return None
    refused = numbers.rates.say(numbers.rates.of(Outcome.OVERLOADED))
    return f"all {numbers.permits} permits are taken: {refused} are refused; take cameras away, or raise permits"


def _slots(numbers: ModelNumbers) -> str | None:
    if not numbers.are_slots_full:
        return None
    return (
        f"every slot is taken while execute is busy only {_percent(numbers.busy[1])}: {numbers.rates.say_in_time()}; "
        "results are held up: ask for typed results instead of tensors, or give the process more cores"
    )


def _wake_ups(numbers: ModelNumbers) -> str | None:
    if numbers.guard_ms < LATE_GUARD_MS:
        return None
    in_time = numbers.rates.say_in_time()
    return f"the machine wakes threads {ms(numbers.guard_ms)} late: {in_time}; give the process cores of its own"


def _deliver(numbers: ModelNumbers) -> str | None:
    if slowest(numbers.stages) != "deliver":
        return None
    return (
        f"results wait {ms(numbers.stages['deliver'][1])} at p99 to leave: {numbers.rates.say_in_time()}; "
        "if it is one camera, its client reads slowly; if it is all, the process needs more cores"
    )


def _spikes(numbers: ModelNumbers) -> str | None:
    if slowest(numbers.stages) != "execute" or numbers.stages["execute"][1] < SPIKE * numbers.stages["execute"][0]:
        return None
    p50, p99 = map(ms, numbers.stages["execute"])
    advice = "another process uses the machine now and then: give this one cores of its own"
    return f"execute takes {p50}, and {p99} at p99: {numbers.rates.say_in_time()}; {advice}"


def _slow(numbers: ModelNumbers) -> str | None:
    if slowest(numbers.stages) != "execute":
        return None
    took, in_time = ms(numbers.stages["execute"][1]), numbers.rates.say_in_time()
    return f"execute takes {took} at p99: {in_time}; use INT8 or a smaller model, or give longer budgets"


def _expired(numbers: ModelNumbers) -> str | None:
    if not numbers.rates.are_mostly(Outcome.EXPIRED):
        return None
    gone = numbers.rates.say(numbers.rates.of(Outcome.EXPIRED))
    return f"{gone} expire before they are executed; give longer budgets, or send fewer frames at once"


def _superseded(numbers: ModelNumbers) -> str | None:
    rates = numbers.rates
    if rates.in_time + rates.of(Outcome.SUPERSEDED) < GOOD_SHARE * rates.ended:
        return None
    return f"{numbers.rates.say_in_time()}, the others gave way to newer ones: cameras send in bursts"


def _queue(numbers: ModelNumbers) -> str:
    waited = f"frames wait {ms(numbers.stages['queue'][1])} at p99 for a batch" if "queue" in numbers.stages else ""
    busy = f"while execute is busy only {_percent(numbers.busy[1])}"
    advice = "let cameras send at different times, or give longer budgets"
    return f"{waited or 'frames wait'} {busy}: {numbers.rates.say_in_time()}; {advice}"


def _is_good(numbers: ModelNumbers) -> bool:
    return numbers.rates.level is Level.GOOD


def _percent(share: float) -> str:
    return f"{100 * min(share, 1):.0f} %"


@dataclass(frozen=True, slots=True)
class _Rule:
    """One cause. `say` returns its sentence, or None if it does not apply."""

    cause: str
    say: Callable[[ModelNumbers], str | None]
    level: Level | None = None  # None: that of the share in time


_RULES = (
    _Rule("no frames", _no_frames),
    _Rule("failing", _failing, Level.BAD),
    _Rule("full", _full, Level.WARN),
    _Rule("in time", _good),
    _Rule("drift", _drift),
    _Rule("execute", _execute),
    _Rule("budget", _budget),
    _Rule("invalid", _invalid),
    _Rule("decode", _decode),
    _Rule("permits", _permits),
    _Rule("copies", _copies),
    _Rule("slots", _slots),
    _Rule("wake-ups", _wake_ups),
    _Rule("deliver", _deliver),
    _Rule("spikes", _spikes),
    _Rule("slow", _slow),
    _Rule("expired", _expired),
    _Rule("superseded", _superseded, Level.WARN),
)
CAUSES = (*(rule.cause for rule in _RULES), "queue")
