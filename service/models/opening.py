"""Opening a model version: load, allocate, warm up, calibrate. Nothing is allocated after it."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from forebay_server.engines.device import Device, DeviceKind
from forebay_server.engines.engine import Engine, EngineSpecs, UnboundEngine
from forebay_server.engines.errors import EngineError, ModelFileError
from forebay_server.service.batching.cost_model import CostModel
from forebay_server.service.batching.cost_table import CostIdentity, CostTable
from forebay_server.service.batching.former import BatchFormer
from forebay_server.service.clock import Clock
from forebay_server.service.journal.events import RequestJournal
from forebay_server.service.journal.statistics import CountingSink, VersionStatistics
from forebay_server.service.models.batching import batching_settings, executed_sizes, measured_sizes
from forebay_server.service.models.completion import complete, optional_in_vain
from forebay_server.service.models.config_text import ConfigError
from forebay_server.service.models.description import ModelDescription
from forebay_server.service.models.device_pictures import DevicePictures, FilesMemoryError, device_pictures
from forebay_server.service.models.example import example_of
from forebay_server.service.models.folding import settle_changes
from forebay_server.service.models.memory import Holding, buffer_bytes, check_device, model_bytes
from forebay_server.service.models.placement import (
    Placement,
    open_instance,
    open_placement,
)
from forebay_server.service.models.settling import settle
from forebay_server.service.models.trials import calibrate_lane, measure_files, run_sample
from forebay_server.service.models.unbound import HANG_LIMIT_NS, measure_unbound
from forebay_server.service.models.version import ModelVersion
from forebay_server.service.models.version_context import VersionContext
from forebay_server.service.models.warmup_samples import inputs_of
from forebay_server.service.pictures.device_picture import DecodedBy, FilePlace
from forebay_server.service.pipeline.arena import FrameArena
from forebay_server.service.pipeline.batch_pictures import LanePictures
from forebay_server.service.pipeline.builder import LaneContext, build_lane
from forebay_server.service.pipeline.outputs import Finish, OutputReader
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.pipeline.pipeline import Pipeline
from forebay_server.service.pipeline.unbound import Inputs, UnboundFrames
from forebay_server.service.request import Feasibility
from forebay_server.service.results.finisher import ResultFinisher

log = structlog.get_logger(__name__)

LEAST_HANG_NS = 2_000_000_000
MOST_WAIT_S = 10.0  # for another model's measurement: a model that hangs must not hold up the others
HANG_FACTOR = 10  # times the slowest batch; a busy machine is slow, not hung


def open_version(
    description: ModelDescription, version: str, model_path: Path | None, context: VersionContext
) -> ModelVersion:
    """Open one version and start its threads. Blocks: for seconds, so never on the event loop.

    Where memory runs out and its devices decode JPEG files by choice, it is opened anew, and the CPU decodes them.

    Args:
        description: from the configuration; completed here.
        version: decimal number, as its folder is called.
        model_path: the model file; None for a backend without one.
        context: shared parts.

    Raises:
        EngineError: the model or the device cannot serve.
        ConfigError: the configuration and the model file disagree, or the model fails in its trial run.
    """
    try:
        return _open(description, version, model_path, context)
    except FilesMemoryError as error:
        log.info("JPEG frames are decoded by the CPU", model=description.name, reason=str(error))
    return _open(description, version, model_path, replace(context, image_decode="cpu"))


def _open(
    description: ModelDescription, version: str, model_path: Path | None, context: VersionContext
) -> ModelVersion:
    with ExitStack() as undo:
        try:
            opened = _build(replace(description, part=context.part), version, model_path, context, undo)
        except ValueError as error:  # settings that contradict each other, a batch size that the engine refuses
            raise ConfigError(f"{description.name}: {error}") from error
        except EngineError as error:  # engines know files and options, but not the model's name
            raise type(error)(f"{description.name}: {error}") from error
        opened.start()
        undo.pop_all()
        return opened


def _build(
    description: ModelDescription, version: str, model_path: Path | None, context: VersionContext, undo: ExitStack
) -> ModelVersion:
    """Make every part; `undo` closes the parts in reverse order."""
    started_ns = context.clock.now_ns()
    placement = open_placement(description, context.open_device, context.clock, cpu_fallback=context.cpu_fallback)
    undo.callback(placement.close)
    holding = context.memory.open()
    undo.callback(holding.give_back)
    placement, engines = _open_engines(placement, model_path, context, holding, undo)
    context.before_buffers()
    settled = settle(engines, placement.description)
    _check_shapes(engines[0], settled)
    description = _completed(settled, engines[0].specs, len(description.warnings))
    placement = Placement(description, placement.devices)
    statistics = VersionStatistics(context.clock)
    on_refused = partial(statistics.count_picture, DecodedBy.HOST_REFUSED)
    pictures = device_pictures(description, placement.counts, context.image_decode, context.host_pictures, on_refused)
    with pictures.naming_shortage():
        return _assembled(placement, version, engines, pictures, statistics, context, holding, started_ns, undo)


def _assembled(
    placement: Placement,
    version: str,
    engines: Sequence[Engine],
    pictures: DevicePictures,
    statistics: VersionStatistics,
    context: VersionContext,
    holding: Holding,
    started_ns: int,
    undo: ExitStack,
) -> ModelVersion:
    """Allocate the buffers of frames, try the lanes, and make the version of everything."""
    clock, description, specs = context.clock, placement.description, engines[0].specs
    devices = list(placement.devices.values())
    _check_buffers(placement, specs, context, holding, pictures.files)
    devices[0].attach_thread()
    memory = None if context.open_memory is None else context.open_memory(devices[0], specs, pictures.files)
    if memory is None:
        inputs = specs.inputs if specs.is_fixed else ()
        arena = FrameArena(devices[0], inputs, context.permits, context.rows_bytes, pictures.files)
    else:
        undo.callback(memory.close)
        arena = FrameArena(devices[0], (), Permits(0), 0)  # frames lie in the shared memory
    undo.callback(arena.close)
    sink = CountingSink(context.sink, statistics)
    name = f"{description.name}.{version}"
    reader = None if memory is None else memory.reader(version, sink.post)
    finisher = ResultFinisher(description.task, context.pool, sink, description.image)
    finish = finisher.finish if memory is None else sink.post
    lanes = _open_lanes(placement, name, version, engines, finish, reader, context, pictures.lanes, undo)
    sizes = measured_sizes(specs.max_batch_size)
    executed = executed_sizes(description.device_kind, specs.max_batch_size)
    example = example_of(description.warmup, description.config, specs)
    _warm_up(lanes, description, specs, sizes, executed, example, clock)
    is_alone = context.measuring.acquire(timeout=MOST_WAIT_S)
    try:
        table = _costs(lanes, sizes, example, description, version, context)
        file_uploads = measure_files(lanes[0], sizes, pictures, clock)
    finally:
        if is_alone:
            context.measuring.release()
    former = BatchFormer(
        name,
        lanes,
        CostModel(executed, table, file_uploads),
        batching_settings(description),
        clock,
        sink,
        permits=context.permits.count if memory is None else memory.most_requests,
        on_fatal=context.on_fatal,
        step_when_idle=context.step_when_idle,
        inline_ns=lanes[0].inline.limit_ns,
        on_feasibility=_nothing if memory is None else memory.publish,
        egress=None if memory is None else memory.egress,
    )
    statistics.reset()
    hang_limit_ns = max(LEAST_HANG_NS, HANG_FACTOR * (table.h2d_ns[-1] + table.execute_ns[-1] + table.d2h_ns[-1]))
    return ModelVersion(
        description,
        version,
        devices,
        lanes,
        former,
        arena,
        clock,
        hang_limit_ns=hang_limit_ns if specs.is_fixed else HANG_LIMIT_NS,
        unbound=None if specs.is_fixed else UnboundFrames(context.permits, context.unbound_bytes),
        statistics=statistics,
        requests=None if context.journal is None else RequestJournal(context.journal, description.name, version, clock),
        load_ns=clock.now_ns() - started_ns,
        row_ns=_row_ns(table, len(lanes)),
        on_closed=holding.give_back,
        memory=memory,
    )


def _completed(description: ModelDescription, specs: EngineSpecs, known_warnings: int) -> ModelDescription:
    """Complete a description, and log what is new to be said about it."""
    description = complete(description, specs)
    for warning in (*description.warnings[known_warnings:], *optional_in_vain(description.config, specs)):
        log.warning("configuration", model=description.name, detail=warning)
    if description.question:
        log.info("model takes no pictures", model=description.name, remedy=description.question)
    return description


def _warm_up(
    lanes: Sequence[Pipeline],
    description: ModelDescription,
    specs: EngineSpecs,
    sizes: tuple[int, ...],
    executed: tuple[int, ...],
    example: Inputs,
    clock: Clock,
) -> None:
    """Run every size and every sample of the configuration on every lane."""
    for lane in lanes:
        lane.warm_up(sizes, example if description.warmup else None)
        for sample in description.warmup:
            inputs = inputs_of(sample, description.config, specs)
            executed_rows = min(size for size in executed if size >= sample.rows)
            run_sample(lane, sample, inputs, clock, executed_rows=executed_rows)


def _row_ns(table: CostTable, lanes: int) -> int:
    """Return how long a row takes in the best batches of all lanes together; at least 1."""
    row_ns = min(ns / size for size, ns in zip(table.sizes, table.execute_ns, strict=True))
    return max(1, round(row_ns / lanes))


def _nothing(_: Feasibility) -> None:
    """Take a snapshot that no other process needs."""


def _open_engines(
    placement: Placement, model_path: Path | None, context: VersionContext, holding: Holding, undo: ExitStack
) -> tuple[Placement, list[Engine]]:
    """Open one engine for every instance, if the weights fit on its device; the description says how it was changed."""
    description, changes = settle_changes(placement.description, model_path, context.cache_folder)
    is_gpu = description.device_kind == DeviceKind.CUDA
    holding.take(model_bytes(model_path, 1 if is_gpu else len(description.instances)))
    for device, count in placement.counts if is_gpu else ():
        check_device(device, model_bytes(model_path, count))
    engines: list[Engine] = []
    for instance in description.instances:
        device = placement.devices[instance.device]
        engine = open_instance(description, model_path, device, context.clock, context.engine_options, changes)
        engines.append(engine)
        undo.callback(engines[-1].close)
        undo.callback(device.attach_thread)  # before the device's engine closes
    return Placement(description, placement.devices), engines


def _check_buffers(
    placement: Placement, specs: EngineSpecs, context: VersionContext, holding: Holding, files: FilePlace | None
) -> None:
    is_gpu = placement.description.device_kind == DeviceKind.CUDA
    permits = context.permits.count if is_gpu else 0
    is_shared = context.open_memory is not None
    instances = len(placement.description.instances)
    holding.take(buffer_bytes(specs, instances, permits, is_shared=is_shared, files=files))
    for device, count in placement.counts if is_gpu else ():
        check_device(device, buffer_bytes(specs, count))


def _open_lanes(
    placement: Placement,
    name: str,
    version: str,
    engines: Sequence[Engine],
    finish: Finish,
    reader: OutputReader | None,
    context: VersionContext,
    pictures: LanePictures | None,
    undo: ExitStack,
) -> list[Pipeline]:
    shared = LaneContext(
        context.clock,
        version,
        finish,
        context.on_fatal,
        journal=context.journal,
        before_execution=context.before_execution,
        reader=reader,
        pictures=pictures,
    )
    lanes: list[Pipeline] = []
    for index, (instance, engine) in enumerate(zip(placement.description.instances, engines, strict=True)):
        device = placement.devices[instance.device]
        lanes.append(build_lane(index, f"{name}.{index}", device, engine, shared, instance.priority))
        undo.callback(lanes[-1].close)
    return lanes


def _costs(
    lanes: Sequence[Pipeline],
    sizes: tuple[int, ...],
    example: Inputs,
    description: ModelDescription,
    version: str,
    context: VersionContext,
) -> CostTable:
    """Measure the first lane of every device; the slowest device counts, because a batch may run on any."""
    first_lanes: dict[Device, Pipeline] = {}
    for lane in lanes:
        first_lanes.setdefault(lane.device, lane)
    tables = []
    for lane in first_lanes.values():
        if lane.engine.specs.is_fixed:
            identity = _identity(description, version, lane.device, context)
            tables.append(calibrate_lane(lane, sizes, example, identity, context.clock, context.cache_folder))
        else:
            tables.append(measure_unbound(lane, sizes, example, context.clock))
    return CostTable.slowest(tables)


def _check_shapes(engine: Engine, description: ModelDescription) -> None:
    specs = engine.specs
    if specs.is_fixed or isinstance(engine, UnboundEngine):
        return
    tensor = next(spec for spec in (*specs.inputs, *specs.outputs) if not spec.is_fixed)
    raise ModelFileError(
        f"tensor {tensor.name!r} has no fixed size (shape {list(tensor.shape)}), which backend {description.backend!r} "
        "does not run: export the model with fixed inner dimensions, or serve it as ONNX"
    )


def _identity(description: ModelDescription, version: str, device: Device, context: VersionContext) -> CostIdentity:
    """Return the identity of a cost table; the check of the table detects a changed model file with the same name."""
    options = {**context.engine_options.get(description.backend, {}), **description.backend_options}
    engine = " ".join([description.backend, *(f"{key}={options[key]}" for key in sorted(options))])
    inputs = () if description.specs is None else description.specs.inputs
    precision = ",".join([options.get("precision", "as built"), *(str(spec.dtype) for spec in inputs)])
    return CostIdentity(description.name, version, engine, device.name, precision)
