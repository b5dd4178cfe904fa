"""A minute of overload in virtual time: nothing builds up that a shorter trace would not show."""

import pytest

from bench.batching_metrics import evaluate
from bench.batching_workloads import GPU, SECOND_NS, poisson
from bench.virtual_time import VirtualTime
from service.batching.settings import BatchingSettings


@pytest.mark.parametrize("load", [1.2, 1.5])
def test_08_goodput_stays_at_capacity_for_a_minute(load):
    workload = poisson(load, 60, 5)
    virtual = VirtualTime(workload, BatchingSettings(32))
    run = virtual.run()
    cell = evaluate(workload, "jit_edf", run.finished_ns, run.batch_rows)
    capacity_per_s = GPU.capacity_per_ns * SECOND_NS
    assert cell.goodput_per_s >= 0.97 * capacity_per_s
    assert cell.mean_batch >= 0.9 * 32
    assert cell.late_share <= 0.005
    assert run.peak_pending < load * capacity_per_s * 0.033 + 64
    assert not len(virtual.core.pending)
