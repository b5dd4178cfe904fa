"""Costs from a report of the load test and the CPU times of threads."""

import dataclasses
from pathlib import Path

import pytest

from forebay_server.bench.plan.measuring import costs_of, cpu_ns, mean_of
from forebay_server.bench.plan.offering import Offered
from forebay_server.bench.plan.thread_times import ThreadTimes, thread_times
from tests.support.plans import MS
from tests.support.plans import costs_of as planned_costs

DOCUMENT = {
    "answered": 100,
    "sent": 100,
    "sent_bytes": 3_000_000,
    "batch_size_mean": 1.0,
    "duration_s": 10.0,
    "target": {"model": "crossing", "encoding": "jpeg", "width": 640, "height": 360},
    "generator": {"cpu_shares": [0.01]},
    "stages_ms": {
        "decode": {"mean_ms": 3.0, "p99_ms": 4.0},
        "execute": {"mean_ms": 9.0, "p99_ms": 9.0 * 1.262},
        "deliver": {"mean_ms": 1.0, "p99_ms": 2.0},
    },
}


def offered(used: ThreadTimes) -> Offered:
    return Offered(DOCUMENT, used, 10.0, 0.0)


def task(proc: Path, pid: int, tid: int, name: str, used_ns: int) -> None:
    folder = proc / str(pid) / "task" / str(tid)
    folder.mkdir(parents=True)
    (folder / "comm").write_text(f"{name}\n")
    (folder / "schedstat").write_text(f"{used_ns} 7 3\n")


def test_threads_are_told_apart_by_their_names(tmp_path):
    for tid, (name, used_ns) in enumerate(
        (("forebay", 1), ("event_engine", 10), ("worker-0", 100), ("worker-1", 200), ("ns.12.0.execute", 1000),
         ("crossing.former", 5000), ("ssing.1.0.d2h", 5000))
    ):  # fmt: skip
        task(tmp_path, 40, 40 + tid, name, used_ns)
    task(tmp_path, 90, 90, "forebay", 2)
    (tmp_path / "90" / "task" / "91").mkdir()  # a thread that has just ended
    used = thread_times((40, 90), tmp_path)
    assert used == ThreadTimes(loop_ns=3, transport_ns=10, workers_ns=300, engine_ns=1000, stages_ns=10_000)


def test_a_process_that_has_ended_counts_as_nothing(tmp_path):
    task(tmp_path, 40, 40, "forebay", 7)
    assert thread_times((40, 41), tmp_path) == ThreadTimes(loop_ns=7)


def test_times_are_differences_without_what_an_idle_server_uses():
    before, after = ThreadTimes(1, 2, 3, 4, 5), ThreadTimes(101, 102, 103, 104, 105)
    assert after.since(before) == ThreadTimes(100, 100, 100, 100, 100)
    assert after.since(before).less(ThreadTimes(10, 0, 0, 0, 200), 2.0) == ThreadTimes(80, 100, 100, 100, 0)


def test_a_frame_costs_its_share_of_each_thread():
    used = ThreadTimes(30 * MS, 5 * MS, 400 * MS, 900 * MS, 10 * MS)
    costs = costs_of(offered(used), planned_costs().table, 1)
    frame = costs.frame
    assert (frame.loop_ns, frame.transport_ns, frame.stage_ns) == (300_000, 50_000, 100_000)
    assert (frame.decode_ns, frame.result_ns) == (3 * MS, 1 * MS)  # as decode and deliver share the time
    assert frame.camera_ns == 1 * MS
    assert costs.frame_bytes == 30_000
    assert costs.scatter == pytest.approx(0.1, abs=0.001)


def test_the_table_is_corrected_by_the_cpu_time_of_its_executions():
    used = ThreadTimes(engine_ns=100 * 18 * MS)  # 18 ms each where the calibration said 9
    table = costs_of(offered(used), planned_costs().table, 1).table
    assert table.execute_ns[0] == 18 * MS
    assert table.execute_ns[1] == 34 * MS


def test_a_table_that_was_calibrated_beside_other_programs_is_corrected_as_far_as_needed():
    used = ThreadTimes(engine_ns=100 * MS)  # 1 ms each where the calibration took 9
    assert costs_of(offered(used), planned_costs().table, 1).table.execute_ns[0] == 1 * MS


def test_the_scatter_of_executions_that_were_interrupted_is_the_usual_one():
    used = ThreadTimes(engine_ns=100 * 3 * MS)  # 3 ms of CPU in 9
    assert costs_of(offered(used), planned_costs().table, 1).scatter == 0.05


def test_a_table_is_kept_where_its_executions_ran_on_another_thread():
    assert costs_of(offered(ThreadTimes()), planned_costs().table, 1).table == planned_costs().table


def test_an_execution_of_some_strands_uses_as_many_cores_and_that_on_a_gpu_none():
    table = planned_costs().table
    gpu = dataclasses.replace(table, identity=dataclasses.replace(table.identity, device="NVIDIA H200"))
    assert costs_of(offered(ThreadTimes()), gpu, 2).strands == 0
    assert costs_of(offered(ThreadTimes()), gpu, 2).instances == 2


def test_the_costs_of_parts_are_their_mean_and_the_speed_of_each_follows_from_its_own():
    slow, fast = (
        dataclasses.replace(planned_costs(alpha_ns=0, beta_ns=ns, decode_ns=ns), others_cores=others)
        for ns, others in ((12 * MS, 0.3), (8 * MS, 0.1))
    )
    costs = mean_of((slow, fast))
    assert costs.frame.decode_ns == 10 * MS
    assert costs.table.execute_ns[:2] == (10 * MS, 20 * MS)
    assert costs.others_cores == pytest.approx(0.2)
    assert costs.speeds == (cpu_ns(costs) / cpu_ns(slow), cpu_ns(costs) / cpu_ns(fast))
    assert costs.speeds[0] < 1 < costs.speeds[1]
    assert mean_of((slow,)).speeds == (1.0,)
