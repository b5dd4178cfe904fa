"""A server in a separate process, in the environment of the server: the client's has another protobuf."""

import json
import os
import signal
import subprocess
from contextlib import contextmanager

import pytest

from tests.support.repository import ROOT

SERVER_PYTHON = os.environ.get("FOREBAY_SERVER_PYTHON", str(ROOT / ".venv" / "bin" / "python"))
STOP_S = 30.0


@contextmanager
def serving(*repositories, **settings):
    """Run a server; yields its address. It must end with 0."""
    command = [SERVER_PYTHON, "-m", "forebay_server.service", "serve", "--address", "127.0.0.1:0"]
    for repository in repositories:
        command += ["--model-repository", str(repository)]
    environment = {**os.environ, **{f"FOREBAY_{key.upper()}": str(value) for key, value in settings.items()}}
    environment.pop("PYTHONPATH", None)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield json.loads(line)["address"]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=STOP_S)
        assert process.returncode == 0, errors
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def simulated(root, name, *, max_batch_size=4, extra="", **options):
    """Add a model that gives its input back after `alpha_ms`."""
    options = {"input_shape": 16, "datatype": "INT32", "output": "copy", **options}
    lines = ['backend: "simulated"', f"max_batch_size: {max_batch_size}", extra]
    lines += [f'parameters {{ key: "{k}" value {{ string_value: "{v}" }} }}' for k, v in options.items()]
    (root / name / "1").mkdir(parents=True)
    (root / name / "config.pbtxt").write_text("\n".join(lines))


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    """A server with the kit's models."""
    from tests.support import models  # needs onnx, which not every environment of this server has

    root = tmp_path_factory.mktemp("models")
    models.save(models.add_sub(), root / "simple" / "1" / "model.onnx")
    models.save(models.conv_net(), root / "net" / "1" / "model.onnx")
    models.save(models.failing(), root / "failing" / "1" / "model.onnx")
    simulated(root, "fast")
    simulated(root, "slow", alpha_ms=150, max_batch_size=1)
    simulated(
        root,
        "levels",
        alpha_ms=150,
        max_batch_size=1,
        extra="dynamic_batching { priority_levels: 2 default_priority_level: 2 }",
    )
    with serving(root) as address:
        yield address
