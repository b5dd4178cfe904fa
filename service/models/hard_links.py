"""Hard links made by other users: the one way to expose another user's file that no path shows.

A user who may write into a repository can link a file there that the server may read and the user may not, as weights
or labels, and ask the model for its content. `repository` checks the targets of symbolic links, and ONNX Runtime those
of external weights; the kernel restricts hard links (fs.protected_hardlinks), but not on every file system, nor in
every container.

A hard link alone is harmless: package managers, ostree and `rsync --link-dest` make thousands of them. So a file with
several names is refused only if it does not belong to the owner of its folder.
"""

import os
import stat
from pathlib import Path


def is_foreign(file: os.stat_result, folder: os.stat_result) -> bool:
    """Whether a file has other names, and another owner than its folder."""
    return stat.S_ISREG(file.st_mode) and file.st_nlink > 1 and file.st_uid != folder.st_uid


def foreign_link(path: Path) -> Path | None:
    """Return `path`, or the first file below it, that is a hard link to another user's file. Raises OSError."""
    for found in (path, *path.rglob("*")) if path.is_dir() else (path,):
        if found.is_file():
            resolved = found.resolve()
            if is_foreign(resolved.stat(), resolved.parent.stat()):
                return found
    return None
