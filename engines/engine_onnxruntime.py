"""ONNX Runtime on the CPU: the default engine.

One session per instance, sequential, one thread unless `intra_op_threads` says more, and no spinning: other instances
and the front end share the cores. Buffers are bound by address, one IOBinding per (slot, batch size), so that a call
costs microseconds and allocates nothing. ONNX Runtime does not write outputs that are an input of the graph, or listed
twice, to their bound address: they are left out of the binding and copied (`engines.onnx_specs.copied_outputs`).

A model whose first dimension is fixed at N above 1 and whose `max_batch_size` is N always runs N rows; the rows beyond
a batch are computed and never read. Models with tensors of no fixed row size (variable inner dimensions, BYTES) are
refused by `bind` and run unbound: `run`.
"""

import ctypes
import functools
import math
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from forebay_server.engines.backends import BACKENDS
from forebay_server.engines.changes import ModelChanges
from forebay_server.engines.clock import Clock
from forebay_server.engines.datatypes import BF16
from forebay_server.engines.device import Device, DeviceBuffer, DeviceKind, DeviceStream
from forebay_server.engines.engine import Engine, EngineSpecs, SlotBuffers, TensorSpec
from forebay_server.engines.errors import (
    BackendUnavailableError,
    ExecutionError,
    MisuseError,
    ModelFileError,
    RunMemoryError,
)
from forebay_server.engines.host_memory import copy, memory_of
from forebay_server.engines.model_file import other_form, require_model_file
from forebay_server.engines.onnx_head import read_model
from forebay_server.engines.onnx_sizes import sizes_follow_inputs
from forebay_server.engines.onnx_specs import CopiedOutput, NodeInfo, copied_outputs, derive_specs
from forebay_server.engines.onnx_words import NO_MEMORY, public_words
from forebay_server.engines.options import MOST_THREADS, OptionReader
from forebay_server.engines.proof import prove_outputs

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
_FOLDER_OF_WEIGHTS = "session.model_external_initializers_file_folder_path"
_SAME_AS_REQUESTED = 1
_ONNX_BFLOAT16 = 16  # TensorProto.BFLOAT16: numpy has no type to name it by
_LOG_FATAL = 4
"""ONNX Runtime's own log would repeat on stderr the exceptions raised here."""


@dataclass(slots=True)
class _Run:
    """One (slot, batch size), prepared.

    Attributes:
        binding: an IOBinding; None for a graph without any output of its own, which needs no run.
        addresses: of the bound outputs.
        copies: target and source, to be copied in this order after the run.
        is_proven: whether a run was seen to leave its results at these addresses.
    """

    binding: Any
    addresses: list[int]
    copies: tuple[tuple[NDArray[np.uint8], NDArray[np.uint8]], ...]
    is_proven: bool = False


class OnnxruntimeEngine:
    """See the module.

    Options:
        intra_op_threads: 1; 0 lets ONNX Runtime choose.
        provider: `cpu`, `cuda`, `tensorrt` or `openvino`, where the installed ONNX Runtime has it. Buffers stay in host
            memory, so with the others ONNX Runtime copies by itself and nothing overlaps: backends `tensorrt` and
            `torch` are faster on a GPU.
        optional_inputs: names, one a line, of initializers that requests may replace. A model that has one of them
            runs unbound.
    """

    def __init__(
        self,
        *,
        model_path: Path | None,
        device: Device,
        clock: Clock,  # noqa: ARG002 - every engine is built with the same keywords
        options: Mapping[str, str],
        max_batch_size: int | None,
        changes: ModelChanges | None = None,
    ) -> None:
        if device.kind != DeviceKind.CPU:
            raise BackendUnavailableError(
                f"backend 'onnxruntime' runs on device 'cpu', not on {device.name!r}: use KIND_CPU in instance_group"
            )
        if model_path is None:
            raise ModelFileError("backend 'onnxruntime' needs a model file: put model.onnx in the version's folder")
        reader = OptionReader("onnxruntime", options, BACKENDS["onnxruntime"].options)
        self._device = device
        self._path, self._name = model_path, str(model_path)
        provider = reader.text("provider", "cpu", tuple(_PROVIDERS))
        self._is_on_host = provider == "cpu"
        self._session = _open_session(
            model_path,
            reader.integer("intra_op_threads", 1, maximum=MOST_THREADS),
            _PROVIDERS[provider],
            changes or ModelChanges(),
        )
        self._nodes = _read_nodes(self._name, self._session, reader.text("optional_inputs", "").split("\n"))
        self._layout = derive_specs(self._name, *self._nodes, max_batch_size)
        self._slots: dict[int, SlotBuffers] = {}
        self._copied = copied_outputs(self._layout.specs)
        self._runs: dict[tuple[int, int], _Run] = {}
        self._is_closed = False

    @property
    def specs(self) -> EngineSpecs:
        """Inputs and outputs of the model."""
        return self._layout.specs

    @property
    def launches(self) -> None:
        """None: executions run one way."""

    def settle(
        self, max_batch_size: int | None, *, is_bound: bool, output_shapes: Sequence[tuple[int, ...]] | None = None
    ) -> None:
        """See `UnboundEngine`."""
        if self._slots:
            raise MisuseError("settle after bind")
        layout = derive_specs(self._name, *self._nodes, max_batch_size)
        if output_shapes is not None:
            layout = layout.with_output_shapes(output_shapes)
        self._layout = layout if is_bound else layout.unbound(self._name)

    def sizes_follow_inputs(self) -> bool:
        """See `UnboundEngine`. Changes to the model add no node that makes them otherwise."""
        try:
            return sizes_follow_inputs(read_model(self._path))
        except ModelFileError:  # of another kind than a protobuf message: ONNX Runtime's own
            return False

    def bind(self, slot: SlotBuffers) -> None:
        """Take the buffers of `slot`. Raises ModelFileError if a tensor has no fixed row size."""
        self._check_open()
        if slot.index in self._slots:
            raise MisuseError(f"slot {slot.index} is bound already")
        self._layout.check_buffers(self._name, slot)
        self._slots[slot.index] = slot

    def warm_up(self, batch_sizes: tuple[int, ...], device_stream: DeviceStream) -> None:
        """Bind every size on every slot; prove each on the first slot, since the session is shared."""
        for slot_index in self._slots:
            for batch_size in batch_sizes:
                self._run_of(slot_index, batch_size)
        first = next(iter(self._slots.values()), None)
        if first is None:
            return
        sizes = sorted(batch_sizes, reverse=True)  # the arena of the largest size serves the others
        prove_outputs(self, ((first.index, size) for size in sizes), self._device, device_stream, self._name)

    def enqueue(self, slot_index: int, batch_size: int, device_stream: DeviceStream) -> None:  # noqa: ARG002
        """Run rows 0..batch_size-1 of a slot. Blocks: until the run is done, with the GIL released."""
        run = self._runs.get((slot_index, batch_size)) or self._run_of(slot_index, batch_size)
        if run.binding is not None:
            try:
                self._session.run_with_iobinding(run.binding)
                if not self._is_on_host:
                    run.binding.synchronize_outputs()
            except Exception as error:
                raise ExecutionError(f"batch of {batch_size} failed: {public_words(error)}") from error
            if not run.is_proven:
                self._prove_addresses(run)
        for target, source in run.copies:
            copy(target, source)

    def run(self, inputs: Sequence[NDArray[Any] | None]) -> tuple[NDArray[Any], ...]:
        """Run an unbound model. Blocks: until the run is done, with the GIL released."""
        self._check_open()
        pairs = zip(self.specs.inputs, inputs, strict=True)
        feeds = {spec.name: array for spec, array in pairs if array is not None}
        names = [spec.name for spec in self.specs.outputs]
        try:
            if self._has_bfloat16:
                return _run_with_bfloat16(self._session, names, feeds)
            return tuple(np.asarray(value) for value in self._session.run(names, feeds))
        except Exception as error:
            words = public_words(error)
            kind = RunMemoryError if words == NO_MEMORY else ExecutionError
            raise kind(f"execution failed: {words}") from error

    def outputs(self, slot_index: int, batch_size: int) -> tuple[DeviceBuffer, ...]:  # noqa: ARG002
        """Return the slot's own output buffers."""
        return self._slots[slot_index].outputs

    def close(self) -> None:
        """Free the session. Idempotent."""
        self._is_closed = True
        self._runs.clear()
        self._slots.clear()
        self._session = None

    def _run_of(self, slot_index: int, batch_size: int) -> _Run:
        self._check_open()
        slot = self._slots.get(slot_index)
        if slot is None:
            raise MisuseError(f"slot {slot_index} is not bound")
        if not 1 <= batch_size <= self.specs.max_batch_size:
            raise MisuseError(f"batch size {batch_size} is outside 1..{self.specs.max_batch_size}")
        key = (slot_index, batch_size)
        if key not in self._runs:
            self._runs[key] = self._prepare(slot, batch_size)
        return self._runs[key]

    def _prepare(self, slot: SlotBuffers, batch_size: int) -> _Run:
        binding, addresses = self._session.io_binding(), []
        for spec, buffer in zip(self.specs.inputs, slot.inputs, strict=True):
            shape = self._layout.run_shape(spec, batch_size)
            binding.bind_input(spec.name, "cpu", 0, _element_type(spec), shape, buffer.address)
        copied = {each.index for each in self._copied}
        for index, (spec, buffer) in enumerate(zip(self.specs.outputs, slot.outputs, strict=True)):
            if index not in copied:
                shape = self._layout.run_shape(spec, batch_size)
                binding.bind_output(spec.name, "cpu", 0, _element_type(spec), shape, buffer.address)
                addresses.append(buffer.address)
        copies = tuple(self._copy_of(each, slot, batch_size) for each in self._copied)
        return _Run(binding if addresses else None, addresses, copies)

    def _prove_addresses(self, run: _Run) -> None:
        """Refuse results that are elsewhere than in the slot. Once per (slot, batch size), after its first run."""
        for value, address in zip(run.binding.get_outputs(), run.addresses, strict=True):
            if value.data_ptr() == address or 0 in value.shape():  # no elements lie at no address
                continue
            raise ExecutionError(f"{self._name}: ONNX Runtime left an output elsewhere than where it was bound")
        run.is_proven = True

    def _copy_of(
        self, copied: CopiedOutput, slot: SlotBuffers, batch_size: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        source = (slot.inputs if copied.is_input else slot.outputs)[copied.source_index]
        nbytes = self.specs.outputs[copied.index].row_bytes * batch_size
        return memory_of(slot.outputs[copied.index])[:nbytes], memory_of(source)[:nbytes]

    @property
    def _has_bfloat16(self) -> bool:
        return any(spec.dtype == BF16 for spec in (*self.specs.inputs, *self.specs.outputs))

    def _check_open(self) -> None:
        if self._is_closed:
            raise MisuseError("engine used after close")


def _element_type(spec: TensorSpec) -> Any:  # noqa: ANN401 - a numpy type or a number of ONNX
    return _ONNX_BFLOAT16 if spec.dtype == BF16 else spec.dtype.type


def _run_with_bfloat16(
    session: Any,  # noqa: ANN401
    names: Sequence[str],
    feeds: Mapping[str, NDArray[Any]],
) -> tuple[NDArray[Any], ...]:
    """Run with ONNX Runtime's own values: it takes and gives numpy's arrays, and numpy has no type for BF16."""
    dense = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in feeds.items()}
    values = {name: _value_over(array) for name, array in dense.items()}
    return tuple(_array_of(value) for value in session.run_with_ort_values(names, values))


def _value_over(array: NDArray[Any]) -> Any:  # noqa: ANN401
    """Return a value that is the memory of `array`, which must outlive it."""
    if array.dtype == BF16:
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), _ONNX_BFLOAT16)
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _array_of(value: Any) -> NDArray[Any]:  # noqa: ANN401
    if value.data_type() != "tensor(bfloat16)":
        return np.asarray(value.numpy())
    shape = tuple(value.shape())
    return np.frombuffer(ctypes.string_at(value.data_ptr(), BF16.itemsize * math.prod(shape)), BF16).reshape(shape)


_arena_lock = threading.Lock()


@functools.cache
def _share_arena() -> None:
    """Let all sessions allocate their activations from one arena that grows by the requested size.

    Otherwise each would have its own, which doubles whenever it is full: for the bundled models 20 MB more.
    """
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    configuration = onnxruntime.OrtArenaCfg({"arena_extend_strategy": _SAME_AS_REQUESTED})
    onnxruntime.create_and_register_allocator(memory, configuration)


def _open_session(model_path: Path, intra_op_threads: int, provider: str, changes: ModelChanges) -> Any:  # noqa: ANN401
    require_model_file(model_path)
    with _arena_lock:  # models may be opened side by side, and a second arena is an error
        _share_arena()
    options = onnxruntime.SessionOptions()
    options.enable_mem_pattern = False  # a plan of the memory of every size: a fifth more memory, no gain in speed
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _LOG_FATAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    for name, number in changes.dimensions.items():
        options.add_free_dimension_override_by_name(name, number)
    source: str | bytes = str(model_path)
    if changes.content is not None:
        source = changes.content
        options.add_session_config_entry(_FOLDER_OF_WEIGHTS, str(model_path.parent))
    if provider not in onnxruntime.get_available_providers():
        raise BackendUnavailableError(
            f"this ONNX Runtime has no {provider}: install the build that has it, such as onnxruntime-gpu"
        )
    try:
        # Without the fallback of the Python layer, which prints to standard output and repeats the same attempt.
        session = onnxruntime.InferenceSession(source, options, providers=[provider], enable_fallback=0)
    except Exception as error:
        form = other_form(model_path)
        why = f"it is {form}: export the model as ONNX" if form else public_words(error)
        raise ModelFileError(f"{model_path}: ONNX Runtime cannot load it: {why}") from error
    if session.get_providers()[0] != provider:  # it falls back to the CPU silently
        raise BackendUnavailableError(f"{provider} does not start here: check the driver and the CUDA libraries")
    return session


def _read_nodes(
    name: str,
    session: Any,  # noqa: ANN401
    optional: Collection[str],
) -> tuple[list[NodeInfo], list[NodeInfo]]:
    try:
        inputs = [NodeInfo(node.name, node.type, tuple(node.shape)) for node in session.get_inputs()]
        inputs += [
            NodeInfo(node.name, node.type, tuple(node.shape), is_optional=True)
            for node in (session.get_overridable_initializers() if any(optional) else ())
            if node.name in optional
        ]
        outputs = [NodeInfo(node.name, node.type, tuple(node.shape)) for node in session.get_outputs()]
    except UnicodeDecodeError:
        raise ModelFileError(f"{name}: an input or an output has a name that is not UTF-8: rename it") from None
    return inputs, outputs


def _conforms(engine: OnnxruntimeEngine) -> Engine:
    return engine
