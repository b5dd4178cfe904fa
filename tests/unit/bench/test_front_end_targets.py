"""The report of the front-end benchmarks about the numbers that were asked for."""

import pytest

from forebay_server.bench.gpu.front_end_targets import outcomes_of, write_targets
from forebay_server.bench.gpu.numbers import jain_index


def loop(way, model, rows_per_s, front_ends=5, p99_ms=14.0):
    return {"way": way, "model": model, "rows_per_s": rows_per_s, "front_ends": front_ends, "p99_ms": p99_ms}


def crowd(cameras, share, p99_ms=14.0, encoding="raw", **more):
    cell = {"way": f"{encoding} cameras", "cameras": cameras, "in_time_share": share, "p99_ms": p99_ms}
    return cell | {"front_ends": 5, "rows_per_s": 1.0} | more


RUN = [
    loop("frames", "identity, 150528 bytes", 4_000, front_ends=0),
    loop("frames", "identity, 150528 bytes", 15_000),
    loop("unary", "identity, 150528 bytes", 7_499),
    loop("frames", "identity, 519168 bytes", 4_000),
    {"way": "engine alone", "model": "resnet50", "rows_per_s": 10_000},
    loop("frames", "resnet50", 9_000, front_ends=0),  # of one process: it is not asked
    loop("frames", "resnet50", 7_400),
    loop("frames", "resnet50", 7_500, front_ends=6),
    loop("frames", "detector_fp16, detections", 3_600),
    crowd(64, 1.0, p99_ms=15.1),
    crowd(96, 0.97),
    crowd(128, 0.2),
    crowd(40, 1.0, encoding="jpeg"),
    crowd(180, 0.6, way="raw cameras, LATEST", load=1.5, of_capacity=0.9, jain=0.95),
    crowd(240, 0.4, way="raw cameras, LATEST", load=2.0, of_capacity=0.95, jain=0.94),
    {"way": "start", "front_ends": 5, "ratio": 1.4, "front_end_pss_mib": [20.0, 21.0]},
    {"way": "start", "front_ends": 5, "ratio": 1.6, "front_end_pss_mib": [20.0, 76.0]},
    {"way": "start", "front_ends": 5, "ratio": 1.5, "front_end_pss_mib": [20.0, 21.0]},
]


def test_every_number_that_was_asked_for_is_met_or_missed():
    verdicts = [outcome.is_met for outcome in outcomes_of(RUN)]
    assert verdicts == [True, False, True, True, True, False, True, None, True, True, False, True, True]


def test_the_rate_of_identity_counts_with_its_latency():
    slow = [loop("frames", "identity, 150528 bytes", 20_000, p99_ms=15.1)]
    assert next(outcomes_of(slow)).is_met is False


@pytest.mark.parametrize("left_out", range(1, len(RUN) - 3))
def test_a_number_that_is_missing_is_not_measured_and_changes_no_other_verdict_to_met(left_out):
    whole = {outcome.what: outcome for outcome in outcomes_of(RUN)}
    for outcome in outcomes_of(RUN[:left_out]):
        assert outcome.is_met is None or outcome.is_met <= bool(whole[outcome.what].is_met)
        assert (outcome.measured is None) == ("not measured" in str(outcome))


def test_without_a_run_nothing_is_measured(tmp_path):
    lines = write_targets(tmp_path)
    assert len(lines) == 13
    assert all("not measured" in line for line in lines)


@pytest.mark.parametrize(("values", "index"), [([3, 3, 3], 1), ([1, 0, 0, 0], 0.25), ([0, 0], 0), ([], 0)])
def test_jains_index(values, index):
    assert jain_index(values) == pytest.approx(index)
