"""Checks that a file can be a model, with clearer messages than the engines' libraries."""

from pathlib import Path

from forebay_server.engines.errors import ModelFileError

_GIT_LFS = b"version https://git-lfs.github.com/spec/"
_FORMS = (
    (0, b"PK\x03\x04", "an archive, such as PyTorch writes"),
    (0, b"\x80", "a pickle, such as a state_dict of PyTorch"),
    (0, b"\x89HDF", "an HDF5 file, such as Keras writes"),
    (4, b"TFL3", "a file of TensorFlow Lite"),
)
"""Place and bytes by which files are known that are taken for ONNX files."""
_BEGINNING_BYTES = 64


def require_model_file(path: Path) -> None:
    """Check the beginning of a model file. Blocks: on the disk.

    Raises:
        ModelFileError: the file is missing, unreadable or empty, or is a pointer of Git LFS instead of a file.
    """
    if not path.is_file():
        raise ModelFileError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            beginning = file.read(len(_GIT_LFS))
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}") from None
    if not beginning:
        raise ModelFileError(f"{path}: the file is empty: copy it again")
    if beginning == _GIT_LFS:
        raise ModelFileError(f"{path}: a pointer of Git LFS and not the model: run `git lfs pull` where it comes from")


def other_form(path: Path) -> str:
    """Return what a file that is no ONNX file seems to be, to complete "it is"; empty if unknown. Blocks: on the disk.

    For messages, once a library has refused the file.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(_BEGINNING_BYTES)
    except OSError:
        return ""
    if beginning.isascii() and beginning.decode("ascii").replace("\n", "").replace("\r", "").isprintable():
        return "text"
    return next((form for place, mark, form in _FORMS if beginning.startswith(mark, place)), "")
