"""Faults of the device at every stage, with real threads: one answer each, everything given back, threads joined."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forebay_server.engines.device_simulated import FaultPlan
from forebay_server.engines.errors import DeviceLostError, ExecutionError
from forebay_server.service.errors import DeviceLostError as ServiceDeviceLostError
from forebay_server.service.errors import Outcome
from tests.support.guard import HANG_GUARD_S
from tests.support.real_server import simulated
from tests.support.version import check_idle, simulated_device, workshop_of

VERBS = ["copy_h2d", "execute", "copy_d2h", "record", "wait", "sync"]
LATE_VERBS = ["copy_h2d", "execute", "copy_d2h"]


def failing(error="as the test asks"):
    return ExecutionError(error)


def run_with(root, faults, requests=30):
    """Open, arm, send, close; the outcomes, by request."""
    with workshop_of(root, device=simulated_device()) as workshop:
        version = workshop.open()
        device = workshop.devices[0]
        device.arm(faults)
        sent = workshop.send(version, requests)
        workshop.check(sent)
        assert version.close(10)
        check_idle(workshop, version)
        assert device.races == ()
        assert device.leaks == ()
        assert workshop.fatal == []
        return [completion.error and completion.error.outcome for completion in workshop.answers.completions]


@pytest.mark.parametrize("position", [0, 7])
@pytest.mark.parametrize("verb", VERBS)
def test_a_batch_that_fails_does_not_hurt_its_neighbours(tmp_path, verb, position):
    outcomes = run_with(simulated(tmp_path, max_batch_size=1), FaultPlan(fail={(verb, position): failing()}))
    assert outcomes.count(Outcome.FAILED) == 1
    assert outcomes.count(None) == 29


@pytest.mark.parametrize("verb", LATE_VERBS)
def test_a_failure_that_shows_late_hits_its_own_batch(tmp_path, verb):
    outcomes = run_with(simulated(tmp_path, max_batch_size=1), FaultPlan(fail_late={(verb, 7): failing()}))
    assert outcomes.count(Outcome.FAILED) == 1
    assert outcomes.count(None) == 29


@pytest.mark.parametrize("verb", LATE_VERBS)
def test_a_stall_only_costs_time(tmp_path, verb):
    outcomes = run_with(simulated(tmp_path, instances=2), FaultPlan(stall={(verb, 3): 20_000_000}))
    assert outcomes == [None] * 30


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fail=st.sets(
        st.tuples(st.sampled_from(["copy_h2d", "execute", "copy_d2h", "wait"]), st.integers(0, 25)), max_size=6
    ),
    stall=st.sets(st.tuples(st.sampled_from(LATE_VERBS), st.integers(0, 25)), max_size=3),
    instances=st.integers(1, 3),
    max_batch_size=st.sampled_from([1, 4]),
)
def test_no_plan_of_faults_loses_a_request_or_a_slot(tmp_path_factory, fail, stall, instances, max_batch_size):
    root = simulated(tmp_path_factory.mktemp("models"), instances=instances, max_batch_size=max_batch_size)
    faults = FaultPlan(fail=dict.fromkeys(fail, failing()), stall=dict.fromkeys(stall, 1_000_000))
    outcomes = run_with(root, faults)
    assert set(outcomes) <= {None, Outcome.FAILED}


def test_an_engine_that_stalls_is_waited_for_and_its_neighbour_lane_goes_on(tmp_path):
    with workshop_of(simulated(tmp_path, instances=2, max_batch_size=1), device=simulated_device()) as workshop:
        version = workshop.open()
        workshop.devices[0].arm(FaultPlan(stall={("execute", 0): None}))
        requests = workshop.send(version, 20)
        workshop.answers.wait_for(10)  # by the other lane
        for lane in version.lanes:
            lane.execute.device_stream.release()
        workshop.check(requests)
        assert version.close(10)
        check_idle(workshop, version)


def test_a_lost_device_answers_what_it_had_and_is_reported(tmp_path):
    with workshop_of(simulated(tmp_path, max_batch_size=1), device=simulated_device()) as workshop:
        version = workshop.open()
        workshop.devices[0].arm(FaultPlan(fail={("execute", 3): DeviceLostError("sticky")}))
        workshop.send(version, 10)
        workshop.answers.wait_for(4)
        assert any(isinstance(error, ServiceDeviceLostError) for error in workshop.fatal)
        lost = [c for c in workshop.answers.completions if c.error is not None]
        assert {c.error.outcome for c in lost} == {Outcome.LOST}
        version.former.stop()  # the process would end now; a test has to end its threads
        assert version.former.join(HANG_GUARD_S)
        for lane in version.lanes:
            lane.channels[0].close()
            assert all(stage.join(HANG_GUARD_S) for stage in lane.stages)
