"""The file that a request of varying shapes brings to the engine process: its inputs, and later its outputs.

Nothing of such a request has a fixed size, so that it has no place in the memory file of its version. The file has no
name and lives until the request is answered.

Thread: any.
"""

import os
import pickle
from typing import NamedTuple

from forebay_server.service.errors import InvariantError
from forebay_server.service.pipeline.unbound import UnboundFrame
from forebay_server.service.request import OutputArrays, Request


class InputsFile(NamedTuple):
    """A memory file with the inputs of a request whose shapes vary; its outputs come back in it.

    Attributes:
        fd: the descriptor.
        key_bytes: size of its batch key, which comes first.
    """

    fd: int
    key_bytes: int


def file_of(request: Request) -> InputsFile:
    """Return a file with the inputs of a request whose shapes vary. Raises OSError."""
    frame = request.frame
    if not isinstance(frame, UnboundFrame):
        raise InvariantError("a request of varying shapes that holds no arrays")
    key = repr(request.batch_key).encode()
    file = os.memfd_create("request", os.MFD_CLOEXEC)
    try:
        with open(file, "wb", closefd=False) as stream:
            stream.write(key)
            pickle.dump(frame.arrays, stream, protocol=5)
    except BaseException:
        os.close(file)
        raise
    return InputsFile(file, len(key))


def outputs_in(fd: int) -> OutputArrays:
    """Return the outputs of a request that was answered. Raises OSError."""
    outputs: OutputArrays = pickle.loads(os.pread(fd, os.fstat(fd).st_size, 0))  # noqa: S301 - of our own process
    return outputs
