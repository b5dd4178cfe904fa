"""Descriptors to write to that cannot be written: no reader, a slow one, a full disk, none at all."""

import contextlib
import os

KINDS = ("closed", "full disk", "reader gone", "reader takes nothing")


def fill(descriptor):
    """Fill a pipe without a reader; return the number of bytes that it took."""
    os.set_blocking(descriptor, False)
    count = 0
    try:
        while True:
            count += os.write(descriptor, bytes(4096))
    except BlockingIOError:
        return count
    finally:
        os.set_blocking(descriptor, True)


@contextlib.contextmanager
def broken(kind):
    """A descriptor of this kind for a child process; None stands for one that is closed."""
    if kind == "closed":
        yield None
        return
    reader = None
    if kind == "full disk":
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, descriptor = os.pipe()
        if kind == "reader gone":
            os.close(reader)
            reader = None
        else:
            fill(descriptor)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
        if reader is not None:
            os.close(reader)
