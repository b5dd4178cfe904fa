"""Parts of a server that all model versions share. Values only. Thread: any (immutable)."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from forebay_server.service.batching.former import StepWhenIdle
from forebay_server.service.clock import Clock
from forebay_server.service.journal.events import Journal
from forebay_server.service.models.device_pictures import ImageDecode
from forebay_server.service.models.instances import WHOLE, Part
from forebay_server.service.models.memory import MemoryAccount
from forebay_server.service.models.placement import OpenDevice, open_device_of_kind
from forebay_server.service.models.request_memory import rows_bytes, unbound_bytes
from forebay_server.service.models.shared_memory import OpenMemory
from forebay_server.service.pipeline.batch_pictures import HostPictures
from forebay_server.service.pipeline.execute import BeforeExecution
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.pipeline.stage import OnFatal
from forebay_server.service.request import CompletionSink
from forebay_server.service.worker_pool import WorkerPool


@dataclass(frozen=True, slots=True)
class VersionContext:
    """Parts that all model versions of a server share.

    Attributes:
        clock: source of monotonic nanoseconds.
        pool: worker pool for typed results.
        sink: posts completions to the event loop.
        permits: server-wide.
        on_fatal: receives errors after which the process cannot go on.
        engine_options: defaults for a backend's options, by backend; a model's own options win.
        open_device: kind and clock to a device; tests give devices with faults.
        cache_folder: keeps measured costs between runs; None keeps nothing.
        measuring: held while a model's costs are measured: another measurement beside it would disturb both.
        before_buffers: called when the engines of a version are open, before its buffers are allocated.
        message_bytes: size of the largest message; one always has room, if no other is there.
        before_execution: for tests, see `service.pipeline.execute`.
        journal: receives one record per batch; None disables observation.
        step_when_idle: makes the event loop form and run batches that take no time; None leaves them to the formers.
        part: of every model's instances that this process opens.
        open_memory: opens the memory that a version shares with front ends in other processes; None: there are none.
        image_decode: whether devices decode JPEG files: *auto* where they can, *gpu* or an error, *cpu* never.
        host_pictures: decodes the files that a device refuses; None: devices get none.
    """

    clock: Clock
    pool: WorkerPool
    sink: CompletionSink
    permits: Permits
    on_fatal: OnFatal
    engine_options: dict[str, dict[str, str]]
    open_device: OpenDevice = open_device_of_kind
    cache_folder: Path | None = None
    cpu_fallback: bool = False
    memory: MemoryAccount = field(default_factory=MemoryAccount)
    step_when_idle: StepWhenIdle | None = None
    journal: Journal | None = None
    measuring: threading.Lock = field(default_factory=threading.Lock)
    before_buffers: Callable[[], None] = lambda: None
    message_bytes: int = 0
    open_memory: OpenMemory | None = None
    before_execution: BeforeExecution | None = None
    image_decode: ImageDecode = "auto"
    host_pictures: HostPictures | None = None
    part: Part = WHOLE

    @property
    def rows_bytes(self) -> int:
        """Limit for requests of several rows of one version together: each is in a buffer of up to twice its size."""
        return rows_bytes(self.message_bytes)

    @property
    def unbound_bytes(self) -> int:
        """Limit for requests of varying shapes of one version together."""
        return unbound_bytes(self.message_bytes)
