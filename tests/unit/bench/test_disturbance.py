"""A disturbance in virtual time happens at its planned time, and at no other."""

import numpy as np
import pytest

from forebay_server.bench.batching_workloads import MS, SECOND_NS
from forebay_server.bench.disturbance import DEMAND, DOWNLOAD, EXECUTION, PAUSE, UPLOAD, Disturbance, Disturbances
from forebay_server.bench.recovery import START_NS, cameras, disturbed, in_time_per_s
from forebay_server.bench.virtual_lane import StageCosts, VirtualLane
from forebay_server.service.request import Batch, Delivery


def test_factors_hold_while_they_are_said_to_and_multiply():
    wrong = Disturbances([Disturbance(EXECUTION, 3.0, 10, 20), Disturbance(EXECUTION, 2.0, 15, 30)])
    assert [wrong.factor(EXECUTION, at_ns) for at_ns in (9, 10, 15, 20, 30)] == [1.0, 3.0, 6.0, 2.0, 1.0]
    assert wrong.factor(UPLOAD, 15) == 1.0
    assert wrong.end_ns == 30


def test_what_happens_in_a_pause_is_seen_at_its_end():
    wrong = Disturbances([Disturbance(PAUSE, 1.0, 30, 40), Disturbance(PAUSE, 1.0, 10, 30)])
    assert [wrong.seen_ns(at_ns) for at_ns in (9, 10, 29, 35, 40)] == [9, 40, 40, 40, 40]


@pytest.mark.parametrize(("quantity", "ends_ms"), [(UPLOAD, [13, 14]), (EXECUTION, [31, 32]), (DOWNLOAD, [4, 14])])
def test_stage_that_begins_in_a_disturbance_takes_its_factor_as_long(quantity, ends_ms):
    costs = StageCosts(3 * MS, 0, (MS, 0), (MS, 0), jitter=0.0)
    lane = VirtualLane(0, costs, lambda: 0, disturbances=Disturbances([Disturbance(quantity, 10.0, 0, 5 * MS)]))
    lane.submit(Batch(1, 0, 0, [], 1, 1, 0))
    assert [event.at_ns // MS for event in lane.events] == ends_ms


def test_demand_makes_more_frames_of_every_stream_come_for_a_while():
    burst = Disturbances([Disturbance(DEMAND, 3.0, SECOND_NS, 2 * SECOND_NS)])
    workload = cameras(0.5, 4, Delivery.EVERY, 4 * SECOND_NS, burst)
    counts = np.histogram(workload.arrivals_ns, np.arange(5) * SECOND_NS)[0]
    assert counts[1] == pytest.approx(3 * counts[0], rel=0.03)
    assert counts[2] == pytest.approx(counts[0], rel=0.03)
    assert (np.diff(workload.arrivals_ns) >= 0).all()


def test_results_in_time_are_counted_between_two_instants():
    part = Disturbance(PAUSE, 1.0, START_NS, START_NS + SECOND_NS)
    run, last_ns = disturbed(0.5, 8, Delivery.EVERY, [part])
    assert in_time_per_s(run, 0, START_NS - SECOND_NS) == pytest.approx(0.5 * 681, rel=0.02)
    assert in_time_per_s(run, START_NS, START_NS + 800 * MS) == 0.0
    assert START_NS + SECOND_NS <= last_ns < START_NS + 2 * SECOND_NS
