"""`python -m forebay_server.bench --check` fails when a ratio is twice worse than its bar, or one cannot run."""

import math
import sys

import pytest

import forebay_server.bench.__main__ as command
from forebay_server.bench import report
from forebay_server.bench.rows import Row, Spread


@pytest.fixture
def check(monkeypatch, capsys):
    """Run the check with one benchmark that gives these rows, one after the other; return exit code and output."""

    def checking(*results, options=("--check",)):
        remaining = list(results)

        def rows(*, is_quick):
            assert is_quick == ("--check" in options)
            result = remaining.pop(0)
            if isinstance(result, Exception):
                raise result
            yield Row("ratio", Spread.of([result]), bar=2.0)

        monkeypatch.setattr(command, "BENCHMARKS", {"thing": ("Thing", rows)})
        monkeypatch.setattr(sys, "argv", ["bench", *options])
        with pytest.raises(SystemExit) as ended:
            command.main()
        return ended.value.code, capsys.readouterr(), len(remaining)

    return checking


def test_a_ratio_within_its_bar_passes_at_once(check):
    code, output, remaining = check(1.9, 9.0)
    assert (code, remaining) == (0, 1)
    assert "no ratio is worse than its bar" in output.out


def test_a_ratio_that_is_worse_once_is_measured_again(check):
    code, output, _ = check(2.1, 1.9)
    assert code == 0
    assert "worse, trying again: ratio: 2.1, bar 2" in output.out


def test_a_ratio_that_is_worse_twice_fails(check):
    code, output, _ = check(2.1, 2.2)
    assert code == 1
    assert "WORSE: ratio: 2.2, bar 2" in output.out


def test_a_number_that_could_not_be_measured_fails(check):
    assert check(math.nan, math.nan)[0] == 1


def test_a_benchmark_that_breaks_fails_and_says_why(check):
    code, output, _ = check(RuntimeError("no server"), RuntimeError("no server"))
    assert code == 1
    assert "RuntimeError: no server" in output.err
    assert "WORSE: thing did not come to its end" in output.out


def test_without_check_bars_are_not_judged_but_every_benchmark_must_come_to_its_end(check):
    assert check(9.0, options=())[0] == 0
    assert check(RuntimeError("no server"), options=())[0] == 1


@pytest.mark.parametrize("options", [("--check", "--write"), ("nothing",)])
def test_options_that_make_no_sense_are_a_usage_error(check, options):
    assert check(options=options)[0] == 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_missing_is_neither_met_nor_missed_and_survives_the_history(tmp_path, monkeypatch, value):
    monkeypatch.setattr(report, "PAGE", tmp_path / "benchmarks.md")
    monkeypatch.setattr(report, "HISTORY", tmp_path / "history")
    row = Row("p99", Spread(value, value, value), "ms", 35.0, note="INVALID 3 times")
    report.write({"Things": [row]}, "bench", report.start(), ["Things"])
    page = (tmp_path / "benchmarks.md").read_text()
    assert "| p99 | - | <= 35 ms | no number: see the note | INVALID 3 times |" in page
