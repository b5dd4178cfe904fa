"""Finds the models in folders of Triton's layout: `<model>/[config.pbtxt]` and `<model>/<version>/model.onnx`.

Looks at names only; what is inside the files is for `service.models.config` and the engines. Nothing outside the
repository is ever opened: names are checked, and a link that leads out of it is refused. Messages name files relative
to the repository, since clients may see them.

Thread: any; reads the file system, so never the event loop's.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

CONFIG_NAME = "config.pbtxt"
MAX_VERSION = 2**63 - 1
MAX_NAME_BYTES = 255  # of file systems
MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
MAX_SHOWN = 128  # letters of a wrong name in a message: it may be a client's
VERSION_NAME = re.compile(r"[0-9]+", re.ASCII)


class RepositoryError(Exception):
    """A folder, a name or a file of a model repository is not as it has to be; the message says how to mend it."""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model folder.

    Attributes:
        name: of the model: the folder's name.
        path: of the folder.
        versions: numbers of the version folders, rising.
        root: the repository it lies in, resolved.
    """

    name: str
    path: Path
    versions: tuple[int, ...]
    root: Path

    def file(self, *parts: str) -> Path | None:
        """Return the path of a file below the model's folder, or None if there is none.

        Raises:
            RepositoryError: a name that is no plain name, or a link that leads out of the repository.
        """
        relative = "/".join((self.name, *parts))
        for part in parts:
            if part in ("", ".", "..") or part != PurePosixPath(part).name or "\\" in part or "\0" in part:
                raise RepositoryError(f"{self.name}: {part[:128]!r} is no plain file name: leave out folders")
            if len(os.fsencode(part)) > MAX_NAME_BYTES:
                raise RepositoryError(f"{self.name}: a file name of more than {MAX_NAME_BYTES} bytes: shorten it")
        path = self.path.joinpath(*parts)
        _check_inside(path, self.root, relative)
        with readable(relative):
            return path if path.is_file() else None


@dataclass(frozen=True, slots=True)
class Scan:
    """What a scan found.

    Attributes:
        models: usable entries, by name.
        problems: one line for each folder that looks like a model and is none.
        broken: the names of these folders.
    """

    models: tuple[ModelEntry, ...]
    problems: tuple[str, ...]
    broken: frozenset[str] = frozenset()


class Repository:
    """One or more repository folders, seen as one. Immutable: every call looks at the disk anew."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Raise RepositoryError if no path is given or one is not a folder."""
        if not paths:
            raise RepositoryError("no model repository: name a folder")
        for path in paths:
            if not path.is_dir():
                raise RepositoryError(f"model repository {path.name!r} is not a folder: check the path")
        self._roots = tuple(path.resolve() for path in paths)

    def models(self) -> list[ModelEntry]:
        """Return every model, by name.

        Raises:
            RepositoryError: on the first folder that is not as it has to be; `scan` tells them all.
        """
        scan = self.scan()
        if scan.problems:
            raise RepositoryError(scan.problems[0])
        return list(scan.models)

    def model(self, name: str) -> ModelEntry:
        """Return one model, whatever the others look like.

        Raises:
            RepositoryError: there is none of that name, or two, or it is not as it has to be.
        """
        found = [root for root in self._roots if MODEL_NAME.fullmatch(name) and (root / name).is_dir()]
        if not found:
            raise RepositoryError(f"no model {name[:MAX_SHOWN]!r} in the repository")
        if len(found) > 1:
            raise RepositoryError(f"model {name!r} is in {len(found)} repositories: rename or remove all but one")
        return _entry(found[0], name)

    def scan(self) -> Scan:
        """Return every model and every problem. Files, hidden folders and `__pycache__` are passed over."""
        entries: list[ModelEntry] = []
        problems: list[str] = []
        broken: set[str] = set()
        names: set[str] = set()
        for root in self._roots:
            with readable(f"model repository {root.name!r}"):
                names.update(folder.name for folder in root.iterdir() if _may_be_model(folder))
        for name in sorted(names):
            if not MODEL_NAME.fullmatch(name):
                problems.append(
                    f"{name!r} cannot be a model's name: use letters, digits, '_', '-' and '.', at most 128"
                )
                continue
            try:
                entries.append(self.model(name))
            except RepositoryError as error:
                problems.append(str(error))
                broken.add(name)
        return Scan(tuple(entries), tuple(problems), frozenset(broken))


def _may_be_model(folder: Path) -> bool:
    return folder.is_dir() and not folder.name.startswith(".") and folder.name != "__pycache__"


def _entry(root: Path, name: str) -> ModelEntry:
    path = root / name
    _check_inside(path, root, name)
    with readable(name):
        versions = tuple(sorted(_version(root, name, folder) for folder in path.iterdir() if _is_version(folder)))
    if not versions and not (path / CONFIG_NAME).exists():
        raise RepositoryError(f"{name}: no {CONFIG_NAME} and no version folder: put the model file in {name}/1")
    return ModelEntry(name, path, versions, root)


def _is_version(folder: Path) -> bool:
    return VERSION_NAME.fullmatch(folder.name) is not None and folder.is_dir()


def _version(root: Path, name: str, folder: Path) -> int:
    relative = f"{name}/{folder.name}"
    _check_inside(folder, root, relative)
    digits = folder.name
    version = int(digits[:20])
    if digits.startswith("0"):
        raise RepositoryError(f"{relative}: versions are numbers from 1 without leading zeros: rename the folder")
    if len(digits) > len(str(MAX_VERSION)) or version > MAX_VERSION:
        raise RepositoryError(f"{name}: a version is above {MAX_VERSION}: rename the folder")
    return version


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Turn what the file system refuses into RepositoryError."""
    try:
        yield
    except OSError as error:
        raise RepositoryError(f"{what} cannot be read: {error.strerror or 'the system refused'}") from error


def _check_inside(path: Path, root: Path, relative: str) -> None:
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError):  # a loop of links
        raise RepositoryError(f"{relative}: a link that leads nowhere: remove it") from None
    if not resolved.is_relative_to(root):
        raise RepositoryError(f"{relative}: a link that leads out of the repository: put the file itself there")
