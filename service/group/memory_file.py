"""Memory that the processes of a group share: a file without a name, mapped by each of them.

The engine process makes one for each model version and one for counts, and sends their descriptors.

Thread: any. A file cannot shrink or grow once it is made: no process can pull memory from under another one.
"""

import contextlib
import fcntl
import mmap
import os


class MemoryFile:
    """A file in memory that has no name, mapped for reading and writing. Made by `create` or `attach`.

    Attributes:
        fd: its descriptor, to send to another process; closed by `close`.
        memory: all of it.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, os.fstat(fd).st_size)
        self.memory = memoryview(self._map)

    @classmethod
    def create(cls, name: str, nbytes: int) -> "MemoryFile":
        """Make a file full of zeros, whose memory is taken on first use. Raises OSError."""
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, nbytes)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def attach(cls, fd: int) -> "MemoryFile":
        """Map a file whose descriptor has come from another process, and own the descriptor.

        Raises OSError, and has closed the descriptor then.
        """
        try:
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    def empty(self) -> None:
        """Give its memory back to the system at once; every view of it, in any process, reads zeros from now on."""
        with contextlib.suppress(OSError):  # memory that is locked stays until the last view has gone
            self._map.madvise(mmap.MADV_REMOVE)

    def close(self) -> None:
        """Give it up. Views of its memory keep the memory, and nothing else does. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            with contextlib.suppress(BufferError):  # there are views: the last one unmaps it
                self.memory.release()
                self._map.close()
