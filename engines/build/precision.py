"""Lower precision: FP16 by conversion, INT8 by calibration. One artefact for TensorRT, another for the CPU.

Only the trunk of the network (engines/build/onnx_file) changes; inputs and outputs keep their types. The settings are
verified: docs/adr/0030 and 0031 have the attempts and measurements.

- TensorRT takes explicit Q/DQ only: symmetric INT8, zero points of 0, per-channel weights, and no quantized bias, which
  its parser refuses.
- The CPU is fastest with unsigned asymmetric activations and signed per-channel weights (VNNI). Weights have 7 bits:
  without VNNI, a processor adds two products in 16 bits, and 2 * 255 * 64 is the most that fits.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.build.half import convert_nodes
from forebay_server.engines.build.normalisation import absorb_normalisation, join_normalisation
from forebay_server.engines.build.onnx_file import find_trunk, import_onnx, load_model, name_nodes
from forebay_server.engines.errors import ModelFileError

Target = Literal["cpu", "tensorrt"]
Feeds = Mapping[str, NDArray[Any]]

PRECISIONS = ("fp16", "int8")
TARGETS = ("cpu", "tensorrt")


@dataclass(frozen=True, slots=True)
class PrecisionReport:
    """Report of a conversion.

    Attributes:
        precision: `fp16` or `int8`.
        target: `cpu` or `tensorrt`.
        lowered: nodes that run in the lower precision.
        kept: nodes that keep theirs.
        calibration_frames: frames that ranges were taken from.
        source_bytes: size of the file before.
        result_bytes: size of the file after.
    """

    precision: str
    target: str
    lowered: int
    kept: int
    calibration_frames: int
    source_bytes: int
    result_bytes: int


def to_fp16(source: Path, output: Path) -> PrecisionReport:
    """Write `source` with its trunk in FP16. Raises ModelFileError."""
    onnx = import_onnx()
    with tempfile.TemporaryDirectory() as folder:
        model = _prepared(source, Path(folder))
    join_normalisation(model)
    name_nodes(model)
    trunk = find_trunk(model)
    if not trunk.inside:
        raise ModelFileError(f"{source}: has no convolution or matrix product with weights: nothing to convert")
    nodes = len(model.graph.node)
    lowered = convert_nodes(model, trunk.inside)
    onnx.checker.check_model(model)
    output.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(output))
    return _report("fp16", "tensorrt", source, output, nodes, nodes - lowered, 0)


def to_int8(
    source: Path,
    output: Path,
    feeds: Sequence[Feeds],
    target: Target,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> PrecisionReport:
    """Write `source` with its trunk in INT8, calibrated by the extremes seen on `feeds`.

    Args:
        source: an FP32 model (weights may be stored as FP16).
        output: where to write it.
        feeds: inputs by name, one row each; typical frames, others than those for verification.
        target: see the module.
        progress: called with the number of frames done and their total.

    Raises:
        ModelFileError: the model or the calibration data cannot be used.
    """
    onnx = import_onnx()
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    check_feeds(load_model(source), feeds)
    is_cpu = target == "cpu"
    with tempfile.TemporaryDirectory() as folder:
        model = _prepared(source, Path(folder))
        if not (is_cpu and absorb_normalisation(model)):
            join_normalisation(model)
        name_nodes(model)
        trunk = find_trunk(model)
        if not trunk.inside:
            raise ModelFileError(f"{source}: has no convolution or matrix product with weights: nothing to quantize")
        prepared = Path(folder) / "prepared.onnx"
        onnx.save(model, str(prepared))
        quantized = Path(folder) / "quantized.onnx"
        try:
            quantize_static(
                str(prepared),
                str(quantized),
                _Reader(feeds, progress),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=is_cpu,
                activation_type=QuantType.QUInt8 if is_cpu else QuantType.QInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                nodes_to_exclude=sorted(trunk.outside),
                extra_options={}
                if is_cpu
                else {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
            )
        except Exception as error:
            raise ModelFileError(f"{source}: cannot be quantized: {error}") from error
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(quantized.read_bytes())
    return _report("int8", target, source, output, len(model.graph.node), len(trunk.outside), len(feeds))


def check_feeds(model: Any, feeds: Sequence[Feeds]) -> None:  # noqa: ANN401
    """Raise ModelFileError unless every feed has the inputs of `model`, in type and shape."""
    if not feeds:
        raise ModelFileError("no calibration data: give a folder of pictures or a video with frames like those served")
    onnx = import_onnx()
    weights = {each.name for each in model.graph.initializer}
    for value in (each for each in model.graph.input if each.name not in weights):
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
        for index, feed in enumerate(feeds):
            _check_array(f"calibration frame {index}", value.name, feed.get(value.name), dtype, dims)


def _check_array(
    what: str, name: str, array: NDArray[Any] | None, dtype: np.dtype[np.generic], dims: list[int | None]
) -> None:
    if array is None:
        raise ModelFileError(f"{what}: input {name!r} is missing")
    fits = array.ndim == len(dims) and all(dim in {None, size} for dim, size in zip(dims, array.shape, strict=False))
    if array.dtype != dtype or not fits:
        raise ModelFileError(f"{what}: {name!r} is {array.dtype}{list(array.shape)}, the model takes {dtype}{dims}")


class _Reader:
    """The source of onnxruntime's calibration: a CalibrationDataReader by its methods."""

    def __init__(self, feeds: Sequence[Feeds], progress: Callable[[int, int], None]) -> None:
        self._feeds, self._progress = feeds, progress
        self._iterator: Iterator[Feeds] = iter(feeds)
        self._done = 0

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """Return the next feed, or None at the end."""
        feed = next(self._iterator, None)
        if feed is None:
            return None
        self._done += 1
        self._progress(self._done, len(self._feeds))
        return dict(feed)

    def rewind(self) -> None:
        """Start again."""
        self._iterator, self._done = iter(self._feeds), 0

    def set_range(self, start_index: int, end_index: int) -> None:
        """Give only feeds start_index .. end_index-1."""
        self._iterator = iter(self._feeds[start_index:end_index])


def _prepared(source: Path, folder: Path) -> Any:  # noqa: ANN401
    """Return the model with constants folded and shapes inferred."""
    onnx = import_onnx()
    from onnxruntime.quantization.shape_inference import quant_pre_process

    plain = folder / "plain.onnx"
    onnx.save(load_model(source), str(plain))
    prepared = folder / "folded.onnx"
    try:
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
    except Exception as error:
        raise ModelFileError(f"{source}: cannot be prepared: {error}") from error
    return onnx.load(str(prepared))


def _report(
    precision: str, target: str, source: Path, output: Path, nodes: int, kept: int, frames: int
) -> PrecisionReport:
    sizes = source.stat().st_size, output.stat().st_size
    return PrecisionReport(precision, target, nodes - kept, kept, frames, *sizes)
