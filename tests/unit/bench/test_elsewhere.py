"""Runs of another machine come into the history as they were measured, and the page says where that was."""

import json
import sys
from dataclasses import replace
from datetime import timedelta

import pytest

import forebay_server.bench.__main__ as command
from forebay_server.bench import report
from forebay_server.bench.elsewhere import joined
from forebay_server.bench.overload_report import record_of
from forebay_server.bench.rows import Row, Spread
from tests.unit.bench.test_overload_report import CAPACITY_PER_S, outcome

HOST = {"processor": "Fast", "cores": 2, "host_cores": 16}
START = report.start()
START = replace(START, machine={**START.machine, **HOST})


def overload(size, *, minutes=0, commit="abc", load_average=1.0):
    document = {"commit": commit, "seconds": 20.0, "is_alone": False, "capacities": {str(size): CAPACITY_PER_S}}
    machine = {**START.machine, "load_average": load_average}
    started = report.Start(START.time + timedelta(minutes=minutes), machine)
    return report.record({}, "overload", started, document | {"cells": [record_of(outcome(96, size=size))]})


def test_overload_runs_of_several_sizes_are_one_record_in_the_order_of_sizes():
    (run,) = joined([overload(602_112), overload(1024, minutes=1, load_average=9.0)], "Beside each other.")
    assert list(run["overload"]["capacities"]) == ["1024", "602112"]
    assert [cell["cell"]["payload_bytes"] for cell in run["overload"]["cells"]] == [1024, 602_112]
    assert run["time"] == overload(602_112)["time"]
    assert run["machine"]["load_average"] == 9.0
    assert run["note"] == "Beside each other."


@pytest.mark.parametrize(
    ("other", "reason"),
    [(overload(602_112, commit="def"), "commit differ"), (overload(1024), "the same frame size")],
)
def test_overload_runs_that_are_not_parts_of_one_are_refused(other, reason):
    with pytest.raises(ValueError, match=reason):
        joined([overload(1024), other], None)


def test_other_runs_stay_as_they_are():
    run = report.record({"Things": [Row("what", Spread.of([1.0]))]}, "bench", START)
    assert joined([run], None) == [run]


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Run the command with files; return the page."""
    monkeypatch.setattr(report, "PAGE", tmp_path / "benchmarks.md")
    monkeypatch.setattr(report, "HISTORY", tmp_path / "history")
    monkeypatch.setattr(command, "BENCHMARKS", {"cameras": ("Things", None)})

    def adding(*runs, options=()):
        files = [tmp_path / f"{number}.json" for number in range(len(runs))]
        for file, run in zip(files, runs, strict=True):
            report.save(run, file)
        monkeypatch.setattr(sys, "argv", ["bench", "--from", *map(str, files), *options])
        command.main()
        return report.PAGE.read_text()

    return adding


def test_the_page_says_which_cores_of_which_machine(page):
    run = report.record({"Things": [Row("what", Spread.of([1.0]))]}, "bench things", START)
    text = page(run, overload(1024, minutes=1), options=("--note", "Nothing else ran."))
    assert text.count("2 of 16 cores of Fast") == 2
    assert text.count("after the run. Nothing else ran.") == 2
    assert len([json.loads(path.read_text()) for path in report.HISTORY.iterdir()]) == 2


def test_files_that_do_not_fit_together_are_a_usage_error_and_nothing_is_kept(page, capsys):
    with pytest.raises(SystemExit) as ended:
        page(overload(1024), overload(1024))
    assert ended.value.code == 2
    assert "same frame size" in capsys.readouterr().err
    assert not report.HISTORY.exists()
