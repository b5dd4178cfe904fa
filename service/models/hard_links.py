"""Hard links that somebody else made: the one way to have a file of another user read that no path shows.

Who may write into a repository can link a file there that the server may read and they may not, as weights or labels,
and ask the model for it. Where other links point is checked by `repository`, and by ONNX Runtime for external weights;
hard links are the kernel's business (fs.protected_hardlinks), but not on every file system, nor in every container.

A hard link alone is nothing bad: package managers, ostree and `rsync --link-dest` make them by the thousand. So a file
with several names counts only if it does not belong to the owner of the folder that it lies in.
"""

import os
import stat
from pathlib import Path


def is_foreign(file: os.stat_result, folder: os.stat_result) -> bool:
    """Whether a file has other names, and another owner than its folder."""
    return stat.S_ISREG(file.st_mode) and file.st_nlink > 1 and file.st_uid != folder.st_uid


def foreign_link(path: Path) -> Path | None:
    """Return `path`, or the first file below it, that is another user's by a hard link. Raises OSError."""
    for found in (path, *path.rglob("*")) if path.is_dir() else (path,):
        if found.is_file():
            resolved = found.resolve()
            if is_foreign(resolved.stat(), resolved.parent.stat()):
                return found
    return None
