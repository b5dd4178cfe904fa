"""Finds the models in folders of Triton's layout: `<model>/[config.pbtxt]` and `<model>/<version>/model.onnx`.

A file `<model>.onnx` is a model too, in a repository or named in its place (`bare_files`).

Looks at names only; `service.models.config` and the engines read the contents of files. Nothing outside the repository
is ever opened: names are checked, and a link that leads out of it is refused. Messages name files relative to the
repository, because clients may see them.

Thread: any; reads the file system, so never the event loop's.
"""

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from forebay.near_files import near_file
from forebay_server.service.models.bare_files import (
    BARE_VERSION,
    CONFIG_SUFFIX,
    FILE_SUFFIXES,
    FOLDER_SUFFIXES,
    LABELS_NAME,
    is_usual_name,
    model_name,
    siblings,
)
from forebay_server.service.models.hard_links import foreign_link

CONFIG_NAME = "config.pbtxt"
MAX_VERSION = 2**63 - 1
MAX_NAME_BYTES = 255  # limit of file systems
MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
MAX_NAMED = 5  # of files and folders in a message
MAX_SHOWN = 128  # characters of a wrong name in a message: it may be a client's
VERSION_NAME = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
MAY_BE_VERSION = re.compile(r"-?[0-9]", re.ASCII)  # skipped with a warning, where `warmup` needs none
_NO_VERSION = f"is no version, which is a number from 1 to {MAX_VERSION} without leading zeros"
_MODEL_FILE = "model."


def config_name_of(name: str, *, is_bare: bool) -> str:
    """Return the name of a model's configuration, relative to its repository."""
    return f"{name}{CONFIG_SUFFIX}" if is_bare else f"{name}/{CONFIG_NAME}"


class RepositoryError(Exception):
    """A folder, a name or a file of a model repository is invalid; the message has a remedy."""


class MissingRepositoryError(RepositoryError):
    """A repository is neither a folder nor a model file. The message has its whole path, which clients may not see."""


class NoModelError(RepositoryError):
    """A folder has no part of a model: no configuration, no version, no model file."""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model: a folder, or a bare model file.

    Attributes:
        name: of the model: the folder's name, or the file's without its suffix.
        path: of the folder, or of the file.
        versions: numbers of the version folders, rising.
        root: its repository, resolved.
        passed_over: one line for each folder that looks like a version and is none.
        is_bare: whether it is a bare model file.
    """

    name: str
    path: Path
    versions: tuple[int, ...]
    root: Path
    passed_over: tuple[str, ...] = ()
    is_bare: bool = False

    @property
    def config_name(self) -> str:
        """The configuration's name for messages, relative to the repository."""
        return config_name_of(self.name, is_bare=self.is_bare)

    @property
    def where(self) -> Path:
        """The repository that holds this model and no other of its name."""
        return self.path if self.is_bare else self.root

    def file(self, *parts: str) -> Path | None:
        """Return the path of a file below the model's folder, or None if there is none.

        A bare model file is `1/model.onnx` (or its backend's name), and files beside it are those of the folder.

        Raises:
            RepositoryError: the name has folders in it, or is a link that leads out of the repository.
        """
        relative = "/".join((self.name, *parts))
        for part in parts:
            check_part(self.name, part)
        if self.is_bare:
            bare = self._bare_file(parts)
            if bare is None:
                return None
            path, relative = bare, bare.name
        else:
            path = self.path.joinpath(*parts)
        _check_inside(path, self.root, relative)
        with readable(relative):
            if not path.is_file():
                return None
            self.check_links(path)
            return path

    def _bare_file(self, parts: tuple[str, ...]) -> Path | None:
        """Return the file that stands for `parts` of a folder; None if none can."""
        if len(parts) == 2 and parts[0] == BARE_VERSION and is_usual_name(parts[1], self.path.name):
            return self.path
        if parts == (CONFIG_NAME,):
            return self.path.with_name(self.name + CONFIG_SUFFIX)
        if parts == (LABELS_NAME,) and (own := self.path.with_name(f"{self.name}.{LABELS_NAME}")).exists():
            return own
        return self.path.with_name(parts[0]) if len(parts) == 1 else None

    def check_weights(self, model_file: Path) -> None:
        """Raise RepositoryError if a file that may hold the model's weights is a hard link to another user's file."""
        for path in siblings(model_file, self.name) if self.is_bare else (model_file.parent,):
            self.check_links(path)

    def check_links(self, path: Path) -> None:
        """Raise RepositoryError if `path`, or a file below it, is a hard link to another user's file (`hard_links`)."""
        found = foreign_link(path)
        if found is not None:
            raise RepositoryError(
                f"{found.relative_to(self.root)}: a hard link to a file of another user: put a copy there, "
                "or give it to the owner of the folder"
            )


@dataclass(frozen=True, slots=True)
class Scan:
    """The result of a scan.

    Attributes:
        models: usable entries, by name.
        problems: one line for each folder that looks like a model and is none.
        broken: the names of these folders.
        empty: names of folders that could be a model's but have no part of one. They are skipped too.
        passed_over: one line for each folder that cannot be a model, such as `lost+found` or `@eaDir`.
    """

    models: tuple[ModelEntry, ...]
    problems: tuple[str, ...]
    broken: frozenset[str] = frozenset()
    passed_over: tuple[str, ...] = ()
    empty: frozenset[str] = frozenset()


class Repository:
    """One or more repositories, seen as one: folders, or single model files. Immutable: every call reads the disk."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Raise RepositoryError if no path is given, MissingRepositoryError if one is no folder and no model file."""
        if not paths:
            raise RepositoryError("no model repository: name a folder")
        for path in paths:
            if not path.is_dir() and not (path.is_file() and model_name(path.name)):
                raise MissingRepositoryError(_no_repository(path))
        self._roots = tuple(dict.fromkeys(path.absolute() if path.is_file() else path.resolve() for path in paths))

    def models(self) -> list[ModelEntry]:
        """Return every model, by name. Folders that cannot be one are skipped.

        Raises:
            RepositoryError: at the first invalid folder; `scan` reports all of them.
        """
        scan = self.scan()
        if scan.problems:
            raise RepositoryError(scan.problems[0])
        return list(scan.models)

    def model(self, name: str) -> ModelEntry:
        """Return one model, independent of the others.

        Raises:
            RepositoryError: there is none of that name, or two, or it is invalid.
        """
        found = list(self._places(name)) if MODEL_NAME.fullmatch(name) else []
        if not found:
            raise RepositoryError(f"no model {name[:MAX_SHOWN]!r} in the repository")
        if len(found) > 1:
            names = ", ".join(f"{place.parent.name}/{place.name}" for place in found)
            raise RepositoryError(f"model {name!r} is there {len(found)} times ({names}): rename or remove all but one")
        return _bare_entry(found[0], name) if found[0].is_file() else _entry(found[0].parent, name)

    def has(self, name: str) -> bool:
        """Whether there is a model of that name, whole or not."""
        return bool(MODEL_NAME.fullmatch(name)) and any(self._places(name))

    def _places(self, name: str) -> Iterator[Path]:
        """Yield each folder and each bare file that is the model `name`."""
        for root in self._roots:
            if root.is_file():
                if model_name(root.name) == name:
                    yield root
                continue
            candidates = (root / name, *(root / f"{name}{suffix}" for suffix in FOLDER_SUFFIXES))
            yield from (each for each in candidates if (each.is_dir() if each.name == name else each.is_file()))

    def scan(self) -> Scan:
        """Return every model and every problem. Other files, hidden ones and `__pycache__` are skipped silently."""
        entries: list[ModelEntry] = []
        problems: list[str] = []
        passed_over: list[str] = []
        broken: set[str] = set()
        empty: set[str] = set()
        names: set[str] = set()
        for root in self._roots:
            with readable(f"model repository {root.name!r}"):
                found = map(_name_of, root.iterdir()) if root.is_dir() else [model_name(root.name)]
                names.update(name for name in found if name)
        for name in sorted(names):
            if not MODEL_NAME.fullmatch(name):
                passed_over.append(
                    f"{name!r} is passed over, since it cannot be a model's name: letters, digits, '_', '-' and '.', "
                    "at most 128"
                )
                continue
            try:
                entries.append(self.model(name))
            except NoModelError as error:
                passed_over.append(f"{name!r} is passed over: {error}")
                empty.add(name)
            except RepositoryError as error:
                problems.append(str(error))
                broken.add(name)
        return Scan(tuple(entries), tuple(problems), frozenset(broken), tuple(passed_over), frozenset(empty))

    def say_missing(self, name: str) -> str:
        """Return a line for the operator about a model that is not there: the models that are, and the likely one."""
        scan = self.scan()
        names = sorted({entry.name for entry in scan.models} | scan.broken)
        if not names:
            return self.say_empty()
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        near = difflib.get_close_matches(name, names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"no model {name[:MAX_SHOWN]!r} in the repository; it has {', '.join(names[:MAX_NAMED])}{more}{hint}"

    def say_empty(self) -> str:
        """Return a line for the operator that says what was found instead of models, and where models belong."""
        with readable("the model repository"):
            paths = sorted(path for root in self._roots if root.is_dir() for path in root.iterdir())
        names = [f"{path.name}/" if path.is_dir() else path.name for path in paths]
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        found = f"it holds {', '.join(names[:MAX_NAMED])}{more}, and no model" if names else "it is empty"
        where = ", ".join(repr(str(root)) for root in self._roots)
        return f"no model in {where}: {found}; put NAME.onnx or NAME/1/model.onnx there"


def check_part(model: str, part: str) -> None:
    """Raise RepositoryError unless `part`, of a path below the folder of `model`, is the name of a file or a folder."""
    if part in ("", ".", "..") or part != PurePosixPath(part).name or "\\" in part or "\0" in part:
        raise RepositoryError(f"{model}: {part[:MAX_SHOWN]!r} is no plain file name: leave out folders")
    if len(os.fsencode(part)) > MAX_NAME_BYTES:
        raise RepositoryError(f"{model}: a file name of more than {MAX_NAME_BYTES} bytes: shorten it")


def _no_repository(path: Path) -> str:
    """Return why a path is no repository, for the operator: with the likely path."""
    where, kinds = str(path.absolute()), ", ".join(FILE_SUFFIXES)
    near = near_file(path.absolute(), FILE_SUFFIXES)
    if path.exists():
        return f"model repository {where!r} is neither a folder nor a model file, whose name ends in {kinds}{near}"
    wanted = f"name a folder of models, or a model file ({kinds})"
    return f"model repository {where!r} does not exist: {wanted}{near}"


def _name_of(path: Path) -> str | None:
    """Return the name of the model that a folder or a file of a repository may be; None if it is none."""
    if path.name.startswith(".") or path.name == "__pycache__":
        return None
    if path.is_dir():
        return path.name
    return model_name(path.name, FOLDER_SUFFIXES) if path.is_file() else None


def _bare_entry(path: Path, name: str) -> ModelEntry:
    root = path.parent.resolve()
    _check_inside(path, root, path.name)
    return ModelEntry(name, root / path.name, (int(BARE_VERSION),), root, is_bare=True)


def _entry(root: Path, name: str) -> ModelEntry:
    path = root / name
    _check_inside(path, root, name)
    versions: list[int] = []
    others: list[str] = []
    with readable(name):
        inner = list(path.iterdir())
        for folder in inner:
            if MAY_BE_VERSION.match(folder.name) is None or not folder.is_dir():
                continue
            _check_inside(folder, root, f"{name}/{folder.name}")
            if VERSION_NAME.fullmatch(folder.name) and int(folder.name) <= MAX_VERSION:
                versions.append(int(folder.name))
            else:
                others.append(folder.name)
    passed_over = tuple(f"{name}/{other[:MAX_SHOWN]} {_NO_VERSION}" for other in sorted(others))
    if not versions and not (path / CONFIG_NAME).exists():
        if passed_over:
            raise RepositoryError(f"{passed_over[0]}: rename the folder")
        is_meant = any(file.name.startswith(_MODEL_FILE) for file in inner)
        if VERSION_NAME.fullmatch(name) and (is_meant or (root / CONFIG_NAME).exists()):
            raise RepositoryError(
                f"{root.name}/{name} is a version of a model, so {root.name!r} is a model and no repository: name the "
                f"folder that holds {root.name!r}"
            )
        kind = RepositoryError if is_meant else NoModelError
        raise kind(f"{name}: no {CONFIG_NAME} and no version folder: {_first_version(name, inner)}")
    return ModelEntry(name, path, tuple(sorted(versions)), root, passed_over)


def _first_version(name: str, inner: Sequence[Path]) -> str:
    """Return how a folder without versions gets one: by the file or the folder that is there."""
    for path in sorted(inner):
        if path.name.startswith(_MODEL_FILE):
            shown = path.name[:MAX_SHOWN]
            return f"move {name}/{shown} to {name}/1/{shown}"
        number = path.name.lower().removeprefix("version").removeprefix("v").strip("_-.")
        if VERSION_NAME.fullmatch(number):
            return f"rename {name}/{path.name[:MAX_SHOWN]} to {name}/{number}"
    return f"put the model file in {name}/1"


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Turn errors of the file system into RepositoryError."""
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
