"""Opening a model version: load, allocate, warm up, calibrate. Nothing is allocated after it."""

import itertools
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from engines import open_device, open_engine
from engines.device import Device
from engines.engine import Engine
from service.batching.calibrate import calibrate
from service.batching.cost_model import CostModel
from service.batching.cost_table import CostTable, StageTimes
from service.batching.former import BatchFormer
from service.clock import Clock
from service.models.batching import batching_settings, executed_sizes
from service.models.completion import complete
from service.models.description import ModelDescription
from service.models.version import ModelVersion
from service.pipeline.arena import FrameArena, Permits
from service.pipeline.pipeline import Pipeline
from service.pipeline.stage import OnFatal
from service.request import Batch, CompletionSink, Delivery, Request, StreamKey
from service.results.finisher import ResultFinisher
from service.results.wants import Wants
from service.worker_pool import WorkerPool

_NOTHING_WANTED = Wants(options=None, tensor_indices=())


@dataclass(frozen=True, slots=True)
class VersionContext:
    """What every model version of a server shares.

    Attributes:
        clock: time.
        pool: worker pool for typed results.
        sink: towards the event loop.
        permits: server-wide.
        on_fatal: told about errors after which the process cannot go on.
        engine_options: defaults for a backend's options, by backend; a model's own options win.
    """

    clock: Clock
    pool: WorkerPool
    sink: CompletionSink
    permits: Permits
    on_fatal: OnFatal
    engine_options: dict[str, dict[str, str]]


def open_version(
    description: ModelDescription, version: str, model_path: Path | None, context: VersionContext
) -> ModelVersion:
    """Open one version and start its threads. Blocks: for seconds, so never on the event loop.

    Args:
        description: from the configuration; completed here.
        version: decimal number, as its folder is called.
        model_path: the model file; None for a backend without one.
        context: shared parts.

    Raises:
        EngineError: the model or the device cannot serve.
        ConfigError: the configuration and the model file disagree.
    """
    clock = context.clock
    with ExitStack() as undo:
        device = open_device(device_kind(description), clock=clock)
        undo.callback(device.close)
        engines = [_open_engine(description, model_path, device, context) for _ in range(description.instance_count)]
        for engine in engines:
            undo.callback(engine.close)
        description = complete(description, engines[0].specs)
        specs = engines[0].specs
        arena = FrameArena(device, specs.inputs, context.permits)
        undo.callback(arena.close)
        finisher = ResultFinisher(description.task, context.pool, context.sink)
        name = f"{description.name}.{version}"
        lanes = [
            Pipeline(
                index,
                f"{name}.{index}",
                device,
                engine,
                clock,
                model_version=version,
                finish=finisher.finish,
                on_fatal=context.on_fatal,
            )
            for index, engine in enumerate(engines)
        ]
        undo.pop_all()
        for lane in lanes:
            undo.callback(lane.close)
        sizes = executed_sizes(specs.max_batch_size)
        for lane in lanes:
            lane.warm_up(sizes)
        table = _calibrate(lanes[0], arena, sizes, clock)
        former = BatchFormer(
            name,
            lanes,
            CostModel(sizes, table),
            batching_settings(description),
            clock,
            context.sink,
            permits=context.permits.count,
            on_fatal=context.on_fatal,
        )
        opened = ModelVersion(description, version, device, lanes, former, arena, clock)
        opened.start()
        undo.pop_all()
        return opened


def device_kind(description: ModelDescription) -> str:
    """Return the kind of device that a backend runs on by default."""
    return "cuda" if description.backend == "tensorrt" else "cpu"


def _open_engine(
    description: ModelDescription, model_path: Path | None, device: Device, context: VersionContext
) -> Engine:
    defaults = context.engine_options.get(description.backend, {})
    return open_engine(
        description.backend,
        model_path=model_path,
        device=device,
        clock=context.clock,
        options={**defaults, **description.backend_options},
        max_batch_size=description.max_batch_size,
    )


def _calibrate(lane: Pipeline, arena: FrameArena, sizes: tuple[int, ...], clock: Clock) -> CostTable:
    next_id: Callable[[], int] = itertools.count(1).__next__
    stream = StreamKey("calibration", Delivery.EVERY)

    def measure(size: int) -> StageTimes:
        slot_index = lane.try_reserve()
        assert slot_index is not None  # noqa: S101 - one batch at a time
        now_ns = clock.now_ns()
        requests = [
            Request(
                id=next_id(),
                stream=stream,
                size=1,
                batch_key=None,
                deadline_ns=None,
                arrival_ns=now_ns,
                priority=1,
                frame=arena.lease(),
                on_completion=lambda _: None,
                wants=_NOTHING_WANTED,
            )
            for _ in range(size)
        ]
        lane.run_once(Batch(0, lane.index, slot_index, requests, size, size, now_ns))
        times = requests[0].timeline
        return StageTimes(times.h2d_ns, times.execute_ns, times.d2h_ns)

    return calibrate(measure, sizes, clock)
