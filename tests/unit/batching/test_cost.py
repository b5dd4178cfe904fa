"""Cost table, calibration, and the model that learns."""

import math
import os
import random
import resource
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from forebay_server.bench.affine_table import affine_table
from forebay_server.engines.errors import ExecutionError
from forebay_server.service.batching.calibrate import LIMIT_NS, MOST_RUNS, calibrate, obtain_table, still_holds
from forebay_server.service.batching.cost_model import CostModel
from forebay_server.service.batching.cost_table import (
    CostIdentity,
    CostTable,
    CostTableError,
    StageTimes,
    isotonic,
    load_table,
    save_table,
)
from tests.support.batching import MS, cost_model
from tests.support.clock import ManualClock

IDENTITY = CostIdentity("detector", "1", "onnxruntime 1.31", "cpu", "fp32")
times = st.integers(1, 10**9)


def table(sizes=(1, 2, 4), identity=IDENTITY):
    return CostTable.from_times({b: StageTimes(b * 10, MS + b * 1000, b) for b in sizes}, identity)


class Executor:
    """Measures t(b) = 1 ms + 0.1 ms * b on a manual clock; the first `noisy` runs of each size take longer."""

    def __init__(self, clock, noisy=0, factor=1.0, refuses_above=10**9):
        self.clock, self.noisy, self.factor, self.refuses_above = clock, noisy, factor, refuses_above
        self.runs = {}

    def __call__(self, size):
        if size > self.refuses_above:
            raise ExecutionError(f"at most {self.refuses_above} rows")
        self.runs[size] = self.runs.get(size, 0) + 1
        noise = 1.0 + 1.0 / self.runs[size] if self.runs[size] <= self.noisy else 1.0
        execute_ns = int((MS + MS // 10 * size) * self.factor * noise)
        self.clock.advance(execute_ns)
        return StageTimes(1000 * size, execute_ns, 100 * size)


def test_table_survives_json():
    assert CostTable.from_json(table().to_json()) == table()


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"format": 2}', table().to_json().replace("execute", "run")])
def test_text_that_is_no_table_is_an_error(text):
    with pytest.raises(CostTableError):
        CostTable.from_json(text)


@pytest.mark.parametrize(
    "columns",
    [
        {"sizes": ()},
        {"sizes": (2, 1, 4)},
        {"sizes": (0, 1, 2)},
        {"h2d_ns": (1, 2)},
        {"execute_ns": (0, 0, 0)},
        {"execute_ns": (1, -2, 3)},
        {"d2h_ns": (1.5, 2.0, 3.0)},
        {"execute_ns": (math.inf, math.inf, math.inf)},
    ],
)
def test_numbers_that_cannot_be_a_table_are_an_error(columns):
    good = {"sizes": (1, 2, 4), "h2d_ns": (1, 2, 3), "execute_ns": (1, 2, 3), "d2h_ns": (1, 2, 3)}
    with pytest.raises(CostTableError):
        CostTable(**(good | columns))


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40))
def test_isotonic_never_falls_keeps_the_mean_and_what_is_isotonic(values):
    result = isotonic(values)
    assert all(a <= b for a, b in pairwise(result))
    assert abs(sum(result) - sum(values)) <= len(values)
    assert isotonic(result) == result


def test_table_is_kept_and_found_again(tmp_path):
    path = tmp_path / "costs" / "detector.json"
    assert save_table(path, table())
    assert load_table(path, IDENTITY) == table()
    assert [file.name for file in path.parent.iterdir()] == ["detector.json"]


def test_table_of_something_else_is_not_found(tmp_path):
    save_table(tmp_path / "t.json", table())
    assert load_table(tmp_path / "t.json", CostIdentity("detector", "2")) is None


def test_broken_file_is_no_table(tmp_path):
    (tmp_path / "t.json").write_bytes(b"\xff\xfe\x00")
    assert load_table(tmp_path / "t.json", IDENTITY) is None
    assert load_table(tmp_path / "missing.json", IDENTITY) is None


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        table().to_json().replace("[", "[" * 100_000, 1),
        table().to_json().replace('"sizes": [', '"sizes": [1e400, '),
        table().to_json().replace('"sizes": [', '"sizes": [NaN, '),
        table().to_json().replace('"execute_ns": [', '"execute_ns": [' + "9" * 400 + ", "),
        " " * (2 << 20) + table().to_json(),
    ],
    ids=["nested", "nested inside", "infinite", "not a number", "huge", "long"],
)
def test_hostile_file_is_no_table(tmp_path, text):
    (tmp_path / "t.json").write_text(text)
    assert load_table(tmp_path / "t.json", IDENTITY) is None


def test_pipe_in_the_place_of_a_table_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "t.json")
    assert load_table(tmp_path / "t.json", IDENTITY) is None


def test_disk_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert not save_table(tmp_path / "file" / "t.json", table())


def test_a_full_disk_keeps_no_half_table(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        assert not save_table(tmp_path / "t.json", table())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_calibration_stops_at_three_stable_runs_of_a_size():
    executor = Executor(clock := ManualClock())
    measured = calibrate(executor, (1, 8), clock)
    assert executor.runs == {1: 4, 8: 4}
    assert measured.execute_ns == (1_100_000, 1_800_000)


def test_calibration_takes_no_longer_than_its_limit_when_nothing_is_stable():
    clock = ManualClock()
    generator = random.Random(1)  # noqa: S311 - scatter

    def measure(size):
        execute_ns = int(MS * generator.uniform(1, 40))
        clock.advance(execute_ns)
        return StageTimes(0, execute_ns, 0)

    started_ns = clock.now_ns()
    calibrate(measure, (1,), clock)
    assert LIMIT_NS <= clock.now_ns() - started_ns <= LIMIT_NS + 80 * MS


def test_size_that_is_slower_than_the_limit_is_run_once():
    executor = Executor(clock := ManualClock(), factor=200.0)
    calibrate(executor, (8,), clock)
    assert executor.runs == {8: 1}


@pytest.mark.parametrize("disturbed", [1, 4, 8])
def test_size_that_was_disturbed_for_a_while_is_measured_again(disturbed):
    clock = ManualClock()
    calm, stalls = Executor(clock), {disturbed: 1}

    def measure(size):
        times = calm(size)
        if stalls.get(size):
            stalls[size] -= 1
            clock.advance(1_000 * MS)  # the process stood still
            return StageTimes(times.h2d_ns, times.execute_ns + 1_000 * MS, times.d2h_ns)
        return times

    assert calibrate(measure, (1, 4, 8), clock) == calibrate(Executor(clock), (1, 4, 8), clock)


def test_calibration_ends_on_a_clock_that_does_not_move():
    runs = []

    def measure(size):
        runs.append(size)
        return StageTimes(0, len(runs) ** 3, 0)

    calibrate(measure, (1,), ManualClock())
    assert len(runs) <= MOST_RUNS + 1


def test_rising_noise_still_gives_a_table_that_never_falls():
    clock = ManualClock()
    measured = calibrate(lambda size: StageTimes(0, 10 * MS - size * 1000, 0), (1, 2, 4, 8), clock)
    assert len(set(measured.execute_ns)) == 1


def test_size_that_the_engine_refuses_is_named():
    clock = ManualClock()
    with pytest.raises(CostTableError, match="16 rows"):
        calibrate(Executor(clock, refuses_above=8), (1, 8, 16), clock)


def test_table_that_cannot_be_kept_is_a_warning(tmp_path):
    (tmp_path / "file").write_text("")
    clock = ManualClock()
    with capture_logs() as logs:
        for name in ("detector.json", "faces.json"):
            obtain_table(tmp_path / "file" / name, IDENTITY, Executor(clock), (1, 2), clock)
    assert [(line["log_level"], line["folder"]) for line in logs] == [("warning", str(tmp_path / "file"))]


def test_kept_table_is_used_again_after_a_check(tmp_path):
    path, clock = tmp_path / "t.json", ManualClock()
    first, was_kept = obtain_table(path, IDENTITY, Executor(clock), (1, 2, 8), clock)
    assert not was_kept
    executor = Executor(clock)
    second, was_kept = obtain_table(path, IDENTITY, executor, (1, 2, 8), clock)
    assert was_kept
    assert second == first
    assert executor.runs == {1: 1, 8: 1}


def test_kept_table_that_no_longer_holds_is_measured_again(tmp_path):
    path, clock = tmp_path / "t.json", ManualClock()
    obtain_table(path, IDENTITY, Executor(clock), (1, 8), clock)
    slower, was_kept = obtain_table(path, IDENTITY, Executor(clock, factor=2.0), (1, 8), clock)
    assert not was_kept
    assert slower.execute_ns == (2_200_000, 3_600_000)
    assert load_table(path, IDENTITY) == slower


def test_one_noisy_run_does_not_reject_a_kept_table():
    clock = ManualClock()
    kept = calibrate(Executor(clock), (1, 8), clock)
    assert still_holds(kept, Executor(clock, noisy=2))


def test_gaps_in_a_table_are_interpolated_and_its_end_is_extended():
    model = CostModel(range(1, 17), affine_table((1, 4, 8), 1000, 100))
    assert [model.execute_base[b] for b in (1, 2, 6, 8, 16)] == [1100, 1200, 1600, 1800, 2600]


def test_table_that_starts_above_one_row_is_used_for_less():
    model = CostModel((1, 4), affine_table((4,), 1000, 100))
    assert model.execute_base[1] == 1400


def test_sizes_between_captured_ones_cost_what_the_padded_size_costs():
    model = cost_model(sizes=(1, 8, 32))
    assert model.mean_ns(2) == model.mean_ns(8) < model.mean_ns(9) == model.mean_ns(32)
    assert [model.bucket(rows) for rows in (0, 1, 2, 8, 9, 32)] == [0, 1, 8, 8, 32, 32]


@pytest.mark.parametrize(("rows", "run"), [(1, 1), (5, 5), (16, 16), (17, 16), (3, 3), (31, 31), (9, 8)])
def test_rows_are_padded_unless_fewer_run_at_a_better_rate(rows, run):
    assert cost_model(sizes=(1, 2, 4, 8, 16, 32)).floor_or_pad(rows) == run


def test_efficient_size_is_where_the_rate_stops_growing():
    times_us = ((1, 1000), (2, 1500), (4, 2800), (8, 5600))
    flat = CostTable.from_times({b: StageTimes(0, t * 1000, 0) for b, t in times_us})
    assert CostModel((1, 2, 4, 8), flat).efficient_size == 4
    assert cost_model().efficient_size == 32


def test_batches_of_a_model_that_takes_no_time_are_worth_growing_until_they_cost_more_than_the_host():
    """10 us a row: the host spends 150 us on a batch, so that fifteen rows come for the price of one."""
    table = CostTable.from_times({b: StageTimes(0, 10_000 * b, 0) for b in range(1, 33)})
    model = CostModel(range(1, 33), table)
    assert model.efficient_size == 15
    assert model.alpha_base_ns > 100_000
    # the values that deadlines are compared with stay as measured
    assert [model.mean_ns(b) for b in (1, 32)] == [10_000, 320_000]


def test_drift_follows_a_slowdown_and_back():
    model = cost_model()
    for factor, expected in ((1.4, 1.4), (1.0, 1.0)):
        for _ in range(60):
            model.observe(8, 0, int(model.execute_base[8] * factor))
        assert model.execute_drift.ratio == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("factor", [0.06, 0.1, 1 / 3, 3.0, 7.9])
def test_another_speed_is_believed_after_three_batches_and_one_outlier_is_not(factor):
    model = cost_model()
    model.observe(8, 0, model.execute_base[8])
    for times, expected in ((2, 1.0), (1, factor), (3, factor)):
        for _ in range(times):
            model.observe(8, 0, int(model.execute_base[8] * factor))
        assert model.execute_drift.ratio == pytest.approx(expected, rel=0.11)
    for _ in range(3):
        model.observe(8, 0, model.execute_base[8])
    assert model.execute_drift.ratio == pytest.approx(1.0, rel=0.01)


def test_speed_that_is_believed_after_outliers_is_the_nearest_of_them():
    model = cost_model()
    for factor in (1.0, 1.0, 5.0, 2.0, 3.0):
        model.observe(8, 0, int(model.execute_base[8] * factor))
    assert model.execute_drift.ratio == pytest.approx(2.0, rel=0.01)


def test_outliers_on_both_sides_are_no_other_speed():
    model = cost_model()
    for number in range(60):
        model.observe(8, 0, int(model.execute_base[8] * (0.4 if number % 3 else 3.0)))
        assert 0.5 < model.execute_drift.ratio < 1.2


def test_first_execution_of_a_size_does_not_count():
    model = cost_model()
    model.observe(8, 0, 100 * model.execute_base[8])
    assert model.execute_drift.ratio == 1.0


@given(st.lists(times, max_size=60))
def test_drift_stays_in_its_range_whatever_is_observed(observed):
    model = cost_model()
    for measured_ns in observed:
        model.observe(4, measured_ns, measured_ns)
        model.observe_download(4, measured_ns)
        assert 0.05 <= model.execute_drift.ratio <= 8.0
        assert model.mean_ns(4) < model.estimate_ns(4) < math.inf


def test_nonsense_is_not_learnt():
    model = cost_model()
    for rows, duration_ns in ((0, MS), (33, MS), (4, 0), (4, -5)):
        model.observe(rows, duration_ns, duration_ns)
        model.observe(rows, duration_ns, duration_ns)
        model.observe_download(rows, duration_ns)
    assert model.execute_drift.ratio == model.d2h_drift.ratio == 1.0


def test_drift_alone_never_makes_an_idle_executor_look_too_slow():
    model = cost_model()
    calibrated_ns = model.least_service_ns()
    for _ in range(200):
        model.observe(1, 10**9, 10**9)
        model.observe_download(1, 10**9)
    assert {drift.ratio for drift in (model.h2d_drift, model.execute_drift, model.d2h_drift)} == {8.0}
    assert model.least_service_ns() == calibrated_ns
    assert model.h2d_ns(1) + model.mean_ns(1) + model.d2h_ns(1) == pytest.approx(8 * calibrated_ns)


@pytest.mark.parametrize("sizes", [(), (0, 1), (-1,)])
def test_sizes_that_make_no_sense_are_an_error(sizes):
    with pytest.raises(CostTableError):
        CostModel(sizes, table())


def with_files(**files):
    """A model of 1 and 8 rows whose uploads of rows take 10 and 80 us, and of files 300 and 1,000."""
    table = CostTable((1, 8), (10_000, 80_000), (100_000, 400_000), (1000, 1000))
    return CostModel((1, 2, 4, 8), table, {1: 300_000, 8: 1_000_000}, **files)


def test_uploads_of_files_cost_what_was_measured_once_files_come():
    cost = with_files()
    assert cost.h2d_ns(8) == 80_000
    cost.expect(is_file=True)
    assert (cost.h2d_ns(1), cost.h2d_ns(8)) == (300_000, 1_000_000)
    assert cost.least_work_ns(1) == 400_000
    assert cost.h2d_ns(4) == pytest.approx(600_000)


def test_the_share_of_files_decides_what_an_upload_is_expected_to_take():
    cost = with_files()
    for _ in range(200):
        cost.expect(is_file=True)
        cost.expect(is_file=False)
    assert 0.4 < cost.file_share < 0.6
    assert 80_000 < cost.h2d_ns(8) < 1_000_000
    for _ in range(200):
        cost.expect(is_file=False)
    assert cost.h2d_ns(8) == pytest.approx(80_000, rel=0.01)
    assert cost.least_work_ns(1) == 110_000


def test_files_have_a_drift_of_their_own():
    cost = with_files()
    cost.expect(is_file=True)
    for _ in range(60):
        cost.observe(8, 2_000_000, 400_000, files=1.0)
    assert cost.h2d_ns(8) == pytest.approx(2_000_000, rel=0.05)
    assert cost.h2d_drift.ratio == 1.0
    for _ in range(60):
        cost.observe(8, 5_000_000, 400_000, files=0.5)  # a batch of both says nothing
    assert cost.h2d_ns(8) == pytest.approx(2_000_000, rel=0.05)


def test_a_model_without_files_expects_none():
    cost = CostModel((1,), CostTable((1,), (10,), (100,), (10,)))
    cost.expect(is_file=True)
    assert cost.file_share == 0.0
    assert cost.h2d_ns(1) == 10
