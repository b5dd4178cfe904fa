"""Current numbers of the parts of a server, read by the observer's thread.

The numbers of one reading may belong to slightly different times.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import psutil

from forebay_server.engines.device import DeviceMemory
from forebay_server.engines.errors import EngineError
from forebay_server.service.journal.process import ProcessNumbers
from forebay_server.service.journal.reception import ReceptionNumbers
from forebay_server.service.journal.streams import StreamNumbers
from forebay_server.service.load.meter import Load
from forebay_server.service.models.version import ModelVersion
from forebay_server.service.standard_error import STANDARD_ERROR


class PoolParts(Protocol):
    """A worker pool, or those of all front-end processes."""

    @property
    def busy_count(self) -> int: ...  # noqa: D102
    @property
    def thread_count(self) -> int: ...  # noqa: D102
    @property
    def waiting_count(self) -> int: ...  # noqa: D102


class PermitParts(Protocol):
    """The permits of a server, or of a group of processes."""

    count: int

    @property
    def taken_count(self) -> int: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class VersionGauges:
    """Current numbers of one model version.

    Attributes:
        pending: requests that wait for a batch.
        pending_streams: streams with pending requests.
        in_flight: batches from formed to computed.
        instances: lanes.
        slots: of all lanes.
        slots_in_use: of these.
        drift_ratio: duration of executions now over the calibrated duration.
        guard_s: time before the last moment at which batches are bound.
        egress_s: the former's forecast of egress.
        least_s: the least that one frame alone takes on the device; 0 while it is not known.
        is_on_gpu: whether a lane runs on an accelerator.
        launches: executions by way (`graph`, `plain`); empty for engines that have one way.
        pictures: JPEG files by who decoded them (`DecodedBy`); empty where the CPU decodes all.
    """

    model: str
    version: str
    pending: int
    pending_streams: int
    in_flight: int
    instances: int
    slots: int
    slots_in_use: int
    drift_ratio: float
    guard_s: float
    egress_s: float
    least_s: float
    is_on_gpu: bool
    launches: Mapping[str, int]
    pictures: Mapping[str, int]


class EngineParts(Protocol):
    """The latest numbers of another engine process."""

    @property
    def versions(self) -> Sequence[VersionGauges]: ...  # noqa: D102
    @property
    def devices(self) -> Mapping[str, DeviceMemory]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class ServerGauges:
    """Current numbers of the process.

    Attributes:
        pid: of the process.
        started_s: when it began, seconds since 1970.
    """

    pid: int
    started_s: float
    is_ready: bool
    permits: int
    permits_in_use: int
    worker_threads: int
    workers_busy: int
    worker_jobs_waiting: int
    memory_bytes: int
    cpu_s: float
    threads: int
    open_files: int
    log_lines_dropped: int
    reception: ReceptionNumbers
    streams: StreamNumbers
    load: Load


class Gauges:
    """Reads all parts. Thread: any.

    Args:
        versions: returns the serving versions.
        pool: workers.
        permits: server-wide.
        is_ready: whether the server takes streams.
        reception: of the front end.
        log_lines_dropped: lines of the log that were not written.
        streams: numbers of streams.
        processes: front-end processes; none for a server of one process.
        load: of the server.
        others: versions and devices of other engine processes, whose numbers are added.
    """

    def __init__(
        self,
        versions: Callable[[], Iterable[ModelVersion]],
        pool: PoolParts,
        permits: PermitParts,
        is_ready: Callable[[], bool],
        reception: Callable[[], ReceptionNumbers] = ReceptionNumbers,
        log_lines_dropped: Callable[[], int] = lambda: STANDARD_ERROR.dropped,
        streams: Callable[[], StreamNumbers] = StreamNumbers,
        processes: Callable[[], Sequence[ProcessNumbers]] = tuple,
        load: Callable[[], Load] = Load,
        others: Callable[[], Sequence[EngineParts]] = tuple,
    ) -> None:
        self._versions = versions
        self._pool = pool
        self._permits = permits
        self._is_ready = is_ready
        self._reception = reception
        self._log_lines_dropped = log_lines_dropped
        self._streams = streams
        self.processes = processes
        self._load = load
        self._others = others
        self._process = psutil.Process()

    def versions(self) -> list[VersionGauges]:
        """Return the numbers of every version that serves now, of all engine processes together."""
        others = [version for engine in self._others() for version in engine.versions]
        return [summed(_version_gauges(version), others) for version in self._versions()]

    def devices(self) -> dict[str, DeviceMemory]:
        """Return the memory use of each device by name, except devices without memory of their own."""
        found: dict[str, DeviceMemory] = {}
        for device in (device for version in self._versions() for device in version.devices):
            if device.name in found:
                continue
            try:
                device.attach_thread()
                memory = device.memory()
            except EngineError:  # the device is lost, and the process is about to end
                continue
            if memory is not None:
                found[device.name] = memory
        for engine in self._others():
            found = {**engine.devices, **found}
        return found

    def server(self) -> ServerGauges:
        """Return the numbers of the process."""
        process = self._process
        with process.oneshot():
            times = process.cpu_times()
            return ServerGauges(
                pid=process.pid,
                started_s=process.create_time(),
                is_ready=self._is_ready(),
                permits=self._permits.count,
                permits_in_use=self._permits.taken_count,
                worker_threads=self._pool.thread_count,
                workers_busy=self._pool.busy_count,
                worker_jobs_waiting=self._pool.waiting_count,
                memory_bytes=process.memory_info().rss,
                cpu_s=times.user + times.system,
                threads=process.num_threads(),
                open_files=process.num_fds(),
                log_lines_dropped=self._log_lines_dropped(),
                reception=self._reception(),
                streams=self._streams(),
                load=self._load(),
            )


def summed(own: VersionGauges, others: Sequence[VersionGauges]) -> VersionGauges:
    """Return the numbers of a version in all engine processes: sums, and of ratios and durations the largest.

    Args:
        own: of one process.
        others: of the other processes, those of other versions among them.
    """
    same = [each for each in others if (each.model, each.version) == (own.model, own.version)]
    if not same:
        return own
    every = [own, *same]
    sums = ("pending", "pending_streams", "in_flight", "instances", "slots", "slots_in_use")
    largest = ("drift_ratio", "guard_s", "egress_s", "least_s", "is_on_gpu")
    changes: dict[str, Any] = {name: sum(getattr(each, name) for each in every) for name in sums}
    changes |= {name: max(getattr(each, name) for each in every) for name in largest}
    ways = dict.fromkeys(way for each in every for way in each.launches)
    return replace(own, **changes, launches={way: sum(each.launches.get(way, 0) for each in every) for way in ways})


def _version_gauges(version: ModelVersion) -> VersionGauges:
    numbers = version.former.statistics()
    lanes = version.lanes
    slots = sum(lane.slot_count for lane in lanes)
    ways = [launches for lane in lanes if (launches := lane.engine.launches) is not None]
    return VersionGauges(
        model=version.name,
        version=version.version,
        pending=numbers.pending_requests,
        pending_streams=numbers.pending_streams,
        in_flight=numbers.in_flight,
        instances=len(lanes),
        slots=slots,
        slots_in_use=slots - sum(lane.pool.free_count for lane in lanes),
        drift_ratio=numbers.drift_ratio,
        guard_s=numbers.guard_ns / 1e9,
        egress_s=numbers.egress_ns / 1e9,
        least_s=version.feasibility.least_service_ns / 1e9,
        is_on_gpu=any(device.name.startswith("cuda") for device in version.devices),
        launches={way: sum(getattr(each, way) for each in ways) for way in ("graph", "plain")} if ways else {},
        pictures=version.statistics.pictures(),
    )
