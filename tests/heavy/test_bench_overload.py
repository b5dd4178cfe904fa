"""The overload as a client sees it, with real processes: every frame is accounted for."""

import pytest

from forebay_server.bench.overload import Cell, measure

pytestmark = pytest.mark.alone


@pytest.mark.parametrize("delivery", ["latest", "every"])
def test_every_frame_of_an_overloaded_cell_is_accounted_for(delivery):
    outcome = measure(Cell(1024, delivery, 3.0, is_disturbed=True), capacity_per_s=681.0, seconds=2.0)
    fates = outcome.account.fates
    assert outcome.account.void == []
    assert sum(fates.values()) == pytest.approx(3.0 * 681.0 * 1.8, rel=0.05)
    assert fates["expired"] + fates["superseded"] + fates["overloaded"] + fates["not sent"] >= sum(fates.values()) / 2
    assert outcome.health.failed == 0
    assert outcome.cost.hog > 0
