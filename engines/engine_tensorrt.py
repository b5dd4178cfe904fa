"""TensorRT 10.x and 11.x and TensorRT-RTX: plans, with one code path. Parts in engines/trt.

Theory of operation
    Per slot there is one execution context per captured batch size, each with its own CUDA graph (a context belongs to
    one graph: changing its shape would invalidate it), and one plain context for other sizes, which is also used where
    capture fails. Addresses are the slot's; shapes are set once per captured size.

    All contexts of an instance share one activation memory, allocated here. This is sound because the instance's one
    compute stream runs them one after the other (plans are built with max_aux_streams=0). If you run one instance on
    two device streams, they overwrite each other's activations (tests/unit/engines/test_engine_tensorrt.py).

    A plan is trusted only if its manifest matches (engines/trt/manifest).

Not run here so far: real TensorRT on a GPU. The calls are checked against the real bindings, and the logic against
stand-ins; docs/gpu.md says what is verified and how.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from forebay_server.engines.backends import BACKENDS
from forebay_server.engines.clock import Clock
from forebay_server.engines.device import Device, DeviceBuffer, DeviceKind, DeviceStream, Graph
from forebay_server.engines.engine import Engine, EngineSpecs, SlotBuffers, TensorSpec
from forebay_server.engines.errors import BackendUnavailableError, ExecutionError, MisuseError, ModelFileError
from forebay_server.engines.launches import Launches
from forebay_server.engines.model_file import require_model_file
from forebay_server.engines.options import OptionReader
from forebay_server.engines.proof import prove_outputs
from forebay_server.engines.trt import library as libraries
from forebay_server.engines.trt import manifest
from forebay_server.engines.trt.layer_times import make_profiler
from forebay_server.engines.trt.library import Library
from forebay_server.engines.trt.plan import Plan, deserialize, read_plan

DEFAULT_GRAPH_SIZES = (1, 2, 4, 8, 16, 32)
_WARM_UP_RUNS = 2
"""Before a capture: the first enqueue after setting shapes finishes deferred work that cannot be captured."""


@dataclass(slots=True)
class _Context:
    """An execution context whose shapes and profile are set for `batch_size` rows (0: not yet)."""

    raw: Any
    batch_size: int = 0
    profile: int = -1
    graph: Graph | None = None


@dataclass(slots=True)
class _BoundSlot:
    buffers: SlotBuffers
    plain: _Context
    captured: dict[int, _Context] = field(default_factory=dict)


class TensorrtEngine:
    """See the module.

    Options:
        library: `auto`, `tensorrt` or `tensorrt-rtx`.
        cuda_graphs: `on` or `off`.
        graph_sizes: batch sizes to capture, of those that are warmed up (`1,2,4,8,16,32`).
        on_mismatch: treatment of a plan whose manifest does not match: `refuse`, `rebuild` it from the ONNX file that
        the manifest names, beside it, or `ignore`.
        allow_host_code: `on` for version-compatible plans, which hold code of their own; trust them first.
    """

    def __init__(
        self,
        *,
        model_path: Path | None,
        device: Device,
        clock: Clock,  # noqa: ARG002 - every engine is built with the same keywords
        options: Mapping[str, str],
        max_batch_size: int | None,
    ) -> None:
        if model_path is None:
            raise ModelFileError("backend 'tensorrt' needs a model file: put model.plan in the version's folder")
        if device.kind == DeviceKind.CPU:
            raise BackendUnavailableError(
                "backend 'tensorrt' runs on a GPU, not on device 'cpu': ask for KIND_GPU in instance_group"
            )
        reader = OptionReader("tensorrt", options, BACKENDS["tensorrt"].options)
        self._device = device
        self._name = str(model_path)
        self._library = libraries.load(reader.text("library", "auto", ("auto", *libraries.NAMES)))
        self._graph_sizes = frozenset(reader.shape("graph_sizes") or DEFAULT_GRAPH_SIZES)
        self._wants_graphs = reader.text("cuda_graphs", "on", ("on", "off")) == "on"
        on_mismatch = reader.text("on_mismatch", "refuse", ("refuse", "rebuild", "ignore"))
        allows_host_code = reader.text("allow_host_code", "off", ("on", "off")) == "on"
        data = _trusted_plan(model_path, self._library, self._device, on_mismatch)
        self._trt_runtime, self._trt_engine = deserialize(
            self._library, data, model_path, allows_host_code=allows_host_code
        )
        self._plan: Plan = read_plan(self._library, self._trt_engine, model_path, max_batch_size)
        self._activations = device.alloc_device(max(1, self._plan.activation_bytes))
        self._slots: dict[int, _BoundSlot] = {}
        self._is_closed = False
        self.launches = Launches()

    @property
    def specs(self) -> EngineSpecs:
        """Inputs and outputs of the model."""
        return self._plan.layout.specs

    def bind(self, slot: SlotBuffers) -> None:
        """Take the buffers of `slot` and make its plain context."""
        if slot.index in self._slots:
            raise MisuseError(f"slot {slot.index} is bound already")
        self._plan.layout.check_buffers(self._name, slot)
        self._slots[slot.index] = _BoundSlot(slot, self._new_context(slot))

    def warm_up(self, batch_sizes: tuple[int, ...], device_stream: DeviceStream) -> None:
        """Capture the sizes that have a graph, and prove every size on every slot. Blocks."""
        for slot, batch_size in product(self._slots.values(), batch_sizes):
            self._check_size(batch_size)
            if batch_size in self._graph_sizes and batch_size not in slot.captured:
                self._capture(slot, batch_size, device_stream)
        prove_outputs(self, product(self._slots, batch_sizes), self._device, device_stream, self._name)
        self.launches = Launches()

    def enqueue(self, slot_index: int, batch_size: int, device_stream: DeviceStream) -> None:
        """Enqueue one execution: one graph launch, or one plain enqueue. Never blocks."""
        slot = self._slots.get(slot_index)
        if slot is None or self._is_closed:
            raise MisuseError(f"slot {slot_index} is not bound")
        captured = slot.captured.get(batch_size)
        if captured is not None and captured.graph is not None:
            captured.graph.launch(device_stream)
            self.launches.graph += 1
            return
        self._check_size(batch_size)
        self._prepare(slot.plain, batch_size, device_stream)
        self._execute(slot.plain, device_stream)
        self.launches.plain += 1

    def outputs(self, slot_index: int, batch_size: int) -> tuple[DeviceBuffer, ...]:  # noqa: ARG002
        """Return the slot's own output buffers."""
        return self._slots[slot_index].buffers.outputs

    def layer_times(
        self, slot_index: int, batch_size: int, device_stream: DeviceStream, runs: int
    ) -> list[tuple[str, float]]:
        """Return layers with the mean milliseconds of an execution, the slowest first. Not while serving. Blocks."""
        self._check_size(batch_size)
        context = self._new_context(self._slots[slot_index].buffers)
        self._prepare(context, batch_size, device_stream)
        self._execute(context, device_stream)
        device_stream.sync()
        profiler = make_profiler(self._library.trt)
        trt_context = context.raw
        trt_context.profiler = profiler
        for _ in range(runs):
            self._execute(context, device_stream)
            device_stream.sync()
        times = [(name, total_ms / runs) for name, total_ms in profiler.total_ms.items()]
        return sorted(times, key=lambda each: -each[1])

    def close(self) -> None:
        """Free graphs, contexts, the engine and its activation memory, in this order. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        for slot in self._slots.values():
            for context in slot.captured.values():
                if context.graph is not None:
                    context.graph.close()
            slot.captured.clear()
            slot.plain.raw = None
        self._slots.clear()
        self._trt_engine = None
        self._trt_runtime = None
        self._activations.close()

    def _check_size(self, batch_size: int) -> None:
        if not 1 <= batch_size <= self.specs.max_batch_size:
            raise MisuseError(f"batch size {batch_size} is outside 1..{self.specs.max_batch_size}")

    def _new_context(self, slot: SlotBuffers) -> _Context:
        trt, mark = self._library.trt, self._library.log.mark()
        trt_context = self._trt_engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if trt_context is None:
            raise self._failed("an execution context cannot be made", mark)
        if self._plan.activation_bytes:
            if hasattr(trt_context, "set_device_memory"):
                trt_context.set_device_memory(self._activations.address, self._plan.activation_bytes)
            else:
                trt_context.device_memory = self._activations.address
        specs = self.specs
        tensors = (*zip(specs.inputs, slot.inputs, strict=True), *zip(specs.outputs, slot.outputs, strict=True))
        for spec, buffer in tensors:
            if not trt_context.set_tensor_address(spec.name, buffer.address):
                raise self._failed(f"tensor {spec.name!r} does not take its address", mark)
        return _Context(trt_context)

    def _prepare(self, context: _Context, batch_size: int, device_stream: DeviceStream) -> None:
        """Set profile and shapes, if they differ from the last time."""
        if context.batch_size == batch_size:
            return
        trt_context, mark = context.raw, self._library.log.mark()
        chosen = self._plan.profile_for(batch_size)
        if chosen is None:
            raise MisuseError(f"no optimization profile of {self._name} covers {batch_size} rows")
        context.batch_size = 0
        try:
            self._select(context, chosen.index, device_stream)
            for spec in self.specs.inputs:
                if not trt_context.set_input_shape(spec.name, self._shape(spec, batch_size)):
                    raise self._failed(f"input {spec.name!r} does not take {batch_size} rows", mark)
            missing = trt_context.infer_shapes()
        except RuntimeError as error:
            raise self._failed(f"shapes of {batch_size} rows are refused: {error}", mark) from error
        if missing:
            raise self._failed(f"shapes of {list(missing)} are unknown", mark)
        self._check_outputs(trt_context, batch_size)
        context.batch_size = batch_size

    def _check_outputs(self, trt_context: Any, batch_size: int) -> None:  # noqa: ANN401
        """Refuse a plan whose executions would write less than the batch's rows, or beyond them."""
        for spec in self.specs.outputs:
            found = tuple(trt_context.get_tensor_shape(spec.name))
            if found != self._shape(spec, batch_size):
                raise ExecutionError(f"{self._name}: output {spec.name!r} has shape {found} for {batch_size} rows")

    def _select(self, context: _Context, profile: int, device_stream: DeviceStream) -> None:
        if context.profile == profile:
            return
        trt_context, mark = context.raw, self._library.log.mark()
        if not trt_context.set_optimization_profile_async(profile, device_stream.handle):
            raise self._failed(f"profile {profile} cannot be set", mark)
        context.profile = profile

    def _shape(self, spec: TensorSpec, batch_size: int) -> tuple[int, ...]:
        return tuple(self._plan.layout.run_shape(spec, batch_size))

    def _execute(self, context: _Context, device_stream: DeviceStream) -> None:
        trt_context, mark = context.raw, self._library.log.mark()
        if not trt_context.execute_async_v3(device_stream.handle):
            raise self._failed(f"batch of {context.batch_size} failed", mark)

    def _capture(self, slot: _BoundSlot, batch_size: int, device_stream: DeviceStream) -> None:
        if not self._wants_graphs:
            return
        context = self._new_context(slot.buffers)
        self._prepare(context, batch_size, device_stream)
        for _ in range(_WARM_UP_RUNS):
            self._execute(context, device_stream)
        device_stream.sync()
        context.graph = device_stream.capture(lambda: self._execute(context, device_stream))
        if context.graph is None:
            self._wants_graphs = False  # neither this plan nor this device supports it: the plain context stays
            return
        slot.captured[batch_size] = context

    def _failed(self, what: str, mark: int) -> ExecutionError:
        """Return the error to raise. Raises DeviceLostError instead if the device is lost."""
        self._device.raise_if_lost()
        return ExecutionError(f"{self._name}: {what}: {self._library.errors_of(mark)}")


def _trusted_plan(path: Path, library: Library, device: Device, on_mismatch: str) -> bytes:
    """Read a plan that matches its manifest, after rebuilding it if the option asks for that."""
    require_model_file(path)
    data = path.read_bytes()
    if on_mismatch == "ignore":
        return data
    found = manifest.read(path)
    hardware = device.describe()
    capability = ".".join(str(part) for part in hardware.compute_capability or ())
    problems = manifest.mismatches(found, data, library.name, library.version, hardware.name, capability)
    if not problems:
        return data
    if on_mismatch == "refuse":
        raise ModelFileError(
            f"{path}: {'; '.join(problems)}. Build it here with `forebay engine build`, or set option on_mismatch to "
            "rebuild"
        )
    from forebay_server.engines.build.plans import rebuild

    return rebuild(path, found, library)


def _conforms(engine: TensorrtEngine) -> Engine:
    return engine
