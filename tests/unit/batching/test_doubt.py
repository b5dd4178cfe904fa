"""A calibration that was too slow by any factor is found out, although it refuses everything."""

import pytest

from forebay_server.bench.affine_table import affine_table
from forebay_server.service.batching.cost_model import CostModel
from forebay_server.service.batching.doubt import DOUBTED_NS, PROBES, Doubt
from forebay_server.service.errors import Outcome
from forebay_server.service.request import TRUSTED_NS
from tests.support.batching import MS, CoreRig


def rig_that_seems(times):
    """An engine of 3 + 0.2 b ms that was measured `times` too slow."""
    sizes = range(1, 33)
    return CoreRig(cost=CostModel(sizes, affine_table(sizes, int(3 * MS * times), int(MS * times / 5))))


def offered(rig, seconds, *, budget_ms=33, every_ms=20):
    """Requests come one after the other, those that admission lets through; return those that were executed."""
    before = len(rig.batches)
    for _ in range(int(seconds * 1e3 / every_ms)):
        if not rig.core._published.is_hopeless(rig.now_ns, rig.now_ns + budget_ms * MS, 0):
            rig.arrive(budget_ms)
        while rig.running:
            rig.now_ns += int(3.2 * MS)
            rig.finish(execute_ns=int(3.2 * MS))
        rig.advance(every_ms)
    return rig.batches[before:]


@pytest.mark.parametrize("times", [11, 15, 19])
def test_calibration_that_was_too_slow_for_every_budget_is_corrected_within_two_seconds(times):
    rig = rig_that_seems(times)
    assert rig.cost.least_service_ns() > 33 * MS
    assert offered(rig, 0.9) == []
    offered(rig, 1.1)
    assert rig.cost.least_service_ns() < 4 * MS
    assert len(offered(rig, 1.0)) == 50


def test_calibration_that_was_far_too_slow_lets_some_requests_through_every_second():
    rig = rig_that_seems(1000)
    assert len(offered(rig, 5.0)) in range(2 * PROBES, 3 * PROBES + 1)


def test_budget_that_cannot_be_met_costs_few_executions_on_an_idle_lane_and_none_beside_others():
    rig = CoreRig()
    assert offered(rig, 0.99, budget_ms=2) == []
    assert 0 < len(offered(rig, 3.0, budget_ms=2)) <= 3 * PROBES
    rig = CoreRig()
    for _ in range(200):
        hopeless, good = rig.arrive(2), rig.arrive(33)
        rig.advance(3.3)
        rig.finish()
        rig.advance(20)
        assert rig.ended()[hopeless] is Outcome.EXPIRED
        assert good not in rig.ended()


def test_doubt_begins_with_the_first_that_is_given_up_and_ends_with_the_probes():
    doubt = Doubt()
    doubt.gave_up(100)
    doubt.gave_up(200)
    assert not doubt.wants_probe(99 + DOUBTED_NS)
    for _ in range(PROBES):
        assert doubt.wants_probe(100 + DOUBTED_NS)
        doubt.executed()
    assert not doubt.wants_probe(200 + 2 * DOUBTED_NS)


def test_whatever_is_executed_ends_the_doubt():
    doubt = Doubt()
    doubt.gave_up(100)
    doubt.executed()
    assert not doubt.wants_probe(200 + DOUBTED_NS)


def test_admission_trusts_what_was_executed_lately():
    rig = CoreRig()
    rig.arrive(33)
    rig.advance(3)
    rig.finish()
    feasibility, deadline_ns = rig.published[-1], rig.now_ns + MS
    assert feasibility.is_hopeless(rig.now_ns, deadline_ns, 0)
    assert not feasibility.is_hopeless(rig.now_ns + 1 + TRUSTED_NS, deadline_ns + 1 + TRUSTED_NS, 0)
