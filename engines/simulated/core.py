"""The shared state of one simulated device's handles: its lock, its clocks, its faults, and its open handles.

Methods marked "With the lock held" are called with `lock` held. Host threads count as one actor: that is sound because
they hand slots and buffers over through channels, which order them; the slot table checks conflicts between host
threads. Devices of one `Machine` share that actor, and the lock.
"""

import threading
from dataclasses import dataclass
from typing import TypeVar

from forebay_server.engines.clock import Clock
from forebay_server.engines.errors import DeviceLostError, EngineError, MisuseError, RaceError
from forebay_server.engines.simulated.access_log import Access, AccessLog
from forebay_server.engines.simulated.fault_plan import Fault, FaultCounter, FaultPlan
from forebay_server.engines.simulated.schedule import Point, Schedule
from forebay_server.engines.simulated.vector_clock import Epoch, VectorClock

HOST = 0
"""The actor that represents all host threads together."""


@dataclass(frozen=True, slots=True)
class CopyCosts:
    """Cost of a copy in device time; an execution has its own. The default is free copies.

    Attributes:
        copy_latency_ns: of every copy.
        h2d_bytes_per_s: 0 for no limit.
        d2h_bytes_per_s: 0 for no limit.
    """

    copy_latency_ns: int = 0
    h2d_bytes_per_s: float = 0.0
    d2h_bytes_per_s: float = 0.0

    def copy_ns(self, verb: str, nbytes: int) -> int:
        """Return the cost of copying `nbytes` bytes; `verb` is copy_h2d or copy_d2h."""
        rate = self.h2d_bytes_per_s if verb == "copy_h2d" else self.d2h_bytes_per_s
        return self.copy_latency_ns + (round(nbytes / rate * 1e9) if rate else 0)


class Machine:
    """Shared state of one machine's simulated devices: the host, the names of all actors, the races, and the lock."""

    def __init__(self, device_count: int = 1) -> None:
        self.device_count = device_count
        self.lock = threading.Condition()
        self.host = VectorClock()
        self.races: list[RaceError] = []
        self.actor_names = ["host"]
        self.selected = threading.local()


class Core:
    """See the module. Thread: any, under `lock`."""

    def __init__(self, clock: Clock, cost: CopyCosts, faults: FaultPlan, machine: Machine) -> None:
        self.clock = clock
        self.cost = cost
        self.machine = machine
        self.lock = machine.lock
        self.schedule = Schedule()
        self.open_handles: dict[int, str] = {}
        self.device_bytes = 0  # of open device buffers
        self.exclusive: dict[str, AccessLog] = {}
        self.lost: DeviceLostError | None = None
        self._faults = FaultCounter(faults)
        self._next_handle = 0

    def attach_thread(self) -> None:
        """Let the calling thread use the device, and no other of the machine."""
        self.machine.selected.core = self

    def arm(self, faults: FaultPlan) -> None:
        """Replace the fault plan; operations are numbered from here. With the lock held."""
        self._faults = FaultCounter(faults)

    def add_actor(self, name: str) -> int:
        """Return the number of a new device stream. With the lock held."""
        self.machine.actor_names.append(name)
        return len(self.machine.actor_names) - 1

    def opened(self, label: str) -> int:
        """Record that a handle is open; return its number. With the lock held."""
        self._next_handle += 1
        self.open_handles[self._next_handle] = f"{label} #{self._next_handle}"
        return self._next_handle

    def begin(self, verb: str) -> Fault:
        """Check that the device can be used, count the operation, raise the planned fault. With the lock held."""
        self.check_usable()
        fault = self._faults.next(verb)
        if fault.error is not None:
            self.raise_fault(fault.error)
        return fault

    def check_usable(self) -> None:
        """Raise DeviceLostError after a loss, MisuseError for a thread that is not attached."""
        self.raise_if_lost()
        if getattr(self.machine.selected, "core", None) is not self:
            raise MisuseError(f"thread {threading.current_thread().name!r} uses a device before attach_thread()")

    def raise_if_lost(self) -> None:
        """Raise DeviceLostError after a loss."""
        if self.lost is not None:
            raise DeviceLostError(str(self.lost))

    def raise_fault(self, error: EngineError) -> None:
        """Raise `error`; a DeviceLostError is from then on the state of the device. With the lock held."""
        if isinstance(error, DeviceLostError):
            self.lose(error)
        raise error

    def lose(self, error: DeviceLostError) -> None:
        """Make every later use fail and wake all waiters. With the lock held."""
        self.lost = error
        self.lock.notify_all()

    def host_access(self, log: AccessLog, nbytes: int, *, is_write: bool, label: str) -> None:
        """The host reads or writes a whole buffer. With the lock held."""
        host = self.machine.host = self.machine.host.tick(HOST)
        epoch = Epoch(HOST, host.count(HOST))
        self.access(log, Access(0, nbytes, is_write, epoch, label), host)

    def access(self, log: AccessLog, access: Access, clock: VectorClock) -> None:
        """Check and record an access by the actor whose clock is `clock`. Raises RaceError. With the lock held."""
        earlier = log.conflict(access, clock)
        if earlier is not None:
            names = self.machine.actor_names
            race = RaceError(
                f"{access.label} by {names[access.epoch.actor]} (bytes {access.start}..{access.end}) is not ordered "
                f"after {earlier.label} by {names[earlier.epoch.actor]} (bytes {earlier.start}..{earlier.end})"
            )
            self.machine.races.append(race)
            raise race
        log.add(access)

    def learn(self, known: VectorClock) -> None:
        """Join `known` into the host's clock after a synchronisation. With the lock held."""
        self.machine.host = self.machine.host.join(known)

    def await_point(self, point: Point) -> None:
        """Block until `point` is reached. Raises DeviceLostError. With the lock held, which is released meanwhile."""
        while not self.is_reached(point):
            self.clock.wait(self.lock, point.done_ns)
            self.check_usable()

    def is_reached(self, point: Point) -> bool:
        """Whether device time has come to `point`. With the lock held."""
        return point.done_ns is not None and point.done_ns <= self.clock.now_ns()


class Handle:
    """An object of a device: it belongs to the device, and is open until it is closed."""

    def __init__(self, core: Core, label: str) -> None:
        self.core = core
        with core.lock:
            self._number = core.opened(label)
            self.label = core.open_handles[self._number]

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._number not in self.core.open_handles

    def check_open(self) -> None:
        """Raise MisuseError after `close`."""
        if self.is_closed:
            raise MisuseError(f"{self.label} used after close")

    def forget(self) -> None:
        """Mark as closed. With the lock held."""
        self.core.open_handles.pop(self._number, None)


_H = TypeVar("_H", bound=Handle)


def own(core: Core, kind: type[_H], handle: object) -> _H:
    """Return `handle` if it is an open `kind` of this device. Raises MisuseError otherwise."""
    if not isinstance(handle, kind) or handle.core is not core:
        raise MisuseError(f"{type(handle).__name__} belongs to another device than this simulated one")
    handle.check_open()
    return handle
