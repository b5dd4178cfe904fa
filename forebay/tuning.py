"""Tune this process for large frames. A library must not change its user's process unasked: call it yourself.

It pays in a process that receives large messages (a server, or a client that asks for raw tensors); a client that only
sends frames gains little (docs/client.md).
"""

import ctypes
import os
import sys
from dataclasses import dataclass

EXPERIMENTS = "-event_engine_client,-event_engine_listener,-event_engine_callback_cq"
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD, _M_TOP_PAD = -3, -1, -2  # malloc.h


@dataclass(frozen=True, slots=True)
class Tuning:
    """The settings that `tune_process` could apply.

    Attributes:
        has_polling: gRPC will do its socket work in the waiting thread. False: gRPC was imported before.
        has_allocator: glibc keeps large buffers instead of returning them to the kernel after every frame.
    """

    has_polling: bool
    has_allocator: bool


_done: Tuning | None = None


def tune_process() -> Tuning:
    """Set the variables that gRPC and glibc read. Call it first in `main`, before any import of grpc. Idempotent.

    The function leaves an existing GRPC_EXPERIMENTS unchanged. Raises nothing: the returned value tells which settings
    apply.
    """
    global _done  # noqa: PLW0603  # the settings apply to the whole process, and so does this flag
    if _done is None:
        has_polling = (
            "grpc" not in sys.modules and os.environ.setdefault("GRPC_EXPERIMENTS", EXPERIMENTS) == EXPERIMENTS
        )
        _done = Tuning(has_polling=has_polling, has_allocator=_tune_allocator())
    return _done


def _tune_allocator() -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    wanted = ((_M_MMAP_THRESHOLD, 1 << 25), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 1 << 26))
    return all(mallopt(parameter, value) == 1 for parameter, value in wanted)
