"""The client alone, and everything beside the newest tritonclient."""

import json
import os
import subprocess

import pytest

from tests.support.wheels import ENVIRONMENT, build_wheels, make_environment, run

BUDGET_MB = 95
MEASURE = """
import importlib.metadata as m, json
print(json.dumps({d.name: sum(f.locate().stat().st_size for f in d.files or () if f.locate().is_file())
                  for d in m.distributions()}))
"""
IMPORT_ALL = """
import sys
early = set(sys.modules)  # what the environment itself loads
import importlib, pkgutil, forebay, forebay.aio
for found in pkgutil.walk_packages(forebay.__path__, "forebay."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
forebay.Client, forebay.aio.Client
from pathlib import Path
installed = {p.name.partition(".")[0] for p in Path(forebay.__file__).parent.parent.iterdir()}
ours = {"forebay", "google", "grpc", "numpy", "typing_extensions"}
print(sorted({name.partition(".")[0] for name in sys.modules.keys() - early} & installed - ours))
"""
BOTH = """
import sys
import tritonclient.grpc as triton
import forebay
from forebay_server.service.models.registry import BUNDLED_REPOSITORY
with triton.InferenceServerClient(sys.argv[1]) as client:
    assert client.is_server_ready() and client.get_model_metadata("faces").name == "faces"
with forebay.Client(sys.argv[1]) as client, client.stream("door", model="faces", encoding="bgr8") as stream:
    import numpy as np
    stream.send(np.zeros((240, 320, 3), np.uint8))
    assert stream.receive().status is forebay.Status.OK
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    return build_wheels(tmp_path_factory.mktemp("wheels"))


def test_the_client_is_light_and_imports_nothing_else(wheels, tmp_path):
    python = make_environment(tmp_path / "environment", wheels[0])
    sizes = json.loads(run(python, "-c", MEASURE))
    ours = {name.lower(): size for name, size in sizes.items() if name not in {"pip", "setuptools"}}
    assert ours.keys() == {"forebay-client", "grpcio", "numpy", "protobuf", "typing_extensions"}
    assert sum(ours.values()) <= BUDGET_MB * 1e6, ours
    assert run(python, "-W", "error", "-c", IMPORT_ALL, cwd=tmp_path).strip() == "[]"
    ended = subprocess.run(
        [python, "-m", "forebay"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "pip install forebay" in ended.stderr


def test_the_newest_tritonclient_shares_an_environment_and_a_process(wheels, tmp_path):
    python = make_environment(tmp_path / "environment", "tritonclient[grpc]==2.73.0", *wheels)  # pip check is in there
    command = [python.parent / "forebay", "serve", "--address", "127.0.0.1:0"]
    environment = ENVIRONMENT | {"XDG_CACHE_HOME": str(tmp_path)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            address = json.loads(server.stdout.readline())["address"]
            run(python, "-c", BOTH, address, cwd=tmp_path, timeout_s=60)
        finally:
            server.terminate()
    assert server.returncode == os.EX_OK
