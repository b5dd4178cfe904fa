"""A row of the benchmark report says how far it is from its budget, and only ratios have bars."""

import math
from dataclasses import replace
from datetime import timedelta

import pytest

from forebay_server.bench import report
from forebay_server.bench.rows import Row, Spread


def row(median: float, **options) -> Row:
    return Row("what", Spread(median, median / 2, median * 2), **options)


def test_spread_is_median_least_and_most():
    assert Spread.of([3.0, 1.0, 2.0, 9.0, 2.5]) == Spread(2.5, 1.0, 9.0)


@pytest.mark.parametrize(
    ("median", "is_higher_better", "verdict"),
    [
        (1.0, False, "met"),
        (2.0, False, "met"),
        (3.0, False, "missed: 1.50 x the budget"),
        (2.0, True, "met"),
        (1.0, True, "missed: 0.50 x the budget"),
    ],
)
def test_verdict_compares_the_median_with_the_budget(median, is_higher_better, verdict):
    assert row(median, budget=2.0, is_higher_better=is_higher_better).verdict == verdict


def test_row_without_a_budget_has_no_verdict():
    assert row(1.0).verdict == ""


def test_number_that_could_not_be_measured_meets_nothing():
    assert not row(math.nan, budget=2.0).meets(2.0)
    assert not row(math.nan, budget=2.0, is_higher_better=True).meets(2.0)


def test_table_shows_spread_budget_and_verdict():
    table = report.table("Things", [row(0.25, unit="ms", budget=0.19, note="why"), row(12.0)], "Today.")

    assert table.splitlines() == [
        "## Things",
        "",
        "Today.",
        "",
        "| what | median (least to most) | budget | verdict | note |",
        "| --- | --- | --- | --- | --- |",
        "| what | 0.25 (0.125 to 0.5) ms | <= 0.19 ms | missed: 1.32 x the budget | why |",
        "| what | 12 (6 to 24) |  |  |  |",
    ]


def test_page_shows_the_newest_measurement_of_every_heading(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "PAGE", tmp_path / "benchmarks.md")
    monkeypatch.setattr(report, "HISTORY", tmp_path / "history")
    first = report.start()
    second = replace(first, time=first.time + timedelta(minutes=1))
    order = ["Others", "Things"]

    report.write({"Things": [row(1.0)], "Others": [row(2.0)]}, "first", first, order)
    report.write({"Things": [row(3.0)]}, "second", second, order)
    report.write({"Things": [row(4.0)]}, "second", second, order)

    page = (tmp_path / "benchmarks.md").read_text()
    others, things = page.split("## Others")[1].split("## Things")
    assert "by `first`" in others
    assert "| what | 2 (1 to 4) |" in others
    assert "by `second`" in things
    assert "| what | 4 (2 to 8) |" in things
    assert len(list((tmp_path / "history").iterdir())) == 2
