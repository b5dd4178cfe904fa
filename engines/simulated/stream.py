"""The device stream of the simulated device: checks, costs and effects of enqueued operations.

The effect of an operation on memory takes place when it is enqueued. This is one legal order of execution, because an
event can only be waited for once it is recorded; the checker proves that every other legal order has the same effect.
"""

from collections.abc import Callable, Iterable, Sequence

from forebay_server.engines.device import DeviceBuffer, Event, HostBuffer, Piece
from forebay_server.engines.errors import EngineError
from forebay_server.engines.host_memory import check_range, copy
from forebay_server.engines.simulated.access_log import Access, AccessLog
from forebay_server.engines.simulated.core import Core, Handle, own
from forebay_server.engines.simulated.fault_plan import Fault
from forebay_server.engines.simulated.handles import (
    ByteRange,
    Recorded,
    SimulatedDeviceBuffer,
    SimulatedEvent,
    SimulatedHostBuffer,
    own_host,
)
from forebay_server.engines.simulated.schedule import Point
from forebay_server.engines.simulated.vector_clock import Epoch, VectorClock


class SimulatedStream(Handle):
    """A queue of device work. Besides the contract: `execute` for engines, `hold` and `release` for tests."""

    def __init__(self, core: Core, name: str) -> None:
        super().__init__(core, f"device stream {name!r}")
        self.name = name
        with core.lock:
            self._actor = core.add_actor(name)
            self._queue = core.schedule.queue(name)
        self._known = VectorClock()
        self._tail = Point(done_ns=0)
        self._error: EngineError | None = None

    @property
    def handle(self) -> int:
        """0: there is no vendor's stream."""
        return 0

    def copy_h2d(
        self, dst: DeviceBuffer, src: HostBuffer, nbytes: int, dst_offset: int = 0, src_offset: int = 0
    ) -> None:
        """Enqueue a copy: reads bytes of `src`, writes bytes of `dst`. Raises RaceError."""
        target: SimulatedDeviceBuffer = own(self.core, SimulatedDeviceBuffer, dst)
        self._copy("copy_h2d", target, own_host(self.core, src), nbytes, (dst_offset, src_offset))

    def gather_h2d(self, dst: DeviceBuffer, pieces: Sequence[Piece]) -> None:
        """Enqueue a copy for each; in a fault plan every one is a `copy_h2d`. Raises RaceError."""
        end = 0
        for src, offset, nbytes in pieces:
            self.copy_h2d(dst, src, nbytes, end, offset)
            end += nbytes

    def copy_d2h(self, dst: HostBuffer, src: DeviceBuffer, nbytes: int) -> None:
        """Enqueue a copy: reads bytes of `src`, writes bytes of `dst`. Raises RaceError."""
        source: SimulatedDeviceBuffer = own(self.core, SimulatedDeviceBuffer, src)
        self._copy("copy_d2h", own_host(self.core, dst), source, nbytes, (0, 0))

    def execute(
        self,
        *,
        reads: Sequence[SimulatedDeviceBuffer | ByteRange] = (),
        writes: Sequence[SimulatedDeviceBuffer | ByteRange] = (),
        cost_ns: int = 0,
        run: Callable[[], None] | None = None,
        exclusive: str | None = None,
        label: str = "execute",
    ) -> None:
        """Enqueue one execution of an engine.

        Args:
            reads: ranges that it reads; a buffer stands for all its bytes.
            writes: ranges that it writes.
            cost_ns: its duration in device time.
            run: its effect on `SimulatedDeviceBuffer.memory`.
            exclusive: a name that only ordered executions may share, such as an instance's activation memory.
            label: for messages and the history.

        Raises:
            RaceError: an access is not ordered after an earlier conflicting one.
        """
        accesses = [(_range(self.core, each), False) for each in reads]
        accesses += [(_range(self.core, each), True) for each in writes]
        with self.core.lock:
            fault = self._begin("execute")
            if exclusive is not None:
                log = self.core.exclusive.setdefault(exclusive, AccessLog())
                self._access(log, 0, 1, is_write=True, label=f"{label} in {exclusive}")
            for part, is_write in accesses:
                verb = "write" if is_write else "read"
                text = f"{verb} of {part.buffer.label} in {label}"
                self._access(part.buffer.log, part.offset, part.nbytes, is_write=is_write, label=text)
            self._enqueue(label, cost_ns, fault)
        if run is not None and fault.late_error is None:
            run()

    def record(self, event: Event) -> None:
        """Make `event` this point of the stream; an error of the earlier work goes with it."""
        target: SimulatedEvent = own(self.core, SimulatedEvent, event)
        with self.core.lock:
            self._begin("record")
            point = self._enqueue("record", 0, Fault())
            target.recorded = Recorded(point, self._known, self._error)
            self._error = None

    def wait(self, event: Event) -> None:
        """Order later work of this stream after `event`."""
        source: SimulatedEvent = own(self.core, SimulatedEvent, event)
        with self.core.lock:
            recorded = source.require()
            self._begin("wait")
            self._enqueue("wait", 0, Fault(late_error=recorded.error), recorded.point)
            self._known = self._known.join(recorded.known)

    def capture(self, enqueue: Callable[[], None]) -> None:
        """None: the simulated device has no graphs."""

    def sync(self) -> None:
        """Block until all enqueued work is done; the host is ordered after it then."""
        with self.core.lock:
            self.check_open()
            self.core.begin("sync")
            known, error, self._error = self._known, self._error, None
            self.core.await_point(self._tail)
            self.core.learn(known)
            if error is not None:
                self.core.raise_fault(error)

    def hold(self) -> None:
        """Start nothing more on this stream until `release`, so that a test can rely on work being unfinished."""
        with self.core.lock:
            self.core.schedule.hold(self._queue)

    def release(self) -> None:
        """Let the stream go on, from the current time."""
        with self.core.lock:
            self.core.schedule.release(self._queue, self.core.clock.now_ns())
            self.core.lock.notify_all()

    def close(self) -> None:
        """Free it after its work is done (at once if the device is lost). Idempotent."""
        with self.core.lock:
            if self.is_closed:
                return
            if self.core.lost is None:
                self.core.await_point(self._tail)
                self.core.learn(self._known)
            self.core.schedule.remove(self._queue)
            self.forget()

    def _copy(
        self,
        verb: str,
        dst: SimulatedDeviceBuffer | SimulatedHostBuffer,
        src: SimulatedDeviceBuffer | SimulatedHostBuffer,
        nbytes: int,
        offsets: tuple[int, int],
    ) -> None:
        dst_offset, src_offset = offsets
        check_range(f"{verb} to {dst.label}", dst.nbytes, dst_offset, nbytes)
        check_range(f"{verb} from {src.label}", src.nbytes, src_offset, nbytes)
        with self.core.lock:
            fault = self._begin(verb)
            self._access(src.log, src_offset, nbytes, is_write=False, label=f"{verb} from {src.label}")
            self._access(dst.log, dst_offset, nbytes, is_write=True, label=f"{verb} to {dst.label}")
            self._enqueue(verb, self.core.cost.copy_ns(verb, nbytes), fault)
        if fault.late_error is None:
            copy(dst.memory[dst_offset : dst_offset + nbytes], src.memory[src_offset : src_offset + nbytes])

    def _begin(self, verb: str) -> Fault:
        """Count an operation, which is ordered after everything that the host knew when it enqueued it."""
        self.check_open()
        fault = self.core.begin(verb)
        self._known = self._known.join(self.core.machine.host).tick(self._actor)
        return fault

    def _access(self, log: AccessLog, offset: int, nbytes: int, *, is_write: bool, label: str) -> None:
        epoch = Epoch(self._actor, self._known.count(self._actor))
        self.core.access(log, Access(offset, offset + nbytes, is_write, epoch, label), self._known)

    def _enqueue(self, label: str, cost_ns: int, fault: Fault, after: Point | None = None) -> Point:
        if fault.is_endless:
            self.core.schedule.hold(self._queue)
        self._error = self._error or fault.late_error
        now_ns = self.core.clock.now_ns()
        self._tail = self.core.schedule.enqueue(self._queue, label, cost_ns + fault.stall_ns, now_ns, after)
        return self._tail


def byte_ranges(buffers: Iterable[DeviceBuffer], nbytes: Iterable[int]) -> list[ByteRange]:
    """Return the first bytes of each buffer, for `SimulatedStream.execute`."""
    pairs = zip(buffers, nbytes, strict=True)
    return [ByteRange(buffer, 0, size) for buffer, size in pairs if isinstance(buffer, SimulatedDeviceBuffer)]


def _range(core: Core, part: SimulatedDeviceBuffer | ByteRange) -> ByteRange:
    whole = part if isinstance(part, ByteRange) else ByteRange(part, 0, part.nbytes)
    own(core, SimulatedDeviceBuffer, whole.buffer)
    return whole
