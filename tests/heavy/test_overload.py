"""A minute of overload in virtual time: nothing builds up that a shorter trace would not show."""

import dataclasses

import numpy as np
import pytest

from forebay_server.bench.batching_metrics import evaluate
from forebay_server.bench.batching_workloads import GPU, SECOND_NS, poisson
from forebay_server.bench.virtual_time import VirtualTime
from forebay_server.service.batching.settings import BatchingSettings


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


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_spike_of_ten_times_the_load_is_over_when_it_ends(seed):
    """A third of capacity, ten times that for 5 s, and a third again."""
    calm, spike = poisson(0.3, 5, seed), poisson(3.0, 5, seed)
    pieces = [calm, spike, calm]
    starts = [0, 5 * SECOND_NS, 10 * SECOND_NS]
    arrivals = np.concatenate([piece.arrivals_ns + start for piece, start in zip(pieces, starts, strict=True)])
    workload = dataclasses.replace(
        calm,
        arrivals_ns=arrivals,
        budgets_ns=np.concatenate([piece.budgets_ns for piece in pieces]),
        streams=np.concatenate([piece.streams for piece in pieces]),
        duration_ns=15 * SECOND_NS,
    )
    run = VirtualTime(workload, BatchingSettings(32)).run()
    is_in_time = (run.finished_ns >= 0) & (run.finished_ns <= arrivals + workload.budgets_ns)
    in_spike = (arrivals >= 5.5 * SECOND_NS) & (arrivals < 10 * SECOND_NS)
    after = arrivals >= 10.5 * SECOND_NS
    assert is_in_time[in_spike].sum() / 4.5 >= 0.95 * GPU.capacity_per_ns * SECOND_NS
    assert is_in_time[after].mean() >= 0.999
