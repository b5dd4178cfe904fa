"""perf_analyzer as it comes with the last wheel of tritonclient that carries it; another one by FOREBAY_PERF_ANALYZER.

It is linked against libcudart, which another wheel brings, and libb64 (Debian, Ubuntu: libb64-0d), without which these
tests are skipped.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.heavy.tritonclient.conftest import serving
from tests.support import models

HERE = Path(sys.prefix)
PERF_ANALYZER = os.environ.get("FOREBAY_PERF_ANALYZER") or shutil.which(
    "perf_analyzer", path=f"{HERE / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
)
LIBRARIES = [str(path.parent) for path in HERE.glob("lib/python3*/site-packages/nvidia/cuda_runtime/lib/libcudart.so*")]
ENVIRONMENT = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join([*LIBRARIES, os.environ.get("LD_LIBRARY_PATH", "")])}
UNSTABLE = 2  # it answered everything, but the machine was too busy for a stable number


def starts():
    """Why it cannot be run, or None."""
    if PERF_ANALYZER is None:
        return "perf_analyzer is not installed"
    command = [PERF_ANALYZER, "--help"]
    process = subprocess.run(command, check=False, capture_output=True, text=True, env=ENVIRONMENT)
    return process.stderr.strip() if process.returncode == 127 else None


REASON = starts()


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
@pytest.mark.parametrize(
    "options",
    [
        [],
        ["-b", "4"],
        ["--async", "--streaming", "--concurrency-range", "4"],
        ["--async", "--concurrency-range", "4", "--request-parameter", "latency_budget_ms:5000:int"],
        ["--shared-memory", "system", "--output-shared-memory-size", "64"],
    ],
    ids=["unary", "batched", "streaming", "parameters", "shared-memory"],
)
def test_it_measures_the_server(tmp_path, options):
    models.save(models.add_sub(), tmp_path / "simple" / "1" / "model.onnx")
    with serving(tmp_path, allow_client_shm="true") as address:
        command = [PERF_ANALYZER, "-m", "simple", "-i", "grpc", "-u", address, "--measurement-interval", "500"]
        command += ["--stability-percentage", "100", "--max-trials", "4", *options]
        process = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=300, env=ENVIRONMENT, cwd=tmp_path
        )
    output = process.stdout + process.stderr
    assert process.returncode in (0, UNSTABLE), output
    assert process.returncode == UNSTABLE or "Successful request count" in output
    assert process.returncode == UNSTABLE or "Server:" in output, output
