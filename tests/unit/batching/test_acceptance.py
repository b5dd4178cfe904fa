"""The promises of the batch former, in virtual time on whole traces. The numbers with bars are in test_bars.

The number in a name is that of the promise, 01 to 18. Other tests: 01 and 02 for random events in test_policy, 14 in
test_window, 18 in test_bars; 01 with the thread in tests/pipeline/test_former_properties; 03 with sessions in
tests/unit/frontend/test_session_rules; 16 over the wire in tests/rpc/test_abandoned; 17 over the wire in
tests/rpc/test_health; 08 for a minute in tests/heavy/test_overload.
"""

import functools
import random

import numpy as np
import pytest

from forebay_server.bench.batching_metrics import evaluate
from forebay_server.bench.batching_workloads import (
    GPU,
    MS,
    SECOND_NS,
    Workload,
    cameras,
    cameras_latest,
    cpu,
    mixed,
    poisson,
)
from forebay_server.bench.virtual_time import VirtualTime, cost_of, simulate
from forebay_server.service.batching.cost_table import CostTableError
from forebay_server.service.batching.settings import BatchingSettings
from forebay_server.service.errors import Outcome
from forebay_server.service.request import Delivery
from tests.support.batching import CoreRig, cost_model, stream

SETTINGS = BatchingSettings(32)
CAPACITY_PER_S = GPU.capacity_per_ns * SECOND_NS


@functools.cache
def overload():
    """Four seconds of 1.5 times capacity, then four of half of it."""
    heavy, light = poisson(1.5, 4, 7), poisson(0.5, 4, 8)
    return Workload(
        "overload",
        1.5,
        GPU,
        np.concatenate([heavy.arrivals_ns, light.arrivals_ns + 4 * SECOND_NS]),
        np.concatenate([heavy.budgets_ns, light.budgets_ns]),
        np.concatenate([heavy.streams, light.streams]),
        8 * SECOND_NS,
    )


@functools.cache
def overload_run():
    return simulate(overload(), SETTINGS)


def between(run, start_s, end_s):
    """Arrivals, finishing times and budgets of the requests that arrived in a part of the trace."""
    arrivals = run.workload.arrivals_ns
    part = (arrivals >= start_s * SECOND_NS) & (arrivals < end_s * SECOND_NS)
    return arrivals[part], run.finished_ns[part], run.workload.budgets_ns[part]


def test_01_and_02_every_request_is_in_at_most_one_batch_and_none_is_too_large():
    run = overload_run()
    batched = [request_id for _, ids in run.batches for request_id in ids]
    assert len(batched) == len(set(batched)) == int((run.finished_ns >= 0).sum())
    assert len(batched) + len(run.endings) == len(run.workload.arrivals_ns)
    assert not set(batched) & set(run.endings)
    assert max(run.batch_rows) <= 32


def test_03_frames_of_a_stream_are_batched_in_the_order_of_their_arrival():
    run = overload_run()
    streams = run.workload.streams
    last = {}
    for _, ids in run.batches:
        for request_id in ids:
            assert last.get(streams[request_id], -1) < request_id
            last[streams[request_id]] = request_id


def test_03_what_is_given_up_ends_before_later_frames_of_its_stream_are_done():
    # A reply that waits for its turn is held up by the ends of earlier ones: those that are given up end by their
    # deadline at the latest, so later frames of the stream never wait for them longer than for an executed one.
    run = overload_run()
    assert set(run.endings.values()) == {Outcome.EXPIRED}


def test_04_compute_is_never_idle_while_something_is_pending_for_longer_than_the_guard():
    virtual = VirtualTime(poisson(0.95, 2, 3), SETTINGS)
    run = virtual.run()
    assert run.busy_ns / run.simulated_ns > 0.93  # offered work is 0.95 of capacity in batches that are not all full


@pytest.mark.parametrize(("kind", "load"), [(poisson, 0.3), (cameras, 0.9), (poisson, 1.5)])
def test_04_nothing_waits_beside_an_executor_with_nothing_to_do(kind, load):
    virtual = VirtualTime(kind(load, 1, 3), SETTINGS)
    step = virtual.core.step

    def watched(now_ns):
        wake_ns = step(now_ns)
        assert virtual.core.lanes.in_flight or not len(virtual.core.pending)
        return wake_ns

    virtual.core.step = watched
    virtual.run()


@pytest.mark.parametrize("delay_us", [0, 500, 3_000])
def test_05_nobody_is_held_back_longer_than_asked_for(delay_us):
    workload = poisson(0.05, 4, 3)
    run = simulate(workload, BatchingSettings(32, max_queue_delay_us=delay_us))
    longest_ms = (run.finished_ns - workload.arrivals_ns).max() / 1e6
    undelayed_ms = (simulate(workload, SETTINGS).finished_ns - workload.arrivals_ns).max() / 1e6
    assert longest_ms <= undelayed_ms + delay_us / 1e3 + 1.0
    assert not run.endings


@pytest.mark.parametrize(("load", "kind"), [(0.9, cameras), (0.5, cameras), (0.8, poisson)])
def test_06_nothing_is_late_or_shed_below_capacity(load, kind):
    workload = kind(load, 4, 5)
    run = simulate(workload, SETTINGS)
    cell = evaluate(workload, "jit_edf", run.finished_ns, run.batch_rows)
    assert cell.shed_share + cell.late_share <= (0.001 if kind is poisson else 0.0)


@pytest.mark.parametrize("delay_us", [0, 3_000])
def test_07_lone_request_takes_at_most_half_of_the_fixed_cost_longer_than_its_work(delay_us):
    arrivals = (np.arange(50) * 100 * MS).astype(np.int64)
    workload = Workload("lone", 0.0, GPU, arrivals, np.full(50, 33 * MS), np.zeros(50, np.int64), 5 * SECOND_NS)
    run = simulate(workload, BatchingSettings(32, max_queue_delay_us=delay_us))
    cost = cost_of(GPU)
    work_ns = cost.h2d_ns(1) + 1.2 * cost.mean_ns(1) + cost.d2h_ns(1)
    assert (run.finished_ns - arrivals).max() <= work_ns + cost.alpha_base_ns / 2 + MS


def test_07_lone_request_leaves_at_once_on_an_idle_executor():
    rig = CoreRig()
    one = rig.arrive()
    assert rig.batches[0].formed_ns == one.arrival_ns


@pytest.mark.parametrize("load", [1.2, 1.5])
def test_08_goodput_stays_at_capacity_under_overload(load):
    workload = poisson(load, 3, 11)
    virtual = VirtualTime(workload, SETTINGS)
    run = virtual.run()
    cell = evaluate(workload, "jit_edf", run.finished_ns, run.batch_rows)
    assert cell.goodput_per_s >= 0.97 * CAPACITY_PER_S
    assert cell.mean_batch >= 0.9 * 32
    assert run.peak_pending < load * CAPACITY_PER_S * 0.033 + 64


def test_08_latency_recovers_within_two_seconds_of_an_overload():
    run = overload_run()
    arrivals, finished, _ = between(run, 6, 8)
    calm = poisson(0.5, 4, 8)
    calm_p99_ns = np.percentile(simulate(calm, SETTINGS).finished_ns - calm.arrivals_ns, 99)
    assert (finished >= 0).all()
    assert np.percentile(finished - arrivals, 99) <= 1.1 * calm_p99_ns


def test_09_drift_that_is_far_too_high_does_not_lock_the_former_up():
    cost = cost_of(GPU)
    cost.execute_drift.ratio = cost.execute_drift.factor = 8.0
    workload = poisson(0.1, 4, 2)
    virtual = VirtualTime(workload, SETTINGS, cost=cost)
    run = virtual.run()
    assert run.finished_ns[0] >= 0, "the first frame is the probe"
    shed = sorted(run.endings)
    probes = [ids for _, ids in run.batches[:50]]
    assert not [request_id for request_id in shed if request_id > max(probes[-1])]
    assert cost.execute_drift.ratio < 1.2


@pytest.mark.parametrize("load", [0.02, 0.1, 0.2])
def test_09_nothing_is_shed_at_low_load(load):
    assert not simulate(poisson(load, 5, 4), SETTINGS).endings


def test_10_a_slowdown_is_learnt_within_a_second():
    workload = poisson(0.8, 4, 6)
    step_ns = 2 * SECOND_NS
    slower = Workload(
        "step",
        0.8,
        GPU,
        workload.arrivals_ns,
        workload.budgets_ns,
        workload.streams,
        workload.duration_ns,
        slowdown=lambda now_ns: 1.4 if now_ns >= step_ns else 1.0,
    )
    arrivals, finished, budgets = between(simulate(slower, SETTINGS), 3, 4)
    assert ((finished >= 0) & (finished > arrivals + budgets)).mean() <= 0.02


def test_11_no_stream_starves_and_one_that_joins_gets_a_fair_share():
    base = cameras(1.5, 4, 9)
    newcomer = int(base.streams[0])
    joined_ns = 2 * SECOND_NS
    kept = (base.streams != newcomer) | (base.arrivals_ns >= joined_ns)
    workload = Workload(
        "join", 1.5, GPU, base.arrivals_ns[kept], base.budgets_ns[kept], base.streams[kept], base.duration_ns
    )
    run = simulate(workload, SETTINGS)
    counted = workload.arrivals_ns >= joined_ns
    in_time = counted & (run.finished_ns >= 0) & (run.finished_ns <= workload.arrivals_ns + workload.budgets_ns)
    offered = np.bincount(workload.streams[counted])
    shares = np.bincount(workload.streams[in_time], minlength=len(offered))[offered > 0] / offered[offered > 0]
    mean = shares.mean()
    assert shares.min() >= 0.5 * mean
    assert shares[newcomer] <= 1.25 * mean


def test_12_both_classes_are_in_time_at_capacity():
    workload = mixed(1.0, 4, 3)
    run = simulate(workload, SETTINGS)
    cell = evaluate(workload, "jit_edf", run.finished_ns, run.batch_rows)
    assert set(cell.in_time_share_by_class) == {"33ms", "200ms"}
    assert min(cell.in_time_share_by_class.values()) >= 0.999


def test_13_latest_streams_wait_with_their_newest_frame_only():
    workload = cameras_latest(1.5, 1.5, 5)
    virtual = VirtualTime(workload, SETTINGS)
    waiting = []
    core = virtual.core
    arrive = core.arrive

    def watched(request, now_ns):
        arrive(request, now_ns)
        waiting.append(len(core.pending._streams.by_key[request.stream].waiting))
        assert request.id in core.pending, "the newest is never the one replaced"

    core.arrive = watched
    run = virtual.run()
    assert max(waiting) == 1
    assert set(run.endings.values()) == {Outcome.SUPERSEDED}


@pytest.mark.parametrize("kind", [poisson, cameras, cpu])
def test_15_the_same_trace_gives_the_same_batches(kind):
    first, second = (simulate(kind(1.1, 1, 3), BatchingSettings(8)) for _ in range(2))
    assert first.batches == second.batches
    assert first.endings == second.endings


@pytest.mark.parametrize("load", [0.3, 0.9, 1.5])
def test_15_the_former_wakes_at_most_twice_a_frame(load):
    run = simulate(cameras(load, 1, 3), SETTINGS)
    assert run.steps / len(run.workload.arrivals_ns) <= 2.0


def test_16_a_cancelled_request_leaves_no_gap_in_the_batch_and_one_in_flight_runs_on():
    rig = CoreRig()
    first = rig.arrive(200, rows=32)
    camera = stream(delivery=Delivery.EVERY)
    waiting = [rig.arrive(200, on=camera) for _ in range(3)]
    rig.core.cancel([waiting[1], first], rig.now_ns)
    waiting[2].is_cancelled = True
    rig.step()
    rig.advance(20)
    assert [len(b.requests) for b in rig.batches] == [1, 1]
    assert rig.batches[1].requests == [waiting[0]]
    assert set(rig.ended()) == {waiting[1], waiting[2]}
    assert set(rig.ended().values()) == {Outcome.CANCELLED}


def test_17_there_is_no_former_and_so_no_model_that_serves_without_a_measured_cost():
    with pytest.raises(CostTableError):
        cost_model(sizes=())


def test_captured_sizes_cost_little_latency():
    workload = poisson(0.8, 2, 15)
    cost = cost_of(GPU, sizes=(1, 2, 4, 8, 16, 32))
    run = simulate(workload, SETTINGS, cost=cost)
    assert np.percentile(run.finished_ns - workload.arrivals_ns, 99) <= 23 * MS


def test_late_timers_cost_little():
    workload = poisson(0.8, 2, 14)
    run = simulate(workload, SETTINGS, timer_lag_ns=MS // 2)
    assert np.percentile(run.finished_ns - workload.arrivals_ns, 99) <= 21 * MS
    assert not run.endings


@pytest.mark.parametrize("kind", [poisson, cameras])
def test_rare_stalls_of_the_machine_cost_little(kind):
    late = random.Random(1)  # noqa: S311 - scatter
    workload = kind(0.9, 2, 14)
    run = simulate(workload, SETTINGS, timer_lag_ns=lambda: MS * 3 if late.random() < 0.1 else MS // 8)
    calm = simulate(workload, SETTINGS)
    p99_ns, calm_ns = (np.percentile(r.finished_ns - workload.arrivals_ns, 99) for r in (run, calm))
    assert p99_ns <= 1.1 * calm_ns


def test_two_lanes_do_twice_the_work():
    workload = poisson(1.8, 2, 3)
    run = simulate(workload, SETTINGS, lanes=2)
    cell = evaluate(workload, "jit_edf", run.finished_ns, run.batch_rows)
    assert cell.in_time_share == 1.0
    assert cell.p99_ms < 22
