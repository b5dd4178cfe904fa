"""More of the grid of tests/unit/batching/test_recovery.py, all of it as a soak, and a longer search for traps."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_server.bench.disturbance import PAUSE, QUANTITIES
from forebay_server.bench.recovery import DURATIONS_S, FACTORS, LOADS, STREAMS, grid, recover
from forebay_server.service.request import Delivery
from tests.unit.batching.test_recovery import disturbances

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("quantity", [*QUANTITIES, PAUSE])
def test_former_is_itself_again_below_and_above_its_capacity(quantity):
    cells = grid(quantities=[quantity], factors=FACTORS[::2], durations_s=[1.0], loads=[0.9, 2.0], streams=[48])
    assert [cell for cell in cells if not cell.is_recovered] == []


@pytest.mark.soak
@pytest.mark.parametrize("seconds", DURATIONS_S)
@pytest.mark.parametrize("quantity", [*QUANTITIES, PAUSE])
def test_former_is_itself_again_whatever_the_load(quantity, seconds):
    """Half an hour of CPU in all."""
    assert [cell for cell in grid(quantities=[quantity], durations_s=[seconds]) if not cell.is_recovered] == []


@settings(max_examples=30)
@given(disturbances(), st.sampled_from(LOADS), st.sampled_from(STREAMS), st.sampled_from(Delivery))
def test_no_disturbance_is_found_that_traps(parts, load, streams, delivery):
    cell = recover(load, streams, delivery, parts)
    assert cell.is_recovered, cell
