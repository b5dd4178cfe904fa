"""Process tuning for gRPC with large messages. Call `tune_process` before anything imports grpc.

The settings and their reasons (docs/benchmarks.md, docs/adr/0006-front-end.md):
- gRPC's event-engine experiments off: the completion-queue thread does the socket work itself instead of handing it
  over; about half the CPU per message.
- gRPC's own log at ERROR. At INFO, its default, it prints the text of a client's GOAWAY unescaped: escape sequences of
  terminals, forged log lines, and tens of megabytes a second.
- glibc malloc keeps freed memory up to 2 GiB and serves blocks below 32 MiB from the heap: receiving 602 KB messages
  costs five times less CPU, because pages are not returned and faulted in again for every message. The memory of a
  burst is returned later (`free_memory`).
- One heap for all threads: with one for each thread, kept memory exists several times, as threads alternate (3,000
  abandoned streams of 64 KB frames: 98 to 105 MB with one, 105 to 145 MB without).
- A thread switch interval of 0.5 ms: a busy Python thread delays the others by that much instead of 5 ms. A shorter
  interval makes the threads of the data path interrupt each other: 0.1 ms costs a sixth more CPU per frame
  (docs/adr/0050).
"""

import ctypes
import importlib.metadata
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

GRPC_EXPERIMENTS = "-event_engine_client,-event_engine_listener,-event_engine_callback_cq"
GRPC_VERBOSITY = "ERROR"
TESTED_GRPC_VERSION = "1.85.1"  # experiments come and go with releases
SWITCH_INTERVAL_S = 5e-4
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8  # from glibc's malloc.h
_MALLOC_OPTIONS = (
    (_M_MMAP_THRESHOLD, 1 << 25),
    (_M_TRIM_THRESHOLD, 2**31 - 1),
    (_M_TOP_PAD, 1 << 26),
    (_M_ARENA_MAX, 1),
)


@dataclass(frozen=True, slots=True)
class Tuning:
    """The settings that took effect.

    Attributes:
        grpc_experiments: gRPC was configured before its import, and is the measured release.
        malloc: every option was accepted (glibc only).
        switch_interval: the interpreter reports the value that was set.
    """

    grpc_experiments: bool
    malloc: bool
    switch_interval: bool

    @property
    def missing(self) -> list[str]:
        """The settings without effect, for one warning at start-up."""
        return [name for name, is_on in asdict(self).items() if not is_on]


def tune_process() -> Tuning:
    """Apply the tuning to this process and report the settings that took effect.

    Thread: main, before any other work.
    """
    is_early = "grpc" not in sys.modules
    value = os.environ.setdefault("GRPC_EXPERIMENTS", GRPC_EXPERIMENTS)
    os.environ.setdefault("GRPC_VERBOSITY", GRPC_VERBOSITY)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    return Tuning(
        grpc_experiments=is_early
        and value == GRPC_EXPERIMENTS
        and importlib.metadata.version("grpcio") == TESTED_GRPC_VERSION,
        malloc=_tune_malloc(),
        switch_interval=abs(sys.getswitchinterval() - SWITCH_INTERVAL_S) < SWITCH_INTERVAL_S / 100,
    )


def _tune_malloc() -> bool:
    mallopt = _of_libc("mallopt")
    if mallopt is None:
        return False
    accepted = [mallopt(option, value) == 1 for option, value in _MALLOC_OPTIONS]
    return all(accepted)


def give_free_memory_back() -> None:
    """Return freed memory to the operating system, where libc is glibc. Thread: any.

    All allocating threads wait meanwhile: 1 to 2 ms after a model was read, 5 ms for every 100 MB kept.

    Call it after a short peak, such as reading a model, and before buffers are allocated: otherwise the buffers would
    lie in the freed memory, resident for ever although never written.
    """
    malloc_trim = _of_libc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


_MALLINFO2 = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"  # from glibc's malloc.h


class _Mallinfo2(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_size_t) for name in _MALLINFO2.split())


def allocated_bytes() -> int | None:
    """Return the bytes that `malloc` has given out; None where libc does not report them. Thread: any.

    Walks the free blocks: some microseconds, while all allocating threads wait.
    """
    mallinfo2 = _of_libc("mallinfo2")  # glibc 2.33
    if mallinfo2 is None:
        return None
    mallinfo2.restype = _Mallinfo2  # type: ignore[attr-defined]  # a function of ctypes
    found: Any = mallinfo2()
    return int(found.uordblks + found.hblkhd)


def _of_libc(name: str) -> Callable[..., int] | None:
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None  # not glibc
    return function
