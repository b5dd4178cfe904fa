"""The parts of the benchmark of quick commands."""

import sys
from pathlib import Path

from forebay_server.bench.command_line import Ended, _certificate, _rows_of, run
from tests.support.certificates import needs_openssl


def test_a_command_is_measured_alone_and_its_exit_code_kept():
    ended = run(sys.executable, "-c", "sum(range(1_000_000)); raise SystemExit(3)")
    assert ended.code == 3
    assert ended.cpu_s > 0
    assert ended.elapsed_s > 0


def test_each_command_has_its_budget_and_its_quotient():
    ended = [Ended(0, 0.2, cpu_s) for cpu_s in (0.04, 0.06, 0.05)]
    cost, over = _rows_of("health, plain port", ended, [0.02, 0.02, 0.02])
    assert (cost.value.median, cost.budget, cost.verdict) == (0.05, 0.05, "met")
    assert (over.value.median, over.unit) == (2.5, "")
    assert over.meets(over.bar)
    elapsed, _, _ = _rows_of("forebay --help", ended, [0.02, 0.02, 0.02])
    assert elapsed.verdict == "missed: 1.33 x the budget"


@needs_openssl
def test_a_certificate_is_its_own_authority(tmp_path):
    cert, key = _certificate(tmp_path)
    assert "BEGIN CERTIFICATE" in Path(cert).read_text()
    assert "PRIVATE KEY" in Path(key).read_text()
