"""Trial batches without a client, on a lane that does not serve yet: they warm it up and measure the cost of a batch.

Thread: the one that opens the version; all work runs on it, one batch at a time.
"""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.errors import ExecutionError
from forebay_server.service.batching.calibrate import calibrate, obtain_table, table_path
from forebay_server.service.batching.cost_table import CostIdentity, CostTable, StageTimes
from forebay_server.service.clock import Clock
from forebay_server.service.errors import ServiceError
from forebay_server.service.models.config_text import ConfigError
from forebay_server.service.models.device_pictures import DevicePictures
from forebay_server.service.models.warmup_samples import WarmupSample
from forebay_server.service.pictures.device_picture import DevicePicture, FilePicture
from forebay_server.service.pipeline.arena import FrameArena
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.pipeline.pipeline import Pipeline
from forebay_server.service.pipeline.slots import PAGE_BYTES
from forebay_server.service.pipeline.unbound import UnboundFrames
from forebay_server.service.request import Batch, Delivery, FrameBuffer, Request, StreamKey
from forebay_server.service.results.wants import Wants

EXAMPLE_SIZE = (640, 480)  # of the picture by which decoding is measured
_AS_MUCH_AS_IT_IS = 1 << 62  # samples are bounded where they are read
_NOTHING_WANTED = Wants(options=None, tensor_indices=())
_next_id: Callable[[], int] = itertools.count(1).__next__


def run_trial(
    lane: Pipeline,
    frames: Sequence[FrameBuffer],
    clock: Clock,
    *,
    rows_each: int = 1,
    executed_rows: int | None = None,
    picture: DevicePicture | None = None,
) -> StageTimes:
    """Take one batch through every stage and return the duration of each. The frames are released.

    Args:
        lane: not started.
        frames: inputs, one request each.
        clock: source of monotonic nanoseconds.
        rows_each: rows of every frame.
        executed_rows: rows that the engine runs, if more.
        picture: in every frame, for the device; None: they hold rows.

    Raises:
        ExecutionError: with the engine's message; the public one would not help the operator.
    """
    slot_index = lane.try_reserve()
    assert slot_index is not None  # noqa: S101 - one batch at a time
    now_ns = clock.now_ns()
    stream = StreamKey("calibration", Delivery.EVERY)
    requests = [
        Request(
            id=_next_id(),
            stream=stream,
            size=rows_each,
            batch_key=None,
            deadline_ns=None,
            arrival_ns=now_ns,
            priority=1,
            frame=frame,
            on_completion=lambda _: None,
            wants=_NOTHING_WANTED,
            picture=picture,
        )
        for frame in frames
    ]
    rows = rows_each * len(requests)
    times = requests[0].timeline
    try:
        lane.run_once(Batch(0, lane.index, slot_index, requests, rows, executed_rows or rows, now_ns))
    except ServiceError as error:
        raise ExecutionError(str(error.__cause__ or error)) from error
    return StageTimes(times.h2d_ns, times.execute_ns, times.d2h_ns)


def run_sample(
    lane: Pipeline,
    sample: WarmupSample,
    inputs: Sequence[NDArray[Any] | None],
    clock: Clock,
    executed_rows: int,
) -> None:
    """Run a sample of `model_warmup` `count` times. Raises ConfigError if the model fails on it."""
    specs = lane.engine.specs
    lane.device.attach_thread()
    arena = FrameArena(lane.device, specs.inputs if specs.is_fixed else (), Permits(1), _AS_MUCH_AS_IT_IS)
    unbound = UnboundFrames(Permits(1), _AS_MUCH_AS_IT_IS)
    try:
        for _ in range(sample.count):
            frame: FrameBuffer = arena.lease_rows(sample.rows) if specs.is_fixed else unbound.lease(tuple(inputs))
            if specs.is_fixed:
                _fill(frame, inputs)
            run_trial(lane, [frame], clock, rows_each=sample.rows, executed_rows=executed_rows)
    except ExecutionError as error:
        raise ConfigError(f"{sample.where}: the model fails on it: {error}") from error
    finally:
        arena.close()


def calibrate_lane(
    lane: Pipeline,
    sizes: tuple[int, ...],
    example: Sequence[NDArray[Any] | None],
    identity: CostIdentity,
    clock: Clock,
    cache: Path | None,
) -> CostTable:
    """Find the kept costs or measure, with frames of a separate arena: the permits belong to the clients."""
    lane.device.attach_thread()
    arena = FrameArena(lane.device, lane.engine.specs.inputs, Permits(max(sizes)))
    _touch(arena, max(sizes))

    def measure(size: int) -> StageTimes:
        frames = [arena.lease() for _ in range(size)]
        for frame in frames:
            _fill(frame, example)
        return run_trial(lane, frames, clock)

    try:
        return obtain_table(table_path(cache, identity), identity, measure, sizes, clock)[0]
    finally:
        arena.close()


def measure_files(
    lane: Pipeline, sizes: tuple[int, ...], pictures: DevicePictures, clock: Clock
) -> dict[int, int] | None:
    """Return how long the upload of a batch of JPEG files takes, by size; None if the lane's device decodes none.

    The files are of 640x480 pixels, or smaller if the model's limit is. Measured at every start, and not kept: it takes
    less time than reading a model does.
    """
    place, lanes = pictures.files, pictures.lanes
    if place is None or lanes is None:
        return None
    side = int(place.most_pixels**0.5)
    size = EXAMPLE_SIZE if EXAMPLE_SIZE[0] * EXAMPLE_SIZE[1] <= place.most_pixels else (side, side)
    file = lanes.host.example(size)
    if len(file) > place.nbytes:
        return None
    lane.device.attach_thread()
    arena = FrameArena(lane.device, lane.engine.specs.inputs, Permits(max(sizes)), files=place)
    picture = FilePicture(place.offset, len(file), size)

    def measure(rows: int) -> StageTimes:
        frames = [arena.lease() for _ in range(rows)]
        for frame in frames:
            view = frame.host.write_view()
            view[place.offset : place.offset + len(file)] = np.frombuffer(file, np.uint8)
            for index, constant in lanes.picture.constant_inputs:
                start = frame.offsets[index]
                view[start : start + len(constant)] = np.frombuffer(constant, np.uint8)
        return run_trial(lane, frames, clock, picture=picture)

    try:
        table = calibrate(measure, sizes, clock)
    finally:
        arena.close()
    return dict(zip(table.sizes, table.h2d_ns, strict=True))


def _fill(frame: FrameBuffer, inputs: Sequence[NDArray[Any] | None]) -> None:
    """Write the inputs into a frame: models with indices among their inputs fail on the content of fresh memory."""
    target = frame.host.write_view()
    for array, offset in zip(inputs, frame.offsets, strict=True):
        assert array is not None  # noqa: S101 - a model with an optional input runs unbound
        target[offset : offset + array.nbytes] = np.frombuffer(array.tobytes(), np.uint8)


def _touch(arena: FrameArena, count: int) -> None:
    """Write to every page, as decoding would: an upload from pages that were never written measures the kernel."""
    leases = [arena.lease() for _ in range(count)]
    for lease in leases:
        lease.host.write_view()[::PAGE_BYTES] = 0
    for lease in leases:
        lease.release()
