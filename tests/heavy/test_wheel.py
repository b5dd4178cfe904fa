"""The wheel is complete: what a user installs runs in an empty folder, models and clip included."""

import json
import os
import subprocess
import sys
import venv
import zipfile

import pytest

from tests.support.repository import ROOT
from tools.install_size import copy_source

# A user's machine has none of these.
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}


def run(*command, cwd=None, timeout_s=300):
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = copy_source(tmp_path_factory.mktemp("source"))
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
    (path,) = folder.glob("forebay-*.whl")
    return path


@pytest.fixture(scope="module")
def forebay(wheel, tmp_path_factory):
    """The command of a fresh environment with the locked requirements and the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    pip = (folder / "bin" / "python", "-m", "pip", "install", "--quiet")
    run(*pip, "--requirement", ROOT / "requirements.lock")
    run(*pip, "--no-deps", wheel)
    run(folder / "bin" / "python", "-m", "pip", "check")
    return folder / "bin" / "forebay"


def test_wheel_holds_the_models_the_clip_and_the_licences(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert [name for name in names if name.startswith("models/detector/") and name.endswith(".onnx")] != []
    assert {"models/pedestrians.mp4", "models/NOTICE", "models/SHA256SUMS", "forebay/py.typed"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith("licenses/NOTICE") for name in names)


def test_wheel_holds_no_tests_and_no_tools(wheel):
    top = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist() if ".dist-info" not in name}
    assert top == {"forebay", "service", "engines", "loadtest", "bench", "models"}


def test_help_answers(forebay, tmp_path):
    assert "serve" in run(forebay, "--help", cwd=tmp_path)


def test_demo_finds_people_in_an_empty_folder(forebay, tmp_path):
    summary = json.loads(run(forebay, "demo", "--json", cwd=tmp_path, timeout_s=120))
    assert summary["lost"] == 0
    assert summary["out_of_order"] == 0
    assert summary["frames_with_person"] > 0
