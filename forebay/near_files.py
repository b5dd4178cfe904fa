"""The file that a user may have meant where the named one is not there: for messages of commands. Reads folders only.

Not for messages that clients may see: names of files beside the wanted one are the operator's.
"""

import difflib
import os
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

_MOST_ENTRIES = 10_000  # of a folder that are looked at: a message must not take seconds
_MOST_NAMED = 3


def near_file(path: Path | str, suffixes: Collection[str] = ()) -> str:
    """Return words to put after "PATH does not exist": the missing folder, the likely name; empty if there is none.

    Args:
        path: is not there.
        suffixes: of files of the wanted kind, such as ".onnx"; folders are of every kind.
    """
    wanted = Path(path)
    if not wanted.name:
        return ""
    try:
        folder, missing = _first_missing(wanted)
        entries = [entry for entry in _entries(folder) if missing == wanted.name or entry.is_dir()]
        lost = "" if missing == wanted.name and folder == wanted.parent else f"; there is no folder {folder / missing}"
        if close := _closest(missing, [entry.name for entry in entries], suffixes):
            meant = folder.joinpath(close, *wanted.parts[len((folder / missing).parts) :])
            return f"{lost}; did you mean {meant}?"
        if not lost and suffixes:
            return _of_kind(folder, entries, suffixes)
    except OSError:  # a folder that may not be read, a name that no file system takes
        return ""
    return lost


def _first_missing(path: Path) -> tuple[Path, str]:
    """Return the last folder that is there, and the name in it that is not."""
    folder, missing = path.parent, path.name
    while not folder.is_dir() and folder != folder.parent:
        folder, missing = folder.parent, folder.name
    return folder, missing


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        yield from (entry for entry in islice(found, _MOST_ENTRIES) if not entry.name.startswith("."))


def _closest(name: str, names: Collection[str], suffixes: Collection[str]) -> str:
    """Return the name that is most like the wanted one, compared without case and suffix; empty if none is."""
    # Of several with one stem the last counts: the name itself, or else one of the wanted kind.
    in_order = sorted(
        names, key=lambda each: (each.lower() == name.lower(), Path(each).suffix.lower() in suffixes, each)
    )
    stems = {Path(each).stem.lower(): each for each in in_order if each != name}
    near = difflib.get_close_matches(Path(name).stem.lower(), stems, 1)
    return stems[near[0]] if near else ""


def _of_kind(folder: Path, entries: Collection["os.DirEntry[str]"], suffixes: Collection[str]) -> str:
    """Name some files of the wanted kind."""
    names = sorted(entry.name for entry in entries if Path(entry.name).suffix.lower() in suffixes)
    if not names:
        return ""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"; in {folder.absolute()}: {', '.join(names[:_MOST_NAMED])}{more}"
