"""The distributions, their packages and their locks fit together, and a bare tree runs."""

import ast
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from coverage import CoverageData
from packaging.utils import canonicalize_name

import forebay
from tests.support.repository import ROOT, tracked_files
from tools.install_size import copy_source
from tools.lock import read_lock, read_requirements

FOLDERS = ("service", "engines", "bench", "loadtest", "models")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CLIENT = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())["project"]


def test_an_environment_gets_two_names_of_ours():
    owners = metadata.packages_distributions()
    assert set(owners["forebay"]) == {"forebay-client"}
    assert set(owners["forebay_server"]) == {"forebay"}
    assert not {"forebay", "forebay-client"} & {owner for name in FOLDERS for owner in owners.get(name, ())}


def test_the_links_lead_to_the_folders_beside_them():
    links = {path.name: str(path.readlink()) for path in (ROOT / "forebay_server").iterdir() if path.is_symlink()}
    assert links == {name: f"../{name}" for name in FOLDERS}


def test_nothing_imports_our_folders_by_their_bare_names():
    found = []
    for path in tracked_files():
        if path.suffix == ".py":
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                found += [f"{path.name}: {name}" for name in names if name.partition(".")[0] in FOLDERS]
    assert found == []


def test_the_server_needs_the_client_of_its_own_version():
    assert f"forebay-client=={forebay.__version__}" in PROJECT["dependencies"]
    assert {metadata.version(name) for name in ("forebay", "forebay-client")} == {forebay.__version__}


def test_the_client_needs_three_libraries_and_no_newer_python():
    assert {line.partition(">")[0] for line in CLIENT["dependencies"]} == {"grpcio", "protobuf", "numpy"}
    assert CLIENT["requires-python"] == PROJECT["requires-python"]


def test_command_is_the_products_name():
    (script,) = metadata.entry_points(group="console_scripts", name="forebay")
    assert script.value == "forebay_server.service.cli:main"


def copy_of_the_tree(folder, *, links):
    """A machine that has the files but no installation."""
    for name in ("forebay", *FOLDERS):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    if links:
        shutil.copytree(ROOT / "forebay_server", folder / "forebay_server", symlinks=True)
    else:
        (folder / "forebay_server").mkdir()
        for path in (ROOT / "forebay_server").iterdir():
            if path.suffix == ".py":
                shutil.copy(path, folder / "forebay_server")


@pytest.mark.parametrize("links", [True, False], ids=["with-links", "without-links"])
def test_a_bare_tree_runs_with_nothing_but_pythonpath(tmp_path, links):
    tree, elsewhere = tmp_path / "tree", tmp_path / "elsewhere"
    tree.mkdir()
    elsewhere.mkdir()
    copy_of_the_tree(tree, links=links)
    # The settings that make the checkout importable in this environment must not help.
    program = (
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f)]; "
        "import runpy; from pathlib import Path; import forebay, forebay_server.service.models.registry as registry; "
        "assert Path(forebay.__file__).is_relative_to(sys.argv[1]), forebay.__file__; "
        "assert Path(registry.__file__).is_relative_to(sys.argv[1]), registry.__file__; "
        "assert (registry.BUNDLED_REPOSITORY / 'faces').is_dir(), registry.BUNDLED_REPOSITORY; "
        "sys.argv = ['forebay', 'models', 'check', str(registry.BUNDLED_REPOSITORY)]; "
        "runpy.run_module('forebay_server', run_name='__main__')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, tree],
        cwd=elsewhere,
        env={"PYTHONPATH": str(tree), "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    assert "detector" in ended.stdout


def test_coverage_names_each_file_once_in_its_folder(tmp_path):
    data = tmp_path / "coverage"
    command = ("coverage", "run", "--rcfile", ROOT / "pyproject.toml", "--data-file", data, "-m", "forebay_server")
    subprocess.run([sys.executable, "-m", *command, "--version"], cwd=ROOT, check=True, capture_output=True, timeout=60)
    (written,) = tmp_path.iterdir()  # named after the process
    measured = CoverageData(written)
    measured.read()
    files = {str(Path(name).relative_to(ROOT)) for name in measured.measured_files()}
    assert {"service/version.py", "forebay/__init__.py"} <= files
    assert not [name for name in files if name.startswith("forebay_server/service")]


def test_what_an_earlier_build_left_is_in_no_new_one(tmp_path):
    """setuptools puts every file in build/ into a wheel."""
    tree, copy = tmp_path / "tree", tmp_path / "copy"
    left = ("client/build/lib/forebay/gone.py", "client/dist/forebay.whl", "client/forebay_client.egg-info/SOURCES.txt")
    left += ("build/lib/service/gone.py", "engines/__pycache__/gone.pyc")
    for name in (*(line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"), *left):
        path = tree / name
        path.mkdir(parents=True) if name.endswith("/") else path.parent.mkdir(parents=True, exist_ok=True)
        path.is_dir() or path.touch()
    (tree / "engines" / "build").mkdir()
    (tree / "engines" / "build" / "plans.py").touch()  # a package of this project
    shutil.copy(ROOT / ".dockerignore", tree)
    copy.mkdir()
    copy_source(copy, tree)
    assert not [path for path in copy.rglob("*") if path.stem in {"gone", "SOURCES"} or path.suffix == ".whl"]
    assert (copy / "engines" / "build" / "plans.py").is_file()
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/build/", "/client/build/", "/client/dist/", "/dist/"} <= set(ignored)


@pytest.mark.parametrize(("index", "lock"), [(0, "requirements.lock"), (1, "requirements-dev.lock")])
def test_lock_covers_every_requirement_with_a_version_that_it_allows(index, lock):
    locked = read_lock(ROOT / lock)
    for requirement in read_requirements()[index]:
        version = locked.get(canonicalize_name(requirement.name), "none")
        assert version != "none", f"{requirement.name} is not in {lock}: run `make lock`"
        assert requirement.specifier.contains(version, prereleases=True), f"{lock} has {version} for {requirement}"


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_lock_holds_exact_versions_and_no_index(lock):
    lines = [line for line in (ROOT / lock).read_text().splitlines() if not line.startswith("#")]
    assert all("==" in line or line == "-r requirements.lock" for line in lines)


def test_locks_do_not_contradict_each_other():
    base, dev = read_lock(ROOT / "requirements.lock"), read_lock(ROOT / "requirements-dev.lock")
    assert base.keys() & dev.keys() == set()
