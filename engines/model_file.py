"""Checks that a file can be a model, with clearer messages than the engines' libraries."""

from pathlib import Path

from forebay_server.engines.errors import ModelFileError

_GIT_LFS = b"version https://git-lfs.github.com/spec/"


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
