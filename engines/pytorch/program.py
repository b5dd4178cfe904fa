"""PyTorch model files: torch.export programs (.pt2) and TorchScript (.pt), loaded without unpickling objects.

PyTorch's own reader of .pt2 falls back to full pickles for some weights and constants, evaluates expressions of sizes,
and calls any name in a graph. Here every torch.load within it is limited to weights only, and the contents of an
archive are checked before (`archive`, `vetting`).
"""

import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forebay_server.engines.datatypes import BF16, DTYPE_BY_NAME
from forebay_server.engines.errors import EngineError, ModelFileError
from forebay_server.engines.model_file import require_model_file
from forebay_server.engines.onnx_specs import DEFAULT_MAX_BATCH_SIZE, NodeInfo
from forebay_server.engines.pytorch.archive import Archive
from forebay_server.engines.pytorch.made_memory import MadeMemoryFilled
from forebay_server.engines.pytorch.vetting import UnsafeModelError, vet_payloads, vet_program, vet_script

Tensors = tuple[torch.Tensor, ...]

_ONNX_TYPE_BY_DTYPE = {
    torch.float32: "tensor(float)",
    torch.float16: "tensor(float16)",
    torch.bfloat16: "tensor(bfloat16)",
    torch.float64: "tensor(double)",
    torch.bool: "tensor(bool)",
    torch.uint8: "tensor(uint8)",
    torch.int8: "tensor(int8)",
    torch.int16: "tensor(int16)",
    torch.int32: "tensor(int32)",
    torch.int64: "tensor(int64)",
}
TORCH_DTYPE_BY_NUMPY: dict[np.dtype[np.generic], torch.dtype] = {
    BF16 if dtype is torch.bfloat16 else np.dtype(str(dtype).removeprefix("torch.")): dtype
    for dtype in _ONNX_TYPE_BY_DTYPE
}
_NAME = "backend 'torch'"
_EXPORTED_MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/\w+|models/\w+\.json|extra/.*"
    r"|data/weights/(?:weight_\d+|\w+_config\.json|\w+\.pt)"
    r"|data/constants/(?:tensor_\d+|\w+_config\.json|\w+\.pt)|data/sample_inputs/\w+\.pt",
    re.ASCII,
)
_FORCE_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_load_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Program:
    """A loaded model: its callable, its declared inputs and outputs, and its maximum of rows (None: no limit)."""

    run: Callable[..., Any]
    inputs: tuple[NodeInfo, ...]
    outputs: tuple[NodeInfo, ...]
    max_rows: int | None = None


def load_program(
    path: Path, torch_device: torch.device, inputs: str | None, outputs: str | None, max_batch_size: int | None
) -> Program:
    """Load a model onto `torch_device`. `inputs` and `outputs` describe TorchScript, which declares no shapes.

    Raises:
        ModelFileError: the file is missing, broken, unsafe to read, or unsupported.
    """
    require_model_file(path)
    try:
        with _load_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch deprecates TorchScript; Forebay still serves it
            if path.suffix == ".pt2":
                return _load_exported(path, torch_device)
            return _load_script(path, torch_device, inputs, outputs, max_batch_size)
    except EngineError:
        raise
    except Exception as error:
        raise ModelFileError(f"{path}: PyTorch cannot load it: {first_line(error)}") from error


def flatten(result: Any) -> Tensors:  # noqa: ANN401 - any result of a model
    """Return the tensors of a model's result in order: a tensor, or nested tuples, lists and dicts of them."""
    if isinstance(result, torch.Tensor):
        return (result,)
    parts = result.values() if isinstance(result, dict) else result
    return tuple(tensor for part in parts for tensor in flatten(part))


def first_line(error: Exception) -> str:
    """Return the first line of an exception."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _load_exported(path: Path, torch_device: torch.device) -> Program:
    _vet(path, _vet_exported)
    with _weights_only():
        exported = torch.export.load(path)
    if torch_device.type != "cpu":
        from torch.export.passes import move_to_device_pass

        exported = move_to_device_pass(exported, str(torch_device))
    signature = exported.graph_signature
    values = {node.name: node.meta.get("val") for node in exported.graph.nodes}
    inputs = tuple(_declared(path, name, values.get(name)) for name in signature.user_inputs)
    outputs = tuple(_declared(path, name, values.get(name)) for name in signature.user_outputs)
    return Program(exported.module(), inputs, outputs, _max_rows(exported, values, signature.user_inputs))


def _vet(path: Path, look: Callable[[Archive], None]) -> None:
    """Check an archive before PyTorch loads it. Raises ModelFileError."""
    try:
        with Archive(path) as archive:
            look(archive)
    except UnsafeModelError as error:
        raise ModelFileError(f"{path}: {error}") from None


def _vet_exported(archive: Archive) -> None:
    if "models/model.json" not in archive.names:
        raise UnsafeModelError("not a torch.export program of PyTorch 2.8 or newer: save it with torch.export.save")
    for name in archive.names:
        if not _EXPORTED_MEMBERS.fullmatch(name):
            raise UnsafeModelError(_why_not_served(name))
        if name.startswith("models/"):
            vet_program(archive.read(name))
        elif name.endswith("_config.json"):
            vet_payloads(archive.read(name))


def _why_not_served(name: str) -> str:
    if name.startswith("data/aotinductor/"):
        return "an AOTInductor package (native code), which is not served"
    if name.startswith("data/constants/"):
        return f"holds a pickled object ({name.rpartition('/')[2]}), which is not read: export tensors only"
    return f"holds {name[:64]!r}, which an export of tensors does not have"


def _vet_script(archive: Archive) -> None:
    sources = [
        name for name in archive.names if re.fullmatch(r"code/.*\.py", name, re.IGNORECASE)
    ]  # in PyTorch's order
    if not sources:
        raise UnsafeModelError(
            "pickled objects, such as a state_dict, and no program: export the model, and save it as model.pt2 with "
            "torch.export.save"
        )
    vet_script(archive.read(name) for name in sources)


@contextmanager
def _weights_only() -> Iterator[None]:
    before = os.environ.get(_FORCE_WEIGHTS_ONLY)
    os.environ[_FORCE_WEIGHTS_ONLY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FORCE_WEIGHTS_ONLY]
        else:
            os.environ[_FORCE_WEIGHTS_ONLY] = before


def _declared(path: Path, name: str, value: Any) -> NodeInfo:  # noqa: ANN401
    if not isinstance(value, torch.Tensor):
        raise ModelFileError(f"{path}: {name!r} is {type(value).__name__}, not a tensor: export tensors only")
    shape = tuple(dim if isinstance(dim, int) else None for dim in value.shape)
    return NodeInfo(name, _ONNX_TYPE_BY_DTYPE.get(value.dtype, str(value.dtype)), shape)


def _max_rows(exported: Any, values: dict[str, Any], inputs: tuple[str, ...]) -> int | None:  # noqa: ANN401
    shape = values[inputs[0]].shape if inputs else ()
    if not shape or isinstance(shape[0], int):
        return None
    bounds = exported.range_constraints.get(shape[0].node.expr)
    try:
        return int(bounds.upper)
    except (AttributeError, TypeError, OverflowError, ValueError):
        return None  # unbounded


def _load_script(
    path: Path, torch_device: torch.device, inputs: str | None, outputs: str | None, max_batch_size: int | None
) -> Program:
    _vet(path, _vet_script)
    if inputs is None:
        raise ModelFileError(
            f"{path}: TorchScript declares no shapes: write input and output in config.pbtxt, or "
            "set option inputs, as in image:FP32:3,224,224"
        )
    has_batch = max_batch_size != 0
    module = torch.jit.load(str(path), map_location=torch_device).eval()
    declared = _parse_tensors("inputs", inputs, has_batch=has_batch)
    if outputs is not None:
        return Program(module, declared, _parse_tensors("outputs", outputs, has_batch=has_batch))
    return Program(module, declared, _try_outputs(module, declared, torch_device))


def _parse_tensors(option: str, text: str, *, has_batch: bool) -> tuple[NodeInfo, ...]:
    nodes = []
    for part in filter(None, (item.strip() for item in text.split(";"))):
        fields = part.split(":")
        dtype = DTYPE_BY_NAME.get(fields[1]) if len(fields) in {2, 3} else None
        if dtype not in TORCH_DTYPE_BY_NUMPY:
            raise ModelFileError(
                f"{_NAME}: option {option}: {part!r} must be NAME:TYPE:DIMS, as in image:FP32:3,224,224"
            )
        dims = tuple(int(dim) for dim in fields[2].split(",")) if len(fields) == 3 else ()
        shape = (None, *dims) if has_batch else dims
        nodes.append(NodeInfo(fields[0], _ONNX_TYPE_BY_DTYPE[TORCH_DTYPE_BY_NUMPY[dtype]], shape))
    return tuple(nodes)


def _try_outputs(module: Any, inputs: tuple[NodeInfo, ...], torch_device: torch.device) -> tuple[NodeInfo, ...]:  # noqa: ANN401
    """Run the model on zeros, twice if it has a batch, and find its outputs and the dimension that follows the rows."""
    shapes = []
    results: Tensors = ()
    for rows in (2, 1):
        tensors = [
            torch.zeros([dim if isinstance(dim, int) else rows for dim in node.shape], device=torch_device).to(
                next(dtype for dtype, name in _ONNX_TYPE_BY_DTYPE.items() if name == node.type)
            )
            for node in inputs
        ]
        with torch.inference_mode(), MadeMemoryFilled(0):  # first runs make constants, of zeros if of anything
            results = flatten(module(*tensors))
        shapes.append([tuple(result.shape) for result in results])
    return tuple(
        NodeInfo(
            f"output_{index}",
            _ONNX_TYPE_BY_DTYPE.get(result.dtype, str(result.dtype)),
            tuple(one if one == two else None for one, two in zip(shapes[1][index], shapes[0][index], strict=True)),
        )
        for index, result in enumerate(results)
    )


def limit_rows(program: Program, max_batch_size: int | None, name: str) -> int | None:
    """Return the batch size limit to apply to `program`. Raises ModelFileError if it takes fewer rows than asked."""
    if program.max_rows is None:
        return max_batch_size
    if max_batch_size is None:
        return min(program.max_rows, DEFAULT_MAX_BATCH_SIZE)
    if max_batch_size > program.max_rows:
        raise ModelFileError(
            f"{name}: max_batch_size is {max_batch_size}, but it was exported for at most {program.max_rows} rows"
        )
    return max_batch_size
