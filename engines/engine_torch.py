"""PyTorch models: torch.export programs (.pt2) and TorchScript (.pt), on CUDA or the CPU. Parts in engines/pytorch.

Theory of operation
    A run reads the slot's input buffers in place and ends by copying its results into the slot's output buffers.
    CUDA: every (slot, batch size) of `warm_up` becomes one CUDA graph, captured on Forebay's own device stream, with
    that copy in it. All graphs of an instance share one memory pool, since its one compute stream runs them one after
    the other.
    So no data in the pool outlives a run: the scratch memory of a graph captured early may overlap the result of a
    later one, and that graph may run while d2h still reads another slot's results. Other sizes, and models that cannot
    be captured, run plainly on the same stream; `launches` counts both ways.
    CPU: the run ends inside `enqueue`.

Safety: nothing is unpickled into objects. A .pt2 is loaded with weights only, and one that holds pickled objects is
refused; TorchScript has its own restricted reader. A model is still a program: load models that you trust.

Not here: tensors without a fixed row size, AOTInductor packages (native code).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from forebay_server.engines.backends import BACKENDS
from forebay_server.engines.clock import Clock
from forebay_server.engines.datatypes import NAME_BY_DTYPE
from forebay_server.engines.device import Device, DeviceBuffer, DeviceStream
from forebay_server.engines.engine import Engine, EngineSpecs, SlotBuffers
from forebay_server.engines.errors import EngineError, ExecutionError, MisuseError, ModelFileError
from forebay_server.engines.launches import Launches
from forebay_server.engines.onnx_specs import BatchedSpecs, derive_specs
from forebay_server.engines.options import MOST_THREADS, OptionReader
from forebay_server.engines.proof import prove_outputs
from forebay_server.engines.pytorch.initialized import uninitialized_outputs
from forebay_server.engines.pytorch.program import Tensors, flatten, limit_rows, load_program
from forebay_server.engines.pytorch.target import open_target

_WARM_UP_RUNS = 3
"""Before a capture, as PyTorch's own notes on CUDA graphs advise: cuBLAS and cuDNN initialise lazily."""


@dataclass(slots=True)
class _BoundSlot:
    """A slot as tensors of max_batch_size rows over its buffers, and its graphs by batch size."""

    buffers: SlotBuffers
    inputs: Tensors
    outputs: Tensors
    graphs: dict[int, Any] = field(default_factory=dict)


class TorchEngine:
    """See the module.

    Options:
        inputs, outputs: for TorchScript, which declares no shapes: `NAME:TYPE:DIMS;...` without the batch dimension,
            as in `image:FP32:3,224,224`. `outputs` may be left out: they are then found by a trial run.
        intra_op_threads: on the CPU, for the whole process (1).
        cuda_graphs: `on` or `off`.
        allow_tf32: `on` (10 bits of mantissa in convolutions and matrix products) or `off`, for the whole process.
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
            raise ModelFileError(
                "backend 'torch' needs a model file: put model.pt2 or model.pt in the version's folder"
            )
        reader = OptionReader("torch", options, BACKENDS["torch"].options)
        self._name = str(model_path)
        self._device = device
        self._target = open_target(device)
        self._wants_graphs = reader.text("cuda_graphs", "on", ("on", "off")) == "on" and self._target.is_cuda
        self.launches = Launches()
        torch.set_num_threads(max(1, reader.integer("intra_op_threads", 1, maximum=MOST_THREADS)))
        allow_tf32 = reader.text("allow_tf32", "on", ("on", "off")) == "on"
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allow_tf32
        program = load_program(
            model_path, self._target.torch_device, options.get("inputs"), options.get("outputs"), max_batch_size
        )
        max_batch_size = limit_rows(program, max_batch_size, self._name)
        self._run = program.run
        self._layout: BatchedSpecs = derive_specs(self._name, program.inputs, program.outputs, max_batch_size)
        self._slots: dict[int, _BoundSlot] = {}
        self._pool: Any = None
        self._is_closed = False

    @property
    def specs(self) -> EngineSpecs:
        """Inputs and outputs of the model."""
        return self._layout.specs

    def bind(self, slot: SlotBuffers) -> None:
        """Take the buffers of `slot`. Raises ModelFileError if a tensor has no fixed row size."""
        if slot.index in self._slots:
            raise MisuseError(f"slot {slot.index} is bound already")
        self._layout.check_buffers(self._name, slot)
        rows = self.specs.max_batch_size
        inputs, outputs = (
            tuple(
                self._target.tensor_over(buffer, tuple(self._layout.run_shape(spec, rows)), spec.dtype)
                for spec, buffer in zip(specs, buffers, strict=True)
            )
            for specs, buffers in ((self.specs.inputs, slot.inputs), (self.specs.outputs, slot.outputs))
        )
        self._slots[slot.index] = _BoundSlot(slot, inputs, outputs)

    def warm_up(self, batch_sizes: tuple[int, ...], device_stream: DeviceStream) -> None:
        """Run every size on every slot, capture each as a graph on CUDA, and prove each. Blocks."""
        for slot in self._slots.values():
            with self._target.current(device_stream):
                for tensor in slot.inputs:
                    tensor.zero_()
        self._check_initialized(batch_sizes, device_stream)
        runs = tuple(product(self._slots, batch_sizes))
        if self._wants_graphs:
            for (slot_index, batch_size), _ in product(runs, range(_WARM_UP_RUNS)):
                self.enqueue(slot_index, batch_size, device_stream)
            device_stream.sync()
            self._target.trim()  # free the memory of those runs: graphs have memory of their own
            self._capture_all(runs, device_stream)
        prove_outputs(self, runs, self._device, device_stream, self._name)  # a graph's first launch is slower, too
        self.launches = Launches()

    def enqueue(self, slot_index: int, batch_size: int, device_stream: DeviceStream) -> None:
        """Run rows 0..batch_size-1 of a slot. Blocks: on the CPU, with the GIL released inside operators."""
        slot = self._slot(slot_index, batch_size)
        try:
            with torch.inference_mode(), self._target.current(device_stream):
                graph = slot.graphs.get(batch_size)
                if graph is not None:
                    graph.replay()
                    self.launches.graph += 1
                else:
                    self._call(slot, batch_size)
                    self.launches.plain += 1
        except EngineError:
            raise
        except Exception as error:
            raise self._target.error_for(error, batch_size) from error

    def outputs(self, slot_index: int, batch_size: int) -> tuple[DeviceBuffer, ...]:  # noqa: ARG002
        """Return the slot's own output buffers."""
        return self._slots[slot_index].buffers.outputs

    def close(self) -> None:
        """Free graphs, tensors and the model. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        for slot in self._slots.values():
            slot.graphs.clear()
        self._slots.clear()
        self._run = _closed
        self._pool = None
        self._target.close()

    def _slot(self, slot_index: int, batch_size: int) -> _BoundSlot:
        slot = self._slots.get(slot_index)
        if slot is None or self._is_closed:
            raise MisuseError(f"slot {slot_index} is not bound")
        if not 1 <= batch_size <= self.specs.max_batch_size:
            raise MisuseError(f"batch size {batch_size} is outside 1..{self.specs.max_batch_size}")
        return slot

    def _check_initialized(self, batch_sizes: tuple[int, ...], device_stream: DeviceStream) -> None:
        """Refuse a program whose results contain memory that it never wrote. Before any other run of it."""
        for slot, batch_size in product(tuple(self._slots.values())[:1], batch_sizes):
            try:
                with torch.inference_mode(), self._target.current(device_stream):
                    found = uninitialized_outputs(partial(self._results, slot, batch_size))
            except EngineError:
                raise
            except Exception as error:
                raise self._target.error_for(error, batch_size) from error
            for index, count in found.items():
                raise ModelFileError(
                    f"{self._name}: output {self.specs.outputs[index].name!r} holds {count} elements that the model "
                    "makes and never writes, with its old contents: make it with torch.zeros, not torch.empty"
                )

    def _results(self, slot: _BoundSlot, batch_size: int) -> Tensors:
        rows = self._layout.fixed_rows or batch_size
        has_batch = self.specs.has_batch_dimension
        results = flatten(self._run(*((t[:rows] if has_batch else t) for t in slot.inputs)))
        if len(results) != len(self.specs.outputs):
            raise ExecutionError(f"the model gave {len(results)} outputs, not {len(self.specs.outputs)}")
        return results

    def _call(self, slot: _BoundSlot, batch_size: int) -> None:
        """Run the model on the slot's inputs and copy the results into its outputs, on the current stream."""
        rows = self._layout.fixed_rows or batch_size
        has_batch = self.specs.has_batch_dimension
        results = self._results(slot, batch_size)
        for result, target, spec in zip(results, slot.outputs, self.specs.outputs, strict=True):
            if list(result.shape) != self._layout.run_shape(spec, batch_size):
                raise ExecutionError(f"output {spec.name!r} has shape {tuple(result.shape)} for {batch_size} rows")
            if result.dtype != target.dtype:  # copy_ would convert silently
                found = str(result.dtype).removeprefix("torch.")
                raise ExecutionError(
                    f"output {spec.name!r} is {found}, but {NAME_BY_DTYPE[spec.dtype]} is configured: configure what "
                    "the model gives, or convert within the model"
                )
            (target[:rows] if has_batch else target).copy_(result)

    def _capture_all(self, runs: tuple[tuple[int, int], ...], device_stream: DeviceStream) -> None:
        for slot_index, batch_size in runs:
            slot = self._slots[slot_index]
            if self._wants_graphs and batch_size not in slot.graphs:
                self._capture(slot, batch_size, device_stream)

    def _capture(self, slot: _BoundSlot, batch_size: int, device_stream: DeviceStream) -> None:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        try:
            # not torch.cuda.graph: it waits for the whole device at each capture, and so for other models' batches
            with torch.inference_mode(), self._target.current(device_stream):
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    self._call(slot, batch_size)
                finally:
                    graph.capture_end()
        except Exception as error:  # torch raises many types; the plain way stays, unless the device is lost
            problem = self._target.error_for(error, batch_size)
            if not isinstance(problem, ExecutionError):
                raise problem from error
            self._wants_graphs = False
            return
        slot.graphs[batch_size] = graph


def _closed(*_tensors: torch.Tensor) -> Tensors:
    raise MisuseError("engine used after close")


def _conforms(engine: TorchEngine) -> Engine:
    return engine
