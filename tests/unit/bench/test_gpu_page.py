"""docs/benchmarks-gpu.md holds the tables of its raw file, and results of a run get into both."""

import json

import pytest

from forebay_server.bench.gpu.page import PAGE, RAW, add, render


def test_the_tables_of_the_page_are_those_of_the_raw_file():
    """Mend with `python -m forebay_server.bench.gpu.page`."""
    page = PAGE.read_text()
    assert render(page, json.loads(RAW.read_text())) == page


def test_prose_stays_and_tables_are_written_anew():
    page = "before\n<!-- table memory -->\nold\n<!-- end -->\nbetween\n<!-- table threads -->\n<!-- end -->\nafter\n"
    samples = [{"rss_mib": 100.0, "gpu_mib": 50.0}, {"rss_mib": 101.0, "gpu_mib": 50.0}]
    slope = {"per_hour": 3.0, "low": -1.0, "high": 7.0}
    raw = {"memory": [{"samples": samples, "slope_per_hour": {"rss_mib": slope}}]}
    written = render(page, raw)
    assert written.splitlines()[0] == "before"
    assert "| host, resident | 100 | 101 | 101 | +3.0 (-1.0 to +7.0) |" in written
    assert "| GPU, all processes | 50 | 50 | 50 | - |" in written
    assert "old" not in written
    assert "between\n<!-- table threads -->\n(not run)\n<!-- end -->\nafter\n" in written
    assert render(written, raw) == written


def test_a_table_that_nobody_makes_is_an_error():
    with pytest.raises(KeyError, match="nothing"):
        render("<!-- table nothing -->\n<!-- end -->", {})


def test_a_run_replaces_its_own_sections_and_says_where_it_ran(tmp_path):
    machine = {"date": "2026-12-01", "torch": "2.11", "cores": 16, "gpu": "NVIDIA H100"}
    (tmp_path / "machine.json").write_text(json.dumps(machine))
    (tmp_path / "lanes.json").write_text(json.dumps([{"rows": 8, "rows_per_s": 1234.56789}]))
    before = {"machines": {"served": {"date": "2026-11-23"}}, "served": [1], "lanes": [2]}
    after = add(before, tmp_path)
    assert after["lanes"] == [{"rows": 8, "rows_per_s": 1234.6}]
    assert after["served"] == [1]
    assert after["machines"] == {"served": {"date": "2026-11-23"}, "lanes": machine}
    assert before["lanes"] == [2]


def test_repeats_are_shown_as_their_median_with_the_least_and_the_most():
    repeats = [{"rows_per_s": rate, "p50_ms": 1.0, "p99_ms": 2.0} for rate in (1000.0, 1200.0, 1100.0)]
    cell = {"network": "resnet50", "rows": 8, "way": "frames", "in_flight": 24, "device": {}, "repeats": repeats}
    line = render("<!-- table served -->\n<!-- end -->", {"served": [cell]}).splitlines()[3]
    assert line.startswith("| resnet50 | 8 | frames | 24 | 1,100 (1,000 to 1,200) | 1.0 (1.0 to 1.0) | ")
