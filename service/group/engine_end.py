"""Whether the engine process is about to end, as its parent finds out before the kernel reports the end.

A front-end process ends as soon as the engine process's sockets are closed. The kernel closes them early in the end of
a process and reports the end last, after it has freed the memory, which takes seconds with a GPU. So a parent may see
the front-end processes end first, and would start them anew for nothing.

Thread: the main thread.
"""

import socket
from pathlib import Path

_EXITING = 0x4  # PF_EXITING of linux/sched.h, in the flags of proc(5)'s stat
_FLAGS = 6  # position in stat, behind the name in parentheses


def is_ending(pid: int) -> bool:
    """Whether the kernel is ending a process, or has ended it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it was waited for; or the system has no such file, and the socket alone is left
        return Path("/proc/self/stat").exists()
    return fields[0] in "ZX" or bool(int(fields[_FLAGS]) & _EXITING)


def has_hung_up(control: socket.socket) -> bool:
    """Whether the engine process has closed its end of a socket to which it sends nothing: it ends itself."""
    try:
        return not control.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
