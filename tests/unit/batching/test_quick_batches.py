"""Which batches are short enough to run inline: by the estimate, and by trial where it is disturbed."""

import pytest

from forebay_server.service.batching.constants import LONG_RUNS, REST_NS
from forebay_server.service.batching.quick_batches import QuickBatches
from tests.support.batching import cost_model

LIMIT_NS = 200_000


@pytest.fixture
def cost():
    """Upload and execution of one row take 151 us, of four 304 us."""
    return cost_model(8, alpha_ms=0.0, beta_ms=0.001)


def slow_down(cost, factor):
    """Let everything take longer for so many batches that the estimate follows."""
    for _ in range(20):
        cost.observe(1, int(factor * 150_000), int(factor * 1_000))


def test_a_batch_is_quick_by_its_number_of_rows(cost):
    quick = QuickBatches(cost, LIMIT_NS)
    assert [quick.is_quick(rows, 0) for rows in (1, 4)] == [True, False]


def test_no_batch_is_quick_where_none_runs_inline(cost):
    assert not QuickBatches(cost, 0).is_quick(1, 0)


def test_what_was_short_at_calibration_is_tried_although_the_estimate_is_longer(cost):
    slow_down(cost, 3)
    assert cost.h2d_ns(1) > LIMIT_NS
    assert QuickBatches(cost, LIMIT_NS).is_quick(1, 0)


def test_what_was_long_at_calibration_and_is_short_now_runs_inline(cost):
    quick = QuickBatches(cost, LIMIT_NS)
    slow_down(cost, 0.1)
    assert quick.is_quick(4, 0)


def test_trials_that_turn_out_long_end_for_a_while_and_go_on_once_one_is_short(cost):
    quick = QuickBatches(cost, LIMIT_NS)
    slow_down(cost, 3)
    for _ in range(LONG_RUNS):
        assert quick.is_quick(1, 0)
        quick.observe(LIMIT_NS, 0)
    assert not quick.is_quick(1, REST_NS - 1)
    assert quick.is_quick(1, REST_NS)
    quick.observe(LIMIT_NS, REST_NS)
    assert not quick.is_quick(1, 2 * REST_NS - 1)
    quick.observe(LIMIT_NS - 1, 2 * REST_NS)
    assert quick.is_quick(1, 2 * REST_NS)


def test_trials_that_turned_out_long_do_not_hold_against_a_short_estimate(cost):
    quick = QuickBatches(cost, LIMIT_NS)
    for _ in range(LONG_RUNS):
        quick.observe(LIMIT_NS, 0)
    assert quick.is_quick(1, 0)
