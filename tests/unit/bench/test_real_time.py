"""Real threads against virtual time: the sent trace, and the comparison. No number depends on this machine."""

import subprocess
import sys
import time
from array import array

import numpy as np
import pytest

from forebay_server.bench.batching_bars import Bar
from forebay_server.bench.batching_report import real_summary
from forebay_server.bench.batching_workloads import GPU, MS, Workload
from forebay_server.bench.real_check import deviations, is_within
from forebay_server.bench.real_time import RealRun, run_real
from forebay_server.bench.trace_sender import END, READY
from forebay_server.service.batching.settings import BatchingSettings


def test_sender_sends_every_position_once_in_order_and_never_early():
    instants = array("q", [0, 0, 3 * MS, 3 * MS + 1, 10 * MS])
    command = [sys.executable, "-m", "forebay_server.bench.trace_sender"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as sender:
        sender.stdin.write(array("q", [len(instants)]).tobytes() + instants.tobytes())
        sender.stdin.flush()
        assert array("I", sender.stdout.read(4))[0] == READY
        start_ns = time.monotonic_ns() + 5 * MS
        sender.stdin.write(array("q", [start_ns]).tobytes())
        sender.stdin.flush()
        positions = array("I", sender.stdout.read(4 * (len(instants) + 1)))
        ended_ns = time.monotonic_ns()
        lags = array("q", sender.stdout.read())
    assert positions.tolist() == [0, 1, 2, 3, 4, END]
    assert ended_ns >= start_ns + instants[-1]
    assert all(lag_ns >= 0 for lag_ns in lags)


def test_real_run_ends_every_request_and_says_how_late_timers_were():
    arrivals = (np.arange(60) * 2 * MS).astype(np.int64)
    budgets = np.full(60, 2_000 * MS)
    workload = Workload("few", 0.1, GPU, arrivals, budgets, np.arange(60) % 6, 120 * MS)
    run = run_real(workload, BatchingSettings(32))
    assert (run.finished_ns > arrivals).all()
    assert sum(run.batch_rows) == 60
    assert run.timer_lag_p99_ms > 0.0


def cell(**numbers):
    fields = {"p99_ms": 20.0, "goodput_per_s": 3000.0, "late_share": 0.0, "bound_p99_ms": None}
    return {"workload": "poisson", "load": 0.8, "classes": {"33ms": 0.5}} | fields | numbers


def test_deviation_is_relative_and_of_losses_in_what_is_left():
    bars = [Bar("poisson", 0.8, "late_share"), Bar("poisson", 0.8, "classes.33ms"), Bar("poisson", 1.2, "jain")]
    found = deviations(cell(p99_ms=22.0, late_share=0.02, classes={"33ms": 0.4}), cell(), bars)
    assert found == pytest.approx({"p99_ms": 0.1, "goodput_per_s": 0.0, "late_share": -0.02, "classes.33ms": -0.2})
    assert not is_within(found)
    assert is_within({"p99_ms": 0.15, "goodput_per_s": -0.15})


def test_number_that_either_lacks_is_not_compared():
    assert deviations(cell(p99_ms=None), cell(goodput_per_s=0.0), []) == {}


@pytest.mark.parametrize(("lag_ms", "is_void"), [(0.99, False), (1.01, True)])
def test_run_on_a_machine_with_late_timers_is_void(lag_ms, is_void):
    assert RealRun(np.zeros(0, np.int64), timer_lag_p99_ms=lag_ms).is_void is is_void


def test_summary_counts_valid_cells_only():
    results = [
        {"is_void": False, "is_within_tolerance": True},
        {"is_void": False, "is_within_tolerance": False},
        {"is_void": True, "is_within_tolerance": True},
    ]
    assert "1 of 2 valid cells are within 15%" in real_summary(results)
    assert real_summary(results).endswith("1 void")
