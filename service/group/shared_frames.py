"""Requests of other processes: where their inputs lie, and where their outputs go.

A frame here belongs to a link, the connection of one front-end process, and to a token of it. Its memory is the
front-end process's: to release it marks only that the inputs have been read. The answer gives the memory back.

Thread: one at a time, as `service.request.FrameBuffer`.
"""

import os
import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from forebay_server.engines.device import HostBuffer
from forebay_server.service.errors import InvariantError
from forebay_server.service.pipeline.unbound import ArraysFrame, Inputs

if TYPE_CHECKING:
    from forebay_server.service.group.front_end_link import FrontEndLink


class SharedFrame:
    """Inputs in the memory file of a version.

    Attributes:
        link: of the front-end process.
        token: of the request there.
        host: memory that the inputs are in.
        offsets: of each input in `host`.
        output_offset: of the place for its outputs in the memory file.
        is_released: whether its inputs have been read.
    """

    __slots__ = ("host", "is_released", "link", "offsets", "output_offset", "token")

    def __init__(
        self, link: "FrontEndLink", token: int, host: HostBuffer, offsets: tuple[int, ...], output_offset: int
    ) -> None:
        self.link = link
        self.token = token
        self.host = host
        self.offsets = offsets
        self.output_offset = output_offset
        self.is_released = False

    def release(self) -> None:
        """Mark that the inputs have been read. Idempotent."""
        self.is_released = True

    def end(self) -> None:
        """There is nothing to close."""


class SharedArrays(ArraysFrame):
    """Inputs of varying shapes, pickled in a file of the request, where the outputs go as well.

    Attributes:
        link: of the front-end process.
        token: of the request there.
        is_released: whether its inputs have been read.
    """

    __slots__ = ("_fd", "_skip", "is_released", "link", "token")

    def __init__(self, link: "FrontEndLink", token: int, fd: int, skip: int) -> None:
        self.link = link
        self.token = token
        self.is_released = False
        self._fd = fd
        self._skip = skip

    def batch_key(self) -> bytes:
        """Return what stands before the inputs. Raises OSError."""
        return os.pread(self._fd, self._skip, 0)

    @property
    def host(self) -> HostBuffer:
        """There is none."""
        raise InvariantError("an unbound request lies in no buffer")

    @property
    def offsets(self) -> tuple[int, ...]:
        """There are none."""
        return ()

    @property
    def arrays(self) -> Inputs:
        """The inputs, read now."""
        data = os.pread(self._fd, os.fstat(self._fd).st_size - self._skip, self._skip)
        arrays: Inputs = pickle.loads(data)  # noqa: S301 - from a process of this server
        return arrays

    def write(self, outputs: Sequence[NDArray[Any]]) -> None:
        """Put the outputs in the place of the inputs. Raises OSError."""
        data = memoryview(pickle.dumps(tuple(outputs), pickle.HIGHEST_PROTOCOL))
        os.ftruncate(self._fd, len(data))
        written = 0
        while written < len(data):
            written += os.pwrite(self._fd, data[written:], written)

    def release(self) -> None:
        """Mark that the inputs have been read. Idempotent."""
        self.is_released = True

    def end(self) -> None:
        """Close the file, whose other descriptor the front-end process has. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
