"""compose.yaml and the configurations that it mounts, each judged by its own program or schema; nothing is pulled."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.heavy.scaling.test_faults import ENVOY
from tests.support.repository import ROOT

CHECKER = Path(sys.executable).with_name("check-jsonschema")
PROMTOOL = shutil.which("promtool")


def run(*command):
    return subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not CHECKER.exists(), reason="make test-heavy-scaling has the schema")
def test_the_file_is_one_of_the_compose_specification():
    checked = run(CHECKER, "--builtin-schema", "vendor.compose-spec", "compose.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.skipif(not ENVOY.exists(), reason="Envoy's wheel is for Linux on x86-64")
def test_envoy_takes_the_configuration_that_is_mounted():
    checked = run(ENVOY, "--mode", "validate", "--config-path", "deploy/envoy/envoy-plain.yaml", "--log-level", "error")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "OK" in checked.stdout + checked.stderr


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool here: apt-get install prometheus")
def test_prometheus_takes_the_configuration_that_is_mounted():
    checked = run(PROMTOOL, "check", "config", "deploy/prometheus/prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "rules found" in checked.stdout
