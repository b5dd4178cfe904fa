"""Process tuning for gRPC with large messages. Call `tune_process` before anything imports grpc.

What and why (docs/benchmarks.md, docs/adr/0006-front-end.md):
- gRPC's event-engine experiments off: the completion-queue thread does the socket work itself instead of handing it
  over; about half the CPU per message.
- gRPC's own log at ERROR. At INFO, its default, it prints the text of a client's GOAWAY as it came: escape sequences of
  terminals, lines that look like ours, and tens of megabytes a second.
- glibc malloc keeps freed memory up to 2 GiB and serves blocks below 32 MiB from the heap: receiving 602 KB messages
  costs five times less CPU, since pages are not given back and faulted in again for every message. What a burst left
  is given back later (`free_memory`).
- One heap for all threads: with one for each, memory that is kept is kept several times over, as threads take turns
  (3,000 abandoned streams of 64 KB frames: 98 to 105 MB with one, 105 to 145 MB without).
- A thread switch interval of 0.5 ms: a busy Python thread delays the others by that much instead of 5 ms. Shorter ones
  make the threads of a frame's way interrupt each other: 0.1 ms costs a sixth more CPU per frame (docs/adr/0050).
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
    """What took effect.

    Attributes:
        grpc_experiments: gRPC was told before it was imported, and is the release that was measured.
        malloc: every option was accepted (glibc only).
        switch_interval: the interpreter reports the value that was set.
    """

    grpc_experiments: bool
    malloc: bool
    switch_interval: bool

    @property
    def missing(self) -> list[str]:
        """What did not take effect, for one warning at start-up."""
        return [name for name, is_on in asdict(self).items() if not is_on]


def tune_process() -> Tuning:
    """Apply the tuning to this process and report what took effect. Thread: main, first thing."""
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
    """Return what `free` kept to the operating system, where libc is glibc. Thread: any.

    Everybody who allocates waits meanwhile: 1 to 2 ms after a model was read, 5 ms for every 100 MB that were kept.

    For after something that took much for a moment, such as reading a model, and before buffers are allocated: they
    would lie in what it left, resident for ever, though nobody has written to them.
    """
    malloc_trim = _of_libc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


_MALLINFO2 = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"  # from glibc's malloc.h


class _Mallinfo2(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_size_t) for name in _MALLINFO2.split())


def allocated_bytes() -> int | None:
    """Return what `malloc` has given out and not taken back; None where libc does not say. Thread: any.

    Walks what is free: some microseconds, while everybody who allocates waits.
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
