"""A plan: deterministic, never better with more cameras, and limited by the part that the costs say."""

import dataclasses
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forebay_server.bench.plan import fit as fit_module
from forebay_server.bench.plan.fit import (
    MOST_SHARE,
    Cameras,
    Machine,
    Target,
    candidates,
    ceiling_per_s,
    counts,
    fit,
    point_of,
    simulate,
)
from forebay_server.service.request import Delivery
from tests.support.plans import MS, US, costs_of

LATEST = Cameras(10.0, 100.0, Delivery.LATEST)
EVERY = Cameras(10.0, 100.0, Delivery.EVERY)
TARGET = Target(100.0)


@pytest.fixture(autouse=True)
def _short_runs(monkeypatch):
    monkeypatch.setattr(fit_module, "MOST_FRAMES", 400)


any_costs = st.builds(
    costs_of,
    alpha_ns=st.integers(MS, 10 * MS),
    beta_ns=st.integers(0, 10 * MS),
    largest=st.integers(1, 8),
    decode_ns=st.sampled_from((0, 500 * US, 4 * MS)),
    loop_ns=st.integers(50 * US, MS),
    strands=st.integers(0, 2),
    instances=st.integers(1, 2),
    scatter=st.sampled_from((0.0, 0.05, 0.3)),
)
any_cameras = st.builds(
    Cameras, st.sampled_from((5.0, 30.0)), st.sampled_from((50.0, 200.0)), st.sampled_from(Delivery)
)
few = settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))


def test_the_same_costs_give_the_same_plan():
    assert fit(costs_of(), LATEST, Machine(2), TARGET) == fit(costs_of(), LATEST, Machine(2), TARGET)


def test_few_cameras_are_looked_at_one_by_one_and_many_by_shares():
    assert candidates(9.0) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert candidates(100.0) == [25, 50, 60, 70, 75, 80, 82, 85, 87, 90]
    assert candidates(0.5) == [1]


def test_a_slowdown_lets_fewer_cameras_fit():
    fits = [
        fit(dataclasses.replace(costs_of(), slowdown=factor), LATEST, Machine(2), TARGET).fits for factor in (1, 1.4)
    ]
    assert fits[1] == pytest.approx(fits[0] / 1.4, abs=1)


def test_a_frame_alone_takes_the_sum_of_its_costs():
    costs = costs_of(scatter=0.0)
    frame = costs.frame
    alone_ns = frame.transport_ns + frame.loop_ns + frame.decode_ns + frame.result_ns + frame.stage_ns + 9 * MS
    outcome = simulate(costs, Cameras(1.0, 100.0, Delivery.EVERY), Machine(2), 1)
    assert set(outcome.latencies_ns) == {alone_ns}
    assert outcome.dropped_share == 0.0
    assert outcome.lags_ns == []
    beside = simulate(costs, Cameras(1.0, 100.0, Delivery.EVERY), Machine(2, has_cameras=True), 1)
    assert set(beside.latencies_ns) == {alone_ns + frame.camera_ns}
    assert set(beside.lags_ns) == {0}


@few
@given(any_costs, any_cameras, st.integers(1, 4))
def test_more_cameras_are_never_promised_a_better_latency_or_fewer_drops(costs, cameras, cores):
    found = fit(costs, cameras, Machine(cores), TARGET)
    points = found.points
    assert [p.cameras for p in points] == sorted({p.cameras for p in points})
    for low, high in itertools.pairwise(points):
        assert high.p99_upper_ms >= low.p99_upper_ms
        assert high.dropped_share >= low.dropped_share
        assert not (high.p99_ms < low.p99_ms)
    passing = [p.passes(TARGET) for p in points]
    assert passing == sorted(passing, reverse=True)
    assert found.fits == max((p.cameras for p in points if p.passes(TARGET)), default=0)
    assert found.fits <= MOST_SHARE * found.ceiling


@settings(few, max_examples=4)
@given(any_costs, any_cameras)
def test_a_looser_target_never_fits_fewer(costs, cameras):
    strict, loose = (fit(costs, cameras, Machine(2), target).fits for target in (Target(40.0), Target(200.0, 0.05)))
    assert strict <= loose


@few
@given(any_costs, any_cameras)
def test_every_frame_ends_once_and_none_before_its_cost(costs, cameras):
    count = max(1, int(ceiling_per_s(costs, Machine(2)) / cameras.fps))
    outcome = simulate(costs, cameras, Machine(2), count)
    assert 0 <= len(outcome.latencies_ns) <= outcome.offered
    assert outcome.cores_busy <= 2.0 + 1e-6
    frame = costs.frame
    assert min(outcome.latencies_ns, default=1 << 60) >= frame.transport_ns + frame.loop_ns + frame.decode_ns


def test_far_above_the_ceiling_frames_are_dropped_and_none_is_late():
    outcome = simulate(costs_of(), LATEST, Machine(2), 30)
    assert outcome.dropped_share > 0.5
    assert max(outcome.latencies_ns) < 150 * MS


@pytest.mark.parametrize(
    ("costs", "machine", "per_s"),
    [
        (costs_of(alpha_ns=0, beta_ns=10 * MS), Machine(64), 100),
        (costs_of(alpha_ns=8 * MS, beta_ns=0, largest=8), Machine(64), 1000),
        (costs_of(alpha_ns=1 * US, beta_ns=0, loop_ns=2 * MS), Machine(64), 500),
        (costs_of(alpha_ns=0, beta_ns=10 * MS, instances=4), Machine(64), 400),
        (costs_of(alpha_ns=0, beta_ns=10 * MS, instances=4, decode_ns=9_250 * US), Machine(2), 100),
        (costs_of(alpha_ns=0, beta_ns=10 * MS, instances=4, decode_ns=9_050 * US), Machine(2, has_cameras=True), 100),
    ],
    ids=["engine", "batches", "event loop", "instances", "cores", "cores with cameras"],
)
def test_the_ceiling_is_that_of_the_busiest_part(costs, machine, per_s):
    assert ceiling_per_s(costs, machine) == pytest.approx(per_s, rel=0.01)


def test_every_number_of_cameras_is_tried_once_also_where_few_fit():
    assert counts(0.2) == [1]
    assert counts(3.0) == [1, 2]
    many = counts(1000.0)
    assert many == sorted(set(many))
    assert many[-1] == 900


def test_cameras_on_the_same_machine_and_other_programs_leave_less():
    alone = fit(costs_of(), LATEST, Machine(1), TARGET).fits
    beside = fit(costs_of(camera_ns=3 * MS), LATEST, Machine(1, has_cameras=True), TARGET).fits
    assert beside < alone
    assert fit(costs_of(), LATEST, Machine(1, taken=0.5), TARGET).fits < alone


def test_cores_whose_speed_changes_carry_fewer_cameras_than_cores_of_the_mean_speed():
    steady = costs_of(alpha_ns=0, beta_ns=8 * MS, scatter=0.0)
    changing = dataclasses.replace(steady, speeds=(1.0, 0.8, 1.2))
    at_mean = simulate(steady, LATEST, Machine(1), 8)
    at_times_slower = simulate(changing, LATEST, Machine(1), 8)  # 8.7 are the ceiling at the mean speed
    assert point_of(8, at_mean, 9.0).passes(TARGET)
    assert not point_of(8, at_times_slower, 9.0).passes(TARGET)
    assert at_times_slower.offered == at_mean.offered


def test_few_numbers_of_cameras_are_simulated_and_the_first_that_fails_is_the_next_one():
    found = fit(costs_of(alpha_ns=0, beta_ns=MS, decode_ns=MS), LATEST, Machine(8), Target(10.0))
    assert len(found.points) <= 9
    tried = candidates(found.ceiling)
    assert found.limit.cameras == tried[tried.index(found.fits) + 1]


def test_a_plan_leaves_a_tenth_of_the_ceiling_where_the_latency_would_allow_more():
    found = fit(costs_of(scatter=0.0), LATEST, Machine(2), Target(100.0))
    assert found.fits == int(MOST_SHARE * found.ceiling)
    assert found.limit.p99_upper_ms <= 100.0
    assert found.limit.share > MOST_SHARE


def test_cameras_on_the_same_machine_that_send_too_late_do_not_fit():
    slow = costs_of(alpha_ns=0, beta_ns=MS, camera_ns=18 * MS, loop_ns=50 * US)
    late = simulate(slow, EVERY, Machine(16, has_cameras=True), 5)  # 5 a period of 100 ms, 18 ms each, 60 % to send
    point = point_of(5, late, 5.5)
    assert point.p99_upper_ms < TARGET.p99_ms
    assert not point.is_sent_in_time
    assert not point.passes(TARGET)
    assert point_of(5, simulate(slow, EVERY, Machine(16), 5), 50.0).passes(TARGET)


def test_a_model_on_a_gpu_does_not_take_the_cores():
    on_cpu = fit(costs_of(decode_ns=9 * MS), EVERY, Machine(1), TARGET).fits
    assert fit(costs_of(decode_ns=9 * MS, strands=0), EVERY, Machine(1), TARGET).fits > on_cpu


def test_the_executed_sizes_of_a_gpu_are_padded():
    costs = dataclasses.replace(costs_of(alpha_ns=0, largest=4, scatter=0.0), executed_sizes=(4,))
    outcome = simulate(costs, Cameras(1.0, 1000.0, Delivery.EVERY), Machine(4), 1)
    assert min(outcome.latencies_ns) > 32 * MS
