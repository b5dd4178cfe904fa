"""Makes gRPC cheap in a process that has not imported it yet; call before the first import of loadtest.client.

Measured on 2 cores: without gRPC's event engine the completion-queue thread does the socket work itself, which
saves 65 to 75 us per lone message; raised malloc thresholds save the page faults of frames above 128 KB. Both are
set only in the generator's own processes, never in a process that merely imports this package.
"""

import ctypes
import os

_EXPERIMENTS_OFF = "-event_engine_client,-event_engine_listener,-event_engine_callback_cq"
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h


def tune_process() -> None:
    """Set gRPC's experiments and glibc's malloc thresholds; does nothing where glibc is not the C library."""
    os.environ.setdefault("GRPC_EXPERIMENTS", _EXPERIMENTS_OFF)
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 25)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_TOP_PAD, 1 << 26)
