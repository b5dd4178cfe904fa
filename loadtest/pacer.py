"""Fires callbacks at times fixed beforehand, on the event loop, to a tenth of a millisecond.

Event-loop timers round up to a millisecond, which would show up in every latency. `TimerfdPacer` lets the kernel
wake the loop at an absolute instant of CLOCK_MONOTONIC instead. Owner: the event loop's thread.
"""

import asyncio
import ctypes
import os
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from forebay_server.loadtest.clock import Clock
from forebay_server.loadtest.errors import InvalidRunError

_TFD_NONBLOCK = os.O_NONBLOCK
_TFD_CLOEXEC = os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1


class Pacer(Protocol):
    """Runs a schedule: one callback per entry, never before its time."""

    async def run(self, schedule: Iterator[tuple[int, int, int]], start_ns: int, fire: "Fire") -> None:
        """Call `fire(intended_ns, stream, frame)` for each entry, whose times are relative to `start_ns`."""
        ...

    def stop(self) -> None:
        """Let `run` return without firing the rest."""
        ...


Fire = Callable[[int, int, int], None]


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class Timerfd:
    """A one-shot kernel timer on CLOCK_MONOTONIC (timerfd_create(2)); os.timerfd_create needs Python 3.13."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._libc.timerfd_create(time.CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self.fd < 0:
            raise InvalidRunError(f"timerfd_create failed: {os.strerror(ctypes.get_errno())}")

    def arm(self, at_ns: int) -> None:
        """Make `fd` readable at the absolute time `at_ns`; at once if that has passed."""
        seconds, nanoseconds = divmod(max(at_ns, 1), 1_000_000_000)
        spec = _Itimerspec(_Timespec(0, 0), _Timespec(seconds, nanoseconds))
        if self._libc.timerfd_settime(self.fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None) != 0:
            raise InvalidRunError(f"timerfd_settime failed: {os.strerror(ctypes.get_errno())}")

    def acknowledge(self) -> None:
        """Make `fd` unreadable until the next expiry."""
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            return

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)


class Schedule:
    """Fires what is due and says when the next entry is."""

    def __init__(self, entries: Iterator[tuple[int, int, int]], start_ns: int, fire: Fire) -> None:
        self._entries = entries
        self._start_ns = start_ns
        self._fire = fire
        self._next = next(entries, None)

    def fire_due(self, clock: Clock) -> int | None:
        """Fire all entries that are due; return the absolute time of the next one, None after the last."""
        while self._next is not None:
            due_ns = self._start_ns + self._next[0]
            if due_ns > clock.now_ns():
                return due_ns
            self._fire(*self._next)
            self._next = next(self._entries, None)
        return None


class TimerfdPacer:
    """Paces by a kernel timer. One run at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._done: asyncio.Future[None] | None = None

    async def run(self, schedule: Iterator[tuple[int, int, int]], start_ns: int, fire: Fire) -> None:
        """See Pacer."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._done = done
        pending = Schedule(schedule, start_ns, fire)
        timer = Timerfd()

        def on_expiry() -> None:
            timer.acknowledge()
            try:
                next_ns = pending.fire_due(self._clock)
            except Exception as error:  # noqa: BLE001  # a bug in the generator must end the run, not the loop
                if not done.done():
                    done.set_exception(error)
                return
            if next_ns is not None:
                timer.arm(next_ns)
            elif not done.done():
                done.set_result(None)

        loop.add_reader(timer.fd, on_expiry)
        try:
            timer.arm(start_ns)
            await done
        finally:
            loop.remove_reader(timer.fd)
            timer.close()
            self._done = None

    def stop(self) -> None:
        """See Pacer."""
        if self._done is not None and not self._done.done():
            self._done.set_result(None)
