"""perf_analyzer, where one is installed: its path in FOREBAY_PERF_ANALYZER, or on the PATH.

The wheels of tritonclient up to 2.41 for Linux carry one; it needs libb64 and libcudart.
"""

import os
import shutil
import subprocess

import pytest

from tests.heavy.tritonclient.conftest import serving
from tests.support import models

PERF_ANALYZER = os.environ.get("FOREBAY_PERF_ANALYZER") or shutil.which("perf_analyzer")
UNSTABLE = 2  # it answered everything, but the machine was too busy for a stable number


def starts():
    """Why it cannot be run, or None."""
    if PERF_ANALYZER is None:
        return "perf_analyzer is not installed"
    process = subprocess.run([PERF_ANALYZER, "--help"], check=False, capture_output=True, text=True)
    return process.stderr.strip() if process.returncode == 127 else None


REASON = starts()


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
@pytest.mark.parametrize(
    "options",
    [
        [],
        ["-b", "4"],
        ["--async", "--streaming", "--concurrency-range", "4"],
        ["--shared-memory", "system", "--output-shared-memory-size", "64"],
    ],
    ids=["unary", "batched", "streaming", "shared-memory"],
)
def test_it_measures_the_server(tmp_path, options):
    models.save(models.add_sub(), tmp_path / "simple" / "1" / "model.onnx")
    with serving(tmp_path, allow_client_shm="true") as address:
        command = [PERF_ANALYZER, "-m", "simple", "-i", "grpc", "-u", address, "--measurement-interval", "500"]
        command += ["--stability-percentage", "100", "--max-trials", "4", *options]
        process = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    output = process.stdout + process.stderr
    assert process.returncode in (0, UNSTABLE), output
    assert process.returncode == UNSTABLE or "Successful request count" in output
