"""forebay/wire equals the output of the pinned compiler on protos/."""

import pytest

from tests.support.repository import ROOT

pytest.importorskip("grpc_tools", reason="make test-heavy-wire has the compiler")
from grpc_tools import protoc

from tools.generate_wire import generate, proto_files


def test_generated_code_is_fresh(tmp_path):
    made = generate(tmp_path)
    stale = [str(path) for path in made if not _is_same(tmp_path / path, ROOT / path)]
    assert not stale, f"run `make proto`: {stale}"


def test_nothing_else_lies_beside_the_generated_code(tmp_path):
    made = {path.name for path in generate(tmp_path)}
    present = {path.name for path in (ROOT / "forebay" / "wire").iterdir() if path.suffix in {".py", ".pyi"}}
    assert present - made == {"__init__.py"}


def test_anybody_compiles_the_protos_with_their_folder_alone(tmp_path):
    names = [path.relative_to(ROOT / "protos").as_posix() for path in proto_files()]
    folder = ROOT / "forebay" / "protos"  # as in the wheel
    arguments = [f"-I{folder}", f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}"]
    assert protoc.main(["protoc", *arguments, *names]) == 0
    assert "from inference import model_config_pb2" in (tmp_path / "inference" / "inference_pb2.py").read_text()


def _is_same(new, committed):
    return committed.is_file() and new.read_bytes() == committed.read_bytes()
