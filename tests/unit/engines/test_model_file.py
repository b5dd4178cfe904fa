"""Files that cannot be models get a message that names the kind of file."""

from pathlib import Path

import pytest

from forebay_server.engines.errors import ModelFileError
from forebay_server.engines.model_file import require_model_file

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "the file is empty"), (POINTER, "a pointer of Git LFS"), (POINTER[:41], "Git LFS")]
)
def test_what_copying_went_wrong_with_is_told(tmp_path, content, words):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=words):
        require_model_file(path)


def test_a_file_that_is_missing_or_cannot_be_read_is_told(tmp_path):
    with pytest.raises(ModelFileError, match="no such file"):
        require_model_file(tmp_path / "model.onnx")
    with pytest.raises(ModelFileError, match="cannot be read: Input/output error"):
        require_model_file(Path("/proc/self/mem"))


def test_anything_else_is_for_the_engine_to_judge(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"v")
    require_model_file(path)
