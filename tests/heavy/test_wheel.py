"""The wheels are complete: an installed wheel runs in an empty folder, models and clip included."""

import hashlib
import json
import subprocess
import zipfile

import pytest

from tests.support.repository import ROOT
from tests.support.wheels import ENVIRONMENT, build_wheels, make_environment, run

OWN_NAMES = ("service", "engines", "bench", "loadtest", "models")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    return build_wheels(tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="module")
def server(wheels, tmp_path_factory):
    """The interpreter of a fresh environment with the locked requirements and the wheels."""
    folder = tmp_path_factory.mktemp("environment")
    return make_environment(folder, "--requirement", ROOT / "requirements.lock", *wheels)


def top_levels(wheel):
    return {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist() if ".dist-info" not in name}


def test_each_wheel_has_one_name(wheels):
    assert [top_levels(wheel) for wheel in wheels] == [{"forebay"}, {"forebay_server"}]


def test_the_servers_wheel_holds_the_models_the_clip_and_the_licences(wheels):
    names = zipfile.ZipFile(wheels[1]).namelist()
    models = "forebay_server/models/"
    assert [name for name in names if name.startswith(f"{models}detector/") and name.endswith(".onnx")] != []
    assert {f"{models}pedestrians.mp4", f"{models}NOTICE", f"{models}SHA256SUMS", "forebay_server/py.typed"} <= set(
        names
    )
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith("licenses/NOTICE") for name in names)


def test_the_clients_wheel_holds_the_protos_and_its_types(wheels):
    names = set(zipfile.ZipFile(wheels[0]).namelist())
    protos = {f"forebay/protos/{path.relative_to(ROOT / 'protos')}" for path in (ROOT / "protos").rglob("*.proto")}
    assert len(protos) >= 4
    assert protos | {"forebay/py.typed"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_wheels_hold_plain_files_each_once(wheels):
    for wheel in wheels:
        entries = zipfile.ZipFile(wheel).infolist()
        assert not [entry.filename for entry in entries if (entry.external_attr >> 16) & 0o170000 == 0o120000]
        assert len({entry.filename for entry in entries}) == len(entries)


def test_wheels_are_the_same_bit_for_bit_when_built_again(tmp_path):
    digests = []
    for name in ("first", "second"):
        built = build_wheels(tmp_path / name, SOURCE_DATE_EPOCH="1764288000")
        digests.append([hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in built])
    assert digests[0] == digests[1]


def test_an_older_python_is_refused_by_pip(wheels, tmp_path):
    for wheel in wheels:
        command = [
            "pip",
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--python-version",
            "3.10",
            "-d",
            tmp_path,
            wheel,
        ]
        ended = subprocess.run(
            [server_python(), "-m", *map(str, command)], env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        assert ended.returncode != 0
        assert "requires a different Python: 3.10" in ended.stderr
        assert ">=3.11" in ended.stderr


def server_python():
    return ROOT / ".venv" / "bin" / "python"


def test_help_answers(server, tmp_path):
    for command in ([server.parent / "forebay"], [server, "-m", "forebay"], [server, "-m", "forebay_server"]):
        assert "serve" in run(*command, "--help", cwd=tmp_path)


def demo(python, folder, **environment):
    summary = json.loads(run(python.parent / "forebay", "demo", "--json", cwd=folder, timeout_s=120, **environment))
    assert summary["lost"] == 0
    assert summary["out_of_order"] == 0
    assert summary["frames_with_person"] > 0


def test_demo_finds_people_in_an_empty_folder(server, tmp_path):
    demo(server, tmp_path)


def test_a_project_with_modules_of_our_folders_names_keeps_them(server, tmp_path):
    for name in OWN_NAMES[:4]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"OWNER = 'the project: {name}'\n")
    (tmp_path / "models.py").write_text("OWNER = 'the project: models'\n")
    demo(server, tmp_path, PYTHONPATH=".")
    program = "import forebay_server.service.cli, importlib; print([importlib.import_module(n).OWNER for n in %r])"
    told = run(server, "-c", program % (OWN_NAMES,), cwd=tmp_path, PYTHONPATH=".")
    assert told.strip() == str([f"the project: {name}" for name in OWN_NAMES])


def test_names_of_our_folders_are_not_there_for_a_project_that_has_none(server, tmp_path):
    program = "import importlib.util; print([n for n in %r if importlib.util.find_spec(n)])"
    assert run(server, "-c", program % (OWN_NAMES,), cwd=tmp_path).strip() == "[]"
