"""docs/benchmarks.md comes from the history, and every budget has a row with a verdict on it."""

import re

import pytest

from forebay_server.bench import report, saturation
from forebay_server.bench.__main__ import headings

BUDGETS = {
    "CPU per frame": r"identity, 150 KB, tcp: server CPU per frame, 32 in flight \|.*<= 0\.19 ms",
    "CPU per frame, Open Inference stream": r"Open Inference stream, 150 KB, tcp: server CPU per frame \|.*<= 0\.25 ms",
    "one frame in flight": r"identity, 150 KB, tcp: one frame in flight, p50 \|.*<= 0\.7 ms",
    "throughput over the engine": r"shufflenet, 602 KB: served, 8 in flight, over raw \|.*>= 0\.9 ",
    "p99 at half of the rate": r"shufflenet, Poisson at half of the raw rate: p99 \|.*<= 35 ms",
    "20 cameras": r"20 cameras of 30 fps, 602 KB.*>= 0\.97 ",
    "27 cameras": r"27 cameras of 30 fps, 602 KB.*>= 0\.97 ",
    "cameras at .9": r"virtual time, cameras at 0\.9: p99_ms \|.*<= 19\.5 ms",
    "cameras at .9, shed": r"virtual time, cameras at 0\.9: shed_share \|.*<= 0 ",
    "poisson at .8": r"virtual time, poisson at 0\.8: p99_ms \|.*<= 19\.5 ms",
    "poisson at 1.2": r"virtual time, poisson at 1\.2: goodput_per_s \|.*>= 3300 /s",
    "poisson at 1.2, late": r"virtual time, poisson at 1\.2: late_share \|.*<= 0\.005 ",
    "cameras at 1.5": r"virtual time, cameras at 1\.5: jain \|.*>= 0\.99 ",
    "decide()": r"decide\(\), mean CPU a call, poisson 1\.2 \|.*<= 50 us",
    "decide(), growth": r"decide\(\), 200 pending over 50 \|.*<= 4 ",
    "start to ready": r"start to ready, bundled models, saved cost table \|.*<= 2 s",
    "first start": r"start to ready, bundled models, nothing saved \|.*<= 4 s",
    "memory": r"memory \(PSS\), idle, bundled models \|.*<= 200 MB",
    "help": r"forebay --help: elapsed \|.*<= 0\.15 s",
    "health check": r"health, plain port: CPU \|.*<= 0\.05 s",
    "health check, unix socket": r"health, unix socket: CPU \|.*<= 0\.05 s",
    "health check, TLS": r"health, TLS with a certificate of the client: CPU \|.*<= 0\.05 s",
    "health checks under load": r"shares its core: share of 20 within 1 s \|.*>= 1 ",
    "compute stream idle": r"GPU: compute stream idle, share of the time \|.*<= 0\.05 ",
    "copies hidden": r"GPU: h2d and d2h hidden behind compute.*>= 0\.9 ",
}
VERDICT = re.compile(r"\| (met|missed: [0-9.]+ x the budget|no number: see the note) \|")


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_budget_has_a_row_with_a_verdict(budget):
    lines = [line for line in report.PAGE.read_text().splitlines() if re.search(BUDGETS[budget], line)]
    assert len(lines) == 1, lines
    assert VERDICT.search(lines[0])


def test_the_page_is_what_the_history_says(tmp_path, monkeypatch):
    page = report.PAGE.read_text()
    monkeypatch.setattr(report, "PAGE", tmp_path / "benchmarks.md")
    report.write_page(headings())
    assert (tmp_path / "benchmarks.md").read_text() == page


def test_the_gpu_rows_quote_the_raw_numbers_of_the_gpu_page():
    """Mend with `make bench ARGS=gpu`, which measures nothing."""
    rows = list(saturation.rows(is_quick=False))
    page = report.PAGE.read_text()
    assert len(rows) == 3
    assert [line for line in report.table("", rows, "").splitlines() if line not in page] == []
    assert list(saturation.rows(is_quick=True)) == []
