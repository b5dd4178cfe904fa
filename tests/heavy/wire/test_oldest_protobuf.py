"""Client and server run on the oldest protobuf that pyproject.toml allows: the one of this environment."""

import sys
from importlib import metadata

import numpy as np
import pytest

import forebay
from tests.heavy.tritonclient.conftest import serving, simulated
from tests.support.wire_tests import run_wire_tests

READERS = ("config", "config_text", "fields")
pytestmark = pytest.mark.skipif(not metadata.version("protobuf").startswith("6.30."), reason="make test-heavy-wire")


def test_every_message_the_pool_and_all_that_reads_messages():
    readers = (f"tests/unit/models/test_{name}.py" for name in READERS)
    code, said = run_wire_tests("tests/unit/inference", "tests/unit/frontend/test_reflection.py", *readers)
    assert code == 0, said


def test_client_and_server_exchange_frames(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.heavy.tritonclient.conftest.SERVER_PYTHON", sys.executable)
    simulated(tmp_path, "copy")
    frame = np.arange(16, dtype=np.int32)
    with (
        serving(tmp_path) as address,
        forebay.Client(address) as client,
        client.stream("door", model="copy", encoding="tensor", delivery="every") as stream,
    ):
        for step in range(8):
            stream.send(frame + step)
        for step in range(8):
            (output,) = stream.receive().tensors.values()
            np.testing.assert_array_equal(output.ravel(), frame + step)
