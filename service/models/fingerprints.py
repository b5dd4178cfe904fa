"""Fingerprints of files: polling detects a changed folder by them, without reading a file.

A file is identified by its inode, size, modification time and change time, a link by its target and by its own marks.
So polling detects a file that is replaced by one of the same size and time, and a link that is swapped, anywhere in the
path. Links to folders are followed inside the repository only, because nothing outside is ever loaded.

Thread: any; reads the file system, so never the event loop's.
"""

import stat
from collections.abc import Iterator
from pathlib import Path

from forebay_server.service.models.bare_files import BARE_VERSION, siblings
from forebay_server.service.models.repository import ModelEntry, readable

Mark = tuple[str | int, ...]
Fingerprints = dict[str, frozenset[Mark]]


def fingerprints_of(entry: ModelEntry) -> Fingerprints:
    """Return the fingerprint of each version's folder, and under "" that of all other files.

    Taken before a model is loaded: the next look then detects a file that changed while it was read.

    Raises:
        RepositoryError: the model's folder cannot be read.
    """
    versions = {str(number) for number in entry.versions}
    found: dict[str, set[Mark]] = {"": set(_link(entry.path, "")), **{number: set() for number in versions}}
    with readable(entry.name):
        if entry.is_bare:
            found[BARE_VERSION].update(_marks(entry.path, entry.path.name, entry.root, set()))
        paths = list(siblings(entry.path, entry.name) if entry.is_bare else entry.path.iterdir())
    for path in paths:
        found[path.name if path.name in versions else ""].update(_marks(path, path.name, entry.root, set()))
    return {number: frozenset(marks) for number, marks in found.items()}


def _marks(path: Path, relative: str, root: Path, seen: set[tuple[int, int]]) -> Iterator[Mark]:
    """Yield a mark for a file, and for all files below a folder. The next look detects files that vanish meanwhile.

    Args:
        path: of the file or folder.
        relative: to the model's folder.
        root: the repository.
        seen: visited folders, by device and inode: links may lead to one twice, or in circles.
    """
    yield from _link(path, relative)
    try:
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode):
            yield relative, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
            return
        folder = (status.st_dev, status.st_ino)
        if folder in seen or not path.resolve().is_relative_to(root):
            return
        seen.add(folder)
        inner = list(path.iterdir())
    except (OSError, RuntimeError):  # gone, unreadable, or a link to itself
        return
    for each in inner:
        yield from _marks(each, f"{relative}/{each.name}", root, seen)


def _link(path: Path, relative: str) -> Iterator[Mark]:
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            yield relative, str(path.readlink()), status.st_ino, status.st_ctime_ns
    except OSError:
        return
