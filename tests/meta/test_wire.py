"""forebay/wire is what protos/ says."""

from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support.repository import ROOT
from tools.generate_wire import generate
from tools.lock import read_requirements


def pinned_tools() -> Requirement:
    return next(r for r in read_requirements()[1] if r.name == "grpcio-tools")


def test_generated_code_is_fresh(tmp_path):
    version = metadata.version("grpcio-tools")
    if not pinned_tools().specifier.contains(version):
        pytest.skip(f"grpcio-tools {version} writes other code than {pinned_tools()}")
    made = generate(tmp_path)
    stale = [str(path) for path in made if not _is_same(tmp_path / path, ROOT / path)]
    assert not stale, f"run `make proto`: {stale}"


def test_nothing_else_lies_beside_the_generated_code(tmp_path):
    made = {path.name for path in generate(tmp_path)}
    present = {path.name for path in (ROOT / "forebay" / "wire").iterdir() if path.suffix in {".py", ".pyi"}}
    assert present - made == {"__init__.py"}


def _is_same(new: Path, committed: Path) -> bool:
    return committed.is_file() and new.read_bytes() == committed.read_bytes()
