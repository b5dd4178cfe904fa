"""Process tuning, each case in a separate process, because it must come before grpc."""

import json
import os
import subprocess
import sys

import pytest

from forebay_server.service.tuning import GRPC_EXPERIMENTS, Tuning

REPORT = (
    "import json, os, sys; from dataclasses import asdict; from forebay_server.service.tuning import tune_process; "
)
PRINT = "print(json.dumps([asdict(t), os.environ['GRPC_EXPERIMENTS'], sys.getswitchinterval()]))"


def run(code, **environment):
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"} | environment
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_everything_takes_effect_in_a_fresh_process():
    tuning, experiments, interval = run(f"{REPORT} t = tune_process(); {PRINT}")
    assert tuning == {"grpc_experiments": True, "malloc": True, "switch_interval": True}
    assert experiments == GRPC_EXPERIMENTS
    assert interval == pytest.approx(5e-4)


def test_too_late_after_grpc_was_imported():
    tuning, _, _ = run(f"import grpc; {REPORT} t = tune_process(); {PRINT}")
    assert not tuning["grpc_experiments"]


def test_what_the_operator_set_is_kept_and_reported():
    tuning, experiments, _ = run(f"{REPORT} t = tune_process(); {PRINT}", GRPC_EXPERIMENTS="-other")
    assert experiments == "-other"
    assert not tuning["grpc_experiments"]


def test_importing_the_server_does_not_import_grpc_before_tuning():
    assert (
        run("import json, sys; import forebay_server.service.tuning; print(json.dumps('grpc' in sys.modules))") is False
    )


def test_what_is_missing_is_named():
    assert Tuning(grpc_experiments=True, malloc=False, switch_interval=True).missing == ["malloc"]
    assert Tuning(grpc_experiments=True, malloc=True, switch_interval=True).missing == []


def test_free_memory_goes_back_to_the_operating_system():
    """Blocks between others that are held: `free` alone keeps them."""
    code = """
from forebay_server.service.tuning import give_free_memory_back, tune_process
import json, psutil
tune_process()
blocks = [bytearray(1 << 20) for _ in range(64)]
held = blocks[::2]
del blocks
before = psutil.Process().memory_info().rss
give_free_memory_back()
print(json.dumps((before - psutil.Process().memory_info().rss) >> 20))
"""
    assert run(code) >= 24
