"""The page of the overload shows quiet beside disturbed, and every target that is missed is said."""

import json
from dataclasses import replace

import pytest

from forebay_server.bench import report
from forebay_server.bench.overload import Cell, Health, Measured, cells
from forebay_server.bench.overload_account import Cost, Fate, Frame, account_of
from forebay_server.bench.overload_report import COLUMNS, HEADING, line_of, record_of, section
from forebay_server.bench.overload_targets import capacity_lines, shortcomings, target_of

CAPACITY_PER_S = 100.0
COST = Cost(server=0.3, clients=0.2, hog=0.0, others=0.1, cores=2, sent_per_s=250.0, server_waited=0.0)


def outcome(in_time, *, size=1024, load=2.0, delivery="every", is_disturbed=False, refusal_ms=60.0):
    """One second at a capacity of 100: so many frames in time, the rest expired."""
    frames = [Frame(Fate.IN_TIME, 0.0, 1.0, 50.0, 90.0, 40.0, 8)] * in_time
    frames += [Frame(Fate.EXPIRED, 0.0, 1.0, refusal_ms, 90.0, 40.0)] * (round(load * CAPACITY_PER_S) - in_time)
    health = Health(failed=0, p50_ms=2.0, most_ms=9.0)
    cell = Cell(size, delivery, load, is_disturbed)
    return Measured(cell, CAPACITY_PER_S, account_of(frames, 1.0), COST, health)


def missed(*outcomes):
    return shortcomings([record_of(each) for each in outcomes])


@pytest.mark.parametrize(
    ("size", "load", "target"),
    [
        (1024, 1.0, None),
        (1024, 3.0, 0.95),
        (150_528, 2.0, 0.90),
        (150_528, 3.0, None),
        (602_112, 1.2, 0.90),
    ],
)
def test_target_of_a_cell(size, load, target):
    assert target_of(record_of(outcome(90, size=size, load=load))) == target


@pytest.mark.parametrize(("cpu", "target"), [(0.5, 0.80), (8.0, 0.40)])
def test_large_frames_above_capacity_have_to_reach_four_fifths_of_what_two_cores_move(cpu, target):
    """0.5 cores for 250 frames: two cores move 1,000 a second, more than the engine; 10 cores: 50, half of it."""
    cost = replace(COST, server=cpu / 2, clients=cpu / 2) if cpu < 1 else replace(COST, server=6.0, clients=4.0)
    record = record_of(replace(outcome(90, size=602_112), cost=cost))
    assert target_of(record) == pytest.approx(target)


def test_nothing_is_missed_where_everything_is_reached():
    assert missed(outcome(96), outcome(80, is_disturbed=True), outcome(80, load=1.0, is_disturbed=True)) == []


def test_a_quiet_cell_below_its_target_is_missed():
    assert missed(outcome(90)) == ["1 KB EVERY at 2: 0.90 in time, at least 0.95"]


def test_a_disturbed_cell_is_measured_against_load_one_beside_the_same_hog():
    at_one = outcome(80, load=1.0, is_disturbed=True)
    assert missed(at_one, outcome(60, is_disturbed=True)) == []
    (line,) = missed(at_one, outcome(50, is_disturbed=True))
    assert line.startswith("1 KB EVERY at 2, beside a hog: 0.62 in time of what a load of 1.0 gives")


def test_refusals_that_come_too_late_or_are_decided_too_late_are_missed():
    (line,) = missed(outcome(96, refusal_ms=130.0))
    assert "refusals come after 130 ms (p99), at most 120" in line
    tardy = replace(outcome(96).account, decided_share=0.9)
    (line,) = missed(replace(outcome(96), account=tardy))
    assert "90.0% of the refusals decided within their budget" in line


@pytest.mark.parametrize("health", [Health(1, 2.0, 9.0), Health(0, 2.0, 300.0)])
def test_health_that_fails_or_takes_long_is_missed(health):
    (line,) = missed(replace(outcome(96), health=health))
    assert "health: " in line


def test_a_void_run_is_missed():
    void = replace(outcome(96).account, void=["1 frames unanswered"])
    assert missed(replace(outcome(96), account=void)) == ["1 KB EVERY at 2: void: 1 frames unanswered"]


def test_a_line_says_what_became_of_the_frames():
    assert line_of(record_of(outcome(96))).startswith("1 KB EVERY at 2: 0.960 in time (96 in time, 104 expired)")


def document(*outcomes):
    capacities = {"1024": CAPACITY_PER_S}
    cells = [record_of(each) for each in outcomes]
    return {"commit": "abc", "seconds": 20.0, "is_alone": False, "capacities": capacities, "cells": cells}


def test_the_section_has_a_row_for_each_quiet_cell_with_the_disturbed_one_beside_it():
    outcomes = [outcome(96), outcome(60, is_disturbed=True), outcome(80, load=1.0, is_disturbed=True)]
    lines = section(document(*outcomes), "Today.").splitlines()
    rows = [line for line in lines if line.startswith("| 1 KB")]
    assert lines[0] == f"## {HEADING}"
    assert len(rows) == 1
    row = dict(zip(COLUMNS, [column.strip() for column in rows[0].split("|")[1:-1]], strict=False))
    assert (row["in time, quiet"], row["target"], row["in time, disturbed"]) == ("0.96", "0.95", "0.60")
    assert row["of load 1, disturbed"] == "0.75"
    assert row["server + client CPU a frame"] == "1.20 + 0.80 ms: 1000/s"
    assert lines[-1] == "Every target is met."


def test_the_section_says_that_quiet_cells_had_the_machine_alone():
    plain, alone = document(outcome(96)), {**document(outcome(96)), "is_alone": True}
    assert "real-time priority" in section(alone, "")
    assert "real-time priority" not in section(plain, "")


def test_the_section_lists_what_is_missed():
    assert section(document(outcome(50)), "").splitlines()[-1] == "- 1 KB EVERY at 2: 0.50 in time, at least 0.95"


def test_a_record_without_refusals_can_be_written_and_read_again():
    record = record_of(outcome(100, load=1.0))
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["account"]["refusal_p99_ms"] is None
    assert section({**document(), "cells": [record]}, "").count("| - / - |") == 1


def test_cells_are_quiet_then_disturbed_and_begin_at_load_one_beside_a_hog():
    assert cells([1024], ["latest"], [2.0], has_hog=False) == [Cell(1024, "latest", 2.0, is_disturbed=False)]
    assert [(cell.load, cell.is_disturbed) for cell in cells([1024], ["latest"], [2.0], has_hog=True)] == [
        (1.0, False),
        (1.0, True),
        (2.0, False),
        (2.0, True),
    ]


def test_a_capacity_below_that_of_the_commit_before_is_said():
    before = {"commit": "abc", "capacities": {"1024": 681.0, "602112": 600.0}}
    lines, is_held = capacity_lines({"1024": 670.0}, before)
    assert (lines, is_held) == (["capacity at 1 KB: 670 frames a second, not below 681 at commit abc"], True)
    lines, is_held = capacity_lines({"1024": 670.0, "602112": 500.0}, before)
    assert lines[1] == "capacity at 602 KB: 500 frames a second, LOWER THAN 600 at commit abc"
    assert not is_held
    assert capacity_lines({"1024": 1.0}, None) == (["capacity at 1 KB: 1 frames a second"], True)


def test_the_page_is_written_from_the_newest_overload_of_the_history(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "PAGE", tmp_path / "benchmarks.md")
    monkeypatch.setattr(report, "HISTORY", tmp_path / "history")
    run = report.record({}, "bench.cameras --overload", report.start(), document(outcome(96)))
    report.keep([run], [HEADING])
    page = (tmp_path / "benchmarks.md").read_text()
    assert f"## {HEADING}" in page
    assert "by `bench.cameras --overload`" in page
