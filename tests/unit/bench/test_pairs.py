"""Intervals have their coverage, and disturbed runs do not move the median."""

import random

from forebay_server.bench.pairs import Pairs, median_interval


def test_interval_of_a_median_covers_the_true_one_as_often_as_it_says():
    chance = random.Random(3)  # noqa: S311
    covered = 0
    for _ in range(1000):
        found = median_interval([chance.lognormvariate(0.0, 0.5) for _ in range(30)])
        covered += found.low <= 1.0 <= found.high
    assert 940 <= covered <= 995  # at least 95 %, and not all of them: the interval is no wider than it has to be


def test_interval_of_few_values_is_all_of_them():
    found = median_interval([3.0, 1.0, 2.0])
    assert (found.value, found.low, found.high) == (2.0, 1.0, 3.0)


def test_disturbed_runs_move_the_sums_and_not_the_median():
    pairs = Pairs([1.0] * 40, [1.02] * 36 + [9.0] * 4)
    assert pairs.median_ratio().value == 1.02
    assert pairs.median_ratio().high == 1.02
    assert pairs.ratio_of_sums().value > 1.7


def test_ratio_of_sums_covers_the_true_one():
    chance = random.Random(4)  # noqa: S311
    covered = 0
    for _ in range(100):
        first = [chance.gauss(1.0, 0.1) for _ in range(40)]
        pairs = Pairs(first, [a * 1.05 * chance.gauss(1.0, 0.05) for a in first])
        found = pairs.ratio_of_sums()
        covered += found.low <= 1.05 <= found.high
    assert covered >= 88
