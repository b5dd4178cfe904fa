"""`forebay engine verify` and `profile`: compare two models on the same frames; time one model by stage and layer."""

import dataclasses
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.build.layer_times import onnx_layer_times
from forebay_server.engines.build.runner import DeviceTimes, ModelRunner
from forebay_server.engines.build.verification import MARGIN, Agreement, OutputDifference
from forebay_server.engines.errors import ModelFileError
from forebay_server.service.cli.engine_frames import (
    PictureFlags,
    Sampling,
    describe_model,
    find_objects,
    picture_for,
    read_feeds,
)
from forebay_server.service.models.description import ModelDescription
from forebay_server.service.results.task import ClassificationTask, DetectionTask

_SHOWN_LAYERS = 30


@dataclass(slots=True)
class Comparison:
    """The comparison of two models on the same frames.

    Attributes:
        frames: number of frames.
        errors: of each output.
        agreement: of the results; None if the reference's configuration names no task.
        reference_cpu_ms: CPU time of the process per frame, the smallest of all; for a model on a GPU, the host's part.
        model_cpu_ms: as reference_cpu_ms.
    """

    frames: int
    errors: list[OutputDifference]
    agreement: Agreement | None = None
    reference_cpu_ms: float = float("inf")
    model_cpu_ms: float = float("inf")


def compare(
    model: Path,
    reference: Path,
    device: str | None,
    frames_from: str,
    sampling: tuple[int, int, int],
    how: tuple[str | None, str | None, str | None],
) -> Comparison:
    """Run both models on frames. The reference's configuration gives the meaning of its outputs."""
    with ModelRunner(reference, "cpu") as original, ModelRunner(model, device) as other:
        names = [spec.name for spec in original.specs.outputs]
        if (original.specs.inputs, names) != (other.specs.inputs, [spec.name for spec in other.specs.outputs]):
            raise ModelFileError(f"{model} and {reference} differ in inputs or in the names of outputs")
        description = describe_model(reference, original.specs)
        picture = picture_for(original.specs, description, PictureFlags(*how))
        feeds = read_feeds(frames_from, picture, original.specs, Sampling(*sampling))
        for runner in (original, other):
            runner.warm_up((1,))
        found = Comparison(len(feeds), [OutputDifference(name) for name in names])
        if description is not None and description.task is not None:
            found.agreement = Agreement()
        for feed in feeds:
            expected, cpu_ms = _timed(original, feed)
            found.reference_cpu_ms = min(found.reference_cpu_ms, cpu_ms)
            outputs, cpu_ms = _timed(other, feed)
            found.model_cpu_ms = min(found.model_cpu_ms, cpu_ms)
            _take(found, description, expected, outputs)
    return found


def _timed(runner: ModelRunner, feed: list[NDArray[Any]]) -> tuple[list[NDArray[Any]], float]:
    started_ns = time.process_time_ns()
    outputs, _times = runner.run(feed)
    return outputs, (time.process_time_ns() - started_ns) / 1e6


def _take(
    found: Comparison,
    description: ModelDescription | None,
    expected: list[NDArray[Any]],
    outputs: list[NDArray[Any]],
) -> None:
    for error, one, two in zip(found.errors, expected, outputs, strict=True):
        error.add(one, two)
    if description is None or found.agreement is None:
        return
    task = description.task
    if isinstance(task, DetectionTask):
        least = max(0.0, task.score_threshold - MARGIN)
        found.agreement.add_detections(
            find_objects(tuple(expected), task, description, least),
            find_objects(tuple(outputs), task, description, least),
            task.score_threshold,
        )
    elif isinstance(task, ClassificationTask):
        found.agreement.add_classes(expected[task.scores_output], outputs[task.scores_output])


def profile_model(model: Path, device: str | None, batch: int, runs: int, trace: Path | None) -> dict[str, Any]:
    """Time a model by stage; by layer for ONNX models and, with `trace`, for PyTorch's."""
    random = np.random.default_rng(0)
    with ModelRunner(model, device, max_batch_size=None) as runner:
        if batch > runner.specs.max_batch_size:
            raise ModelFileError(f"{model}: takes at most {runner.specs.max_batch_size} rows, not {batch}")
        rows = (batch,) if runner.specs.has_batch_dimension else ()
        inputs = [random.integers(0, 255, (*rows, *spec.shape)).astype(spec.dtype) for spec in runner.specs.inputs]
        runner.warm_up((batch,))
        stages = [runner.run(inputs)[1] for _ in range(runs)]
        facts: dict[str, Any] = {"model": str(model), "device": runner.device.name, "batch": batch, "runs": runs}
        facts["stages_us"] = {
            each.name.removesuffix("_ns"): statistics.median(getattr(times, each.name) for times in stages) / 1000
            for each in dataclasses.fields(DeviceTimes)
        }
        launches = runner.engine.launches
        if launches is not None:
            facts["launches"] = dataclasses.asdict(launches)
        if trace is not None:
            facts["layers"] = _torch_layers(runner, inputs, runs, trace)
        elif runner.backend == "onnxruntime":
            feed = {spec.name: values for spec, values in zip(runner.specs.inputs, inputs, strict=True)}
            layers = onnx_layer_times(model, feed, runs)
            facts["layers"] = [dataclasses.asdict(layer) for layer in layers[:_SHOWN_LAYERS]]
        else:
            times = runner.layer_times(batch, runs)[:_SHOWN_LAYERS]
            facts["layers"] = [{"name": name, "mean_ms": mean_ms} for name, mean_ms in times]
    return facts


def _torch_layers(runner: ModelRunner, inputs: list[NDArray[Any]], runs: int, trace: Path) -> list[dict[str, Any]]:
    if runner.backend != "torch":
        raise ModelFileError("--trace is for torch models (.pt2, .pt)")
    from forebay_server.engines.build.torch_trace import trace_runs

    return [
        {"operator": name, "own_us": own_us}
        for name, own_us in trace_runs(lambda: runner.run(inputs), runs, trace)[:_SHOWN_LAYERS]
    ]
