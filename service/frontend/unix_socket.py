"""The place of a unix socket: a folder of its own, no socket of a server that still answers, mode 0660.

gRPC removes any socket at the path before it binds, even one of a running server; hence the check here.
"""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER_MODE = 0o750
SOCKET_UMASK = 0o117  # 0660 from the first moment on
MAX_PATH_BYTES = 107  # sun_path, without its final zero
_CONNECT_TIMEOUT_S = 1.0


class SocketPathError(Exception):
    """The path cannot be listened on; one line."""


@contextmanager
def socket_place(path: Path) -> Iterator[None]:
    """Make sure that a socket may be bound at `path`; bind it inside the block.

    Raises:
        SocketPathError: a server answers there, another file is there, or the folder cannot be made.
    """
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise SocketPathError(f"unix socket {path}: the path is longer than {MAX_PATH_BYTES} bytes; use a shorter one")
    try:
        _make_folder(path.parent)
        _clear(path)
    except OSError as error:
        raise SocketPathError(f"unix socket {path}: {error.strerror}; check the folder and its mode") from None
    old = os.umask(SOCKET_UMASK)
    try:
        yield
    finally:
        os.umask(old)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True)
        folder.chmod(FOLDER_MODE)  # independent of the umask


def _clear(path: Path) -> None:
    """Remove a socket without a listener."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketPathError(f"unix socket {path}: something else lies there; remove it or give another --uds")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_TIMEOUT_S)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except TimeoutError:
            pass  # its queue is full: a server is there
    raise SocketPathError(f"unix socket {path}: a server answers there; stop it or give another --uds")
