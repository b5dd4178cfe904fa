import pytest

from forebay_server.loadtest.errors import ExitCode, UsageError
from forebay_server.loadtest.measure import parse_assertions
from forebay_server.loadtest.verdict import Verdict, decide, generator_fault, judge_assertion

METRICS = {
    "offered": 1000,
    "lost": 2,
    "p99_ms": 40.0,
    "p99_ci_high_ms": None,
    "dropped_share": 0.03,
    "goodput_per_s": 90.0,
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("p99<50ms", True),
        ("p99 < 40ms", False),
        ("p99<=40", True),
        ("p99<0.05s", True),
        ("p99<30000us", False),
        ("lost=0", False),
        ("lost!=0", True),
        ("lost<=2", True),
        ("lost<0.1%", False),
        ("lost<0.3%", True),
        ("dropped<5%", True),
        ("drop<0.03", False),
        ("goodput>=90/s", True),
        ("goodput>90", False),
    ],
)
def test_assertions_compare_in_their_unit(text, holds):
    (assertion,) = parse_assertions([text])
    assert judge_assertion(assertion, METRICS).holds is holds


@pytest.mark.parametrize(
    "text", ["", "p99", "p99<", "<50ms", "p99<fast", "p98.5<1", "speed<1", "p99<5%", "lost<5ms", "p99=>5", "p99<-1ms"]
)
def test_an_assertion_that_does_not_parse_is_a_usage_error(text):
    with pytest.raises(UsageError, match="--assert"):
        parse_assertions([text])


def test_an_assertion_on_a_number_that_the_run_cannot_give_does_not_hold():
    (assertion,) = parse_assertions(["p99_upper<1s"])
    judged = judge_assertion(assertion, METRICS)
    assert not judged.holds
    assert str(judged) == "p99_upper<1s: the run gives no number for it"


def test_the_generator_is_at_fault_above_five_milliseconds_or_a_tenth_of_the_median():
    def fault(lag_ms, p50_ms):
        return bool(generator_fault(lag_ms, p50_ms, is_open_loop=True))

    assert not fault(5.0, 1.0)
    assert fault(5.1, 1.0)
    assert not fault(20.0, 200.0)
    assert fault(20.1, 200.0)
    assert fault(5.1, None)
    assert not fault(None, None)
    assert not generator_fault(99.0, 1.0, is_open_loop=False)


def test_verdicts_by_what_is_worst():
    missed = [judge_assertion(parse_assertions(["lost=0"])[0], METRICS)]
    kept = [judge_assertion(parse_assertions(["lost=2"])[0], METRICS)]

    def verdict(faults=(), ended_early="", judged=(), doubts=()):
        return decide(faults=list(faults), ended_early=ended_early, judged=list(judged), doubts=list(doubts))[0]

    assert verdict() is Verdict.OK
    assert verdict(judged=kept) is Verdict.OK
    assert verdict(judged=kept, doubts=["too few"]) is Verdict.INCONCLUSIVE
    assert verdict(judged=missed, doubts=["too few"]) is Verdict.SLO_MISSED
    assert verdict(ended_early="gone", judged=missed) is Verdict.NO_SERVER
    assert verdict(faults=["lag"], judged=missed) is Verdict.INVALID
    assert verdict(faults=["lag"], ended_early="gone", judged=missed) is Verdict.NO_SERVER


def test_exit_codes_of_verdicts():
    assert {verdict: verdict.exit_code for verdict in Verdict} == {
        Verdict.OK: ExitCode.OK,
        Verdict.INCONCLUSIVE: ExitCode.OK,
        Verdict.SLO_MISSED: ExitCode.SLO_MISSED,
        Verdict.NO_SERVER: ExitCode.CANNOT_CONNECT,
        Verdict.INVALID: ExitCode.INVALID,
    }
    assert [int(code) for code in ExitCode] == [0, 2, 3, 4, 5, 73, 130]


def test_reasons_name_everything_the_worst_first():
    missed = [judge_assertion(parse_assertions(["lost=0"])[0], METRICS)]
    _, reasons = decide(faults=["lag"], ended_early="gone", judged=missed, doubts=["few"])
    assert reasons == ["gone", "lag", "lost=0: does not hold (2)", "few"]
