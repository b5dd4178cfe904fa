"""The generated code equals the output of the pinned compiler on protos/."""

from pathlib import Path

import pytest

from tests.support.repository import ROOT

pytest.importorskip("grpc_tools", reason="make test-heavy-wire has the compiler")
from grpc_tools import protoc

from tools.generate_wire import PLACES, generate, proto_files


def test_generated_code_is_fresh(tmp_path):
    made = generate(tmp_path)
    stale = [str(path) for path in made if not _is_same(tmp_path / path, ROOT / path)]
    assert not stale, f"run `make proto`: {stale}"


def test_nothing_else_lies_beside_the_generated_code(tmp_path):
    made = set(generate(tmp_path))
    for folder in PLACES.values():
        present = {path for path in (ROOT / folder).iterdir() if path.suffix in {".py", ".pyi"}}
        assert {path.relative_to(ROOT) for path in present} - made == {Path(folder, "__init__.py")}


def test_anybody_compiles_the_protos_with_their_folder_alone(tmp_path):
    files = [path for package in PLACES for path in proto_files(package)]
    names = [path.relative_to(ROOT / "protos").as_posix() for path in files]
    folder = ROOT / "forebay" / "protos"  # as in the wheel
    arguments = [f"-I{folder}", f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}"]
    assert protoc.main(["protoc", *arguments, *names]) == 0
    assert "from inference import model_config_pb2" in (tmp_path / "inference" / "inference_pb2.py").read_text()


def _is_same(new, committed):
    return committed.is_file() and new.read_bytes() == committed.read_bytes()
