"""Whether a file can be written at a path, asked before the work whose result it takes. Writes nothing."""

import os
import shlex
from argparse import ArgumentTypeError
from pathlib import Path

_NOT_ALLOWED = "this user may not"


def place_fault(path: Path, *, makes_folders: bool = False, is_replaced: bool = False) -> str:
    """Return why no file can be written at `path`, in one line with the remedy; empty if one can, as far as is known.

    A disk that is full and a limit on the size of files show only when the file is written.

    Args:
        path: of the file.
        makes_folders: the writer makes folders that are missing.
        is_replaced: the writer puts a whole new file in the place of an old one, whose own mode then says nothing.
    """
    try:
        return _fault(path, makes_folders=makes_folders, is_replaced=is_replaced)
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        return f"cannot write {path}: {error.strerror}; name another file"


def output_file(text: str) -> Path:
    """Return a path to write to: the `type` of an option of argparse, which reports a fault before anything is done.

    Raises:
        ArgumentTypeError: no file can be written there.
    """
    path = Path(text)
    if problem := place_fault(path):
        raise ArgumentTypeError(problem)
    return path


def _fault(path: Path, *, makes_folders: bool, is_replaced: bool) -> str:
    if path.is_dir():
        return f"cannot write {path}: it is a folder; name a file in it"
    if path.exists() and not is_replaced:
        return "" if os.access(path, os.W_OK) else f"cannot write {path}: {_NOT_ALLOWED} change it; name another file"
    return _folder_fault(path, makes_folders=makes_folders)


def _folder_fault(path: Path, *, makes_folders: bool) -> str:
    folder = path.parent
    if makes_folders:
        folder = next(each for each in (folder, *folder.parents) if each.exists())
    if not folder.exists():
        return f"cannot write {path}: there is no folder {folder}; make it with: mkdir -p {shlex.quote(str(folder))}"
    if not folder.is_dir():
        return f"cannot write {path}: {folder} is a file, not a folder; name another folder"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"cannot write {path}: {_NOT_ALLOWED} make files in {folder}; name another folder"
    return ""
