import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_server.loadtest import histograms
from forebay_server.loadtest.quantiles import (
    block_bootstrap,
    early_stopping_estimate,
    interval_ranks,
    min_samples,
    order_statistics,
    quantile,
    wider,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=300), st.floats(0.001, 1.0))
def test_a_quantile_is_the_smallest_sample_that_the_share_does_not_exceed(samples, share):
    values = np.array(samples)
    found = quantile(values, share)
    assert np.count_nonzero(values <= found) >= share * len(values) - 1e-6
    assert np.count_nonzero(values < found) < share * len(values)


def test_histogram_percentiles_agree_with_exact_ones_to_three_figures():
    rng = np.random.default_rng(4)
    latency_ms = rng.lognormal(2, 1, 20_000)
    merged = histograms.merge([histograms.encode(part) for part in np.array_split(latency_ms, 4)])
    assert merged.get_total_count() == len(latency_ms)
    for share in (0.5, 0.9, 0.99, 0.999):
        assert histograms.percentile_ms(merged, share * 100) == pytest.approx(quantile(latency_ms, share), rel=2e-3)


def test_a_histogram_gives_back_what_was_put_in():
    values_ms, counts = histograms.values(histograms.encode(np.array([1.0, 2.0, 2.0, 1e9, 0.0])))
    assert counts.tolist() == [1, 1, 2, 1]
    assert values_ms[1:3].tolist() == [1.0, pytest.approx(2.0, rel=1e-3)]
    assert "#[Max" in histograms.hgrm(histograms.encode(np.array([1.0, 5.0])))


@pytest.mark.parametrize(("count", "ranks"), [(1000, (983, 997)), (5000, (4936, 4964)), (10_000, (9880, 9920))])
def test_ranks_enclose_p99_by_the_binomial_law(count, ranks):
    assert interval_ranks(count, 0.99) == ranks


def test_p99_needs_368_samples_for_an_upper_bound():
    assert min_samples(0.99) == 368
    assert interval_ranks(367, 0.99) is None
    assert interval_ranks(368, 0.99) is not None


def test_the_interval_of_independent_samples_covers_the_true_quantile_as_often_as_it_says():
    rng = np.random.default_rng(11)
    true_p99 = -math.log(0.01)
    covered = 0
    for _ in range(400):
        interval = order_statistics(rng.exponential(1.0, 2000), 0.99)
        covered += interval.low <= true_p99 <= interval.high
    assert 0.93 <= covered / 400 <= 0.99


def test_the_reported_interval_still_covers_when_latencies_come_in_stalls():
    """Where frames of one stall are alike, order statistics alone promise too much."""
    rng = np.random.default_rng(5)
    frames, seconds, rounds = 100, 30, 120
    # Each second has its own level; p99 over all is known from a long run of the same law.
    long_run = np.repeat(rng.lognormal(0, 0.5, 200_000), 5) + rng.exponential(0.2, 1_000_000)
    true_p99 = quantile(long_run, 0.99)
    at_s = np.arange(frames * seconds) / frames
    alone = together = 0
    for index in range(rounds):
        samples = np.repeat(rng.lognormal(0, 0.5, seconds), frames) + rng.exponential(0.2, frames * seconds)
        ranks = order_statistics(samples, 0.99)
        reported = wider(ranks, block_bootstrap(samples, at_s, 0.99, seed=index))
        alone += ranks.low <= true_p99 <= ranks.high
        together += reported.low <= true_p99 <= reported.high
    assert alone / rounds < 0.4
    assert together / rounds > 1.7 * alone / rounds


def test_a_run_shorter_than_ten_seconds_has_no_block_interval():
    samples = np.ones(5000)
    assert block_bootstrap(samples, np.linspace(0, 8, 5000), 0.99) is None
    assert block_bootstrap(np.zeros(0), np.zeros(0), 0.99) is None
    assert wider(order_statistics(samples, 0.99), None) is None


def test_resampling_is_the_same_for_the_same_seed():
    rng = np.random.default_rng(1)
    samples, at_s = rng.exponential(1, 5000), np.sort(rng.uniform(0, 30, 5000))
    assert block_bootstrap(samples, at_s, 0.99, seed=3) == block_bootstrap(samples, at_s, 0.99, seed=3)


def test_the_bootstrap_looks_below_the_top_when_a_resampling_is_all_quiet_blocks():
    at_s = np.arange(3000) / 100
    samples = np.where(at_s < 1, 100.0, 1.0) + np.arange(3000) * 1e-6
    interval = block_bootstrap(samples, at_s, 0.99)
    assert interval.low < 2
    assert interval.high > 99


def test_early_stopping_starts_at_662_samples_for_p99():
    """The floors that MLPerf's documentation names: 662 for p99, 64 for p90."""
    samples = np.arange(1.0, 1001.0)
    assert early_stopping_estimate(samples[:661], 0.99) is None
    assert early_stopping_estimate(samples[:662], 0.99) == 662
    assert early_stopping_estimate(samples[:63], 0.90) is None
    assert early_stopping_estimate(samples[:64], 0.90) == 64
    assert early_stopping_estimate(np.zeros(0), 0.99) is None


def test_early_stopping_is_above_the_quantile_and_comes_closer_with_more_samples():
    rng = np.random.default_rng(2)
    gaps = []
    for count in (700, 5000, 50_000):
        samples = rng.exponential(1, count)
        gaps.append(early_stopping_estimate(samples, 0.99) - quantile(samples, 0.99))
    assert gaps[0] > gaps[1] > gaps[2] > 0
