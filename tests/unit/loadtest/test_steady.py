import numpy as np
import pytest

from forebay_server.loadtest.steady import find_steady, mann_kendall, mser5, stretch_medians, theil_sen


def test_mser_cuts_nothing_from_a_constant_series():
    assert mser5(np.full(100, 3.0)) == 0


def test_mser_cuts_exactly_the_warm_up_of_a_known_series():
    series = np.concatenate([np.full(15, 10.0), np.tile([1.0, 1.2], 100)])
    assert mser5(series) == 15


def test_mser_cuts_a_decaying_warm_up_close_to_its_end():
    steps = np.arange(200)
    rng = np.random.default_rng(3)
    series = 5 + 50 * np.exp(-steps / 8) + rng.normal(0, 0.5, 200)
    assert 15 <= mser5(series) <= 45


def test_mser_never_cuts_more_than_half():
    assert mser5(np.linspace(100, 0, 200)) <= 100


def test_mser_leaves_a_short_series_alone():
    assert mser5(np.array([9.0] * 5 + [1.0] * 14)) == 0


def latencies(level_ms, rate_per_s=50, duration_s=60, seed=0):
    due_s = np.arange(0, duration_s, 1 / rate_per_s)
    rng = np.random.default_rng(seed)
    return level_ms(due_s) * rng.lognormal(0, 0.1, len(due_s)), due_s


def test_a_slow_start_is_cut_and_the_rest_is_steady():
    latency_ms, due_s = latencies(lambda at_s: np.where(at_s < 5, 40.0, 10.0))
    steady = find_steady(latency_ms, due_s, 60)
    assert not steady.reason
    assert 4.9 <= steady.cut_s <= 7


@pytest.mark.parametrize("stall_s", [0.05, 0.4, 2.0])
def test_a_stall_in_the_middle_is_not_mistaken_for_warm_up(stall_s):
    latency_ms, due_s = latencies(lambda at_s: np.where((at_s > 10) & (at_s < 10 + stall_s), 500.0, 10.0))
    steady = find_steady(latency_ms, due_s, 60)
    assert not steady.reason
    assert steady.cut_s < 10


def test_a_warm_up_is_cut_without_the_stall_that_follows():
    latency_ms, due_s = latencies(
        lambda at_s: np.where(at_s < 5, 40.0, np.where((at_s > 10) & (at_s < 10.4), 500.0, 10.0))
    )
    assert 4.9 <= find_steady(latency_ms, due_s, 60).cut_s <= 7


def test_a_queue_that_grows_for_the_whole_run_has_no_steady_state():
    latency_ms, due_s = latencies(lambda at_s: 10 + 20 * at_s)
    assert "no steady state" in find_steady(latency_ms, due_s, 60).reason


@pytest.mark.parametrize("seed", range(30))
def test_steady_noise_is_called_steady(seed):
    latency_ms, due_s = latencies(lambda at_s: np.full_like(at_s, 10.0), seed=seed)
    assert not find_steady(latency_ms, due_s, 60).reason


def test_too_few_answers_have_no_steady_state():
    assert "too few" in find_steady(np.ones(50), np.arange(50.0), 50).reason
    assert "too few" in find_steady(np.zeros(0), np.zeros(0), 50).reason


def test_stretches_without_a_frame_are_left_out():
    medians, starts_s = stretch_medians(np.arange(40.0), np.concatenate([np.zeros(20), np.full(20, 9.0)]), 10)
    assert medians.tolist() == [9.5, 29.5]
    assert starts_s.tolist() == [0.0, 7.5]


def test_trend_statistics_of_known_series():
    assert theil_sen(np.arange(10.0) * 2) == 2
    assert theil_sen(np.ones(1)) == 0
    assert mann_kendall(np.ones(10)) == 0
    assert mann_kendall(np.arange(30.0)) > 6
    assert mann_kendall(np.arange(3.0)) == 0
