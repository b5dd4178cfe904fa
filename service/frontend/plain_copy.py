"""Dense inputs into a frame buffer. Thread: the event loop's or a worker's; the caller has the lease."""

from collections.abc import Iterable

import numpy as np

from forebay_server.service.request import FrameBuffer

HELD_BYTES = 1 << 20
"""Copies up to this size keep the interpreter's lock, about 0.1 ms. If it were released, a busy thread would take it,
and getting it back can take as long as the switch interval (docs/adr/0050)."""


def copy_into(frame: FrameBuffer, inputs: Iterable[bytes | memoryview]) -> None:
    """Copy `inputs`, bytes in the model's order, each to its place in the buffer."""
    target = frame.host.write_view()
    for source, offset in zip(inputs, frame.offsets, strict=True):
        end = offset + len(source)
        if len(source) <= HELD_BYTES:
            target.data[offset:end] = source
        else:
            target[offset:end] = np.frombuffer(source, np.uint8)
