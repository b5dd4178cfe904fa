"""forebay/wire is what the pinned compiler makes of protos/."""

import pytest

from tests.support.repository import ROOT

pytest.importorskip("grpc_tools", reason="make test-heavy-wire has the compiler")
from tools.generate_wire import generate


def test_generated_code_is_fresh(tmp_path):
    made = generate(tmp_path)
    stale = [str(path) for path in made if not _is_same(tmp_path / path, ROOT / path)]
    assert not stale, f"run `make proto`: {stale}"


def test_nothing_else_lies_beside_the_generated_code(tmp_path):
    made = {path.name for path in generate(tmp_path)}
    present = {path.name for path in (ROOT / "forebay" / "wire").iterdir() if path.suffix in {".py", ".pyi"}}
    assert present - made == {"__init__.py"}


def _is_same(new, committed):
    return committed.is_file() and new.read_bytes() == committed.read_bytes()
