"""Nothing that the service loads leaves an identifier behind or reports to its maker."""

import os
import subprocess
import sys

from tests.support.repository import ROOT

LOAD = (
    "import forebay_server.engines.engine_onnxruntime as e, onnxruntime, sys; onnxruntime.InferenceSession(sys.argv[1])"
)


def test_onnxruntime_writes_no_identifier_and_no_event_store(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key not in {"ORT_DISABLE_TELEMETRY", "CI"}}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    model = next((ROOT / "models" / "faces").glob("*/model.onnx"))
    command = [sys.executable, "-B", "-c", LOAD, str(model)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    assert list(tmp_path.rglob("*")) == []
