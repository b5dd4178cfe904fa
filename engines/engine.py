"""The engine contract: an engine runs a model on a device, one `Engine` per model instance.

An engine is bound to the fixed buffers of a few slots and then only ever *enqueues*: no allocation in service.

Threads: `enqueue` and `outputs` are called by one thread at a time: the execute stage's, or the former's for a short
batch that is alone in its lane (docs/adr/0070), on synchronous devices only. `bind` and `warm_up` are called before
service, `close` after the stages have ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.device import DeviceBuffer, DeviceStream
from forebay_server.engines.launches import Launches


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, type and shape of one input or output.

    Attributes:
        name: as in the model file.
        dtype: numpy dtype; `np.dtype(object)` stands for BYTES.
        shape: without the batch dimension; -1 where it varies.
        is_optional: whether a run may do without it; of inputs.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    is_optional: bool = False

    @property
    def is_fixed(self) -> bool:
        """Whether every row has the same, known size."""
        return self.dtype != np.dtype(object) and all(dim >= 0 for dim in self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row. Raises ValueError if it varies."""
        if not self.is_fixed:
            raise ValueError(f"tensor {self.name!r} has no fixed size")
        elements = 1
        for dim in self.shape:
            elements *= dim
        return elements * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class EngineSpecs:
    """Inputs and outputs of a model.

    Attributes:
        inputs: in the model's order.
        outputs: in the model's order.
        max_batch_size: most rows of one execution, at least 1.
        has_batch_dimension: False for a model whose first dimension is not a batch; max_batch_size is 1 then.
        is_bound: False for a model whose outputs may have other sizes than it declares: it runs unbound.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int
    has_batch_dimension: bool = True
    is_bound: bool = True

    @property
    def is_fixed(self) -> bool:
        """Whether every tensor is always present with a fixed row size. Others run unbound: see `UnboundEngine`."""
        return self.is_bound and all(spec.is_fixed and not spec.is_optional for spec in (*self.inputs, *self.outputs))


@dataclass(frozen=True, slots=True)
class SlotBuffers:
    """The device side of one slot, as an engine sees it.

    Attributes:
        index: 0 .. slots-1.
        inputs: one buffer per input of `EngineSpecs`, of max_batch_size rows each.
        outputs: one buffer per output, likewise.
    """

    index: int
    inputs: tuple[DeviceBuffer, ...]
    outputs: tuple[DeviceBuffer, ...]


class Engine(Protocol):
    """One instance of a model on one device."""

    @property
    def specs(self) -> EngineSpecs:
        """Inputs and outputs of the model; constant once the first slot is bound."""
        ...

    @property
    def launches(self) -> Launches | None:
        """Number of executions by way, since `warm_up`; None for an engine with one way. Thread: any reads it."""
        ...

    def bind(self, slot: SlotBuffers) -> None:
        """Prepare executions that read and write the buffers of `slot`. Before `warm_up`; once per slot."""
        ...

    def warm_up(self, batch_sizes: tuple[int, ...], device_stream: DeviceStream) -> None:
        """Prepare every given batch size on every bound slot until lazy work (allocation, capture) is done. Blocks.

        Runs on the rows that the slots' inputs hold: zeros, unless the caller has written others.
        Proves that executions write every byte of rows 0..batch_size-1 of every output (`engines.proof`), unless that
        follows from the engine's own code. Raises ModelFileError if one does not.
        """
        ...

    def enqueue(self, slot_index: int, batch_size: int, device_stream: DeviceStream) -> None:
        """Enqueue one execution of rows 0..batch_size-1 of a bound slot.

        Blocks: on the host device until the run is done (with the GIL released); never on an asynchronous device.
        Raises: ExecutionError, DeviceLostError.
        """
        ...

    def outputs(self, slot_index: int, batch_size: int) -> tuple[DeviceBuffer, ...]:
        """Return the buffers with the outputs of the latest `enqueue` of that slot, in the order of `specs.outputs`.

        Usually the slot's own buffers; an engine that owns its output addresses returns those instead. Rows are dense
        from offset 0.
        """
        ...

    def close(self) -> None:
        """Free everything, after the device streams it used are idle. Idempotent."""
        ...


@runtime_checkable
class UnboundEngine(Engine, Protocol):
    """Extends `Engine` for models with tensors that vary in size or may be left out.

    Such a model is never bound, warmed up or enqueued. The engine can also run any other model this way, before its
    first slot is bound: a trial shows whether the sizes that a model declares are those of its outputs.
    """

    def settle(
        self, max_batch_size: int | None, *, is_bound: bool, output_shapes: Sequence[tuple[int, ...]] | None = None
    ) -> None:
        """Derive `specs` anew, as a trial has shown. Before `bind`.

        Args:
            max_batch_size: as `engines.open_engine` takes it.
            is_bound: of `EngineSpecs`.
            output_shapes: of one row of every output, in the order of `specs`; None for the declared shapes.

        Raises:
            ModelFileError: the model has no such batch.
        """
        ...

    def sizes_follow_inputs(self) -> bool:
        """Return whether inputs of one size always give outputs of one size; False where that is not known.

        Blocks: the model's file is read.
        """
        ...

    def run(self, inputs: Sequence[NDArray[Any] | None]) -> tuple[NDArray[Any], ...]:
        """Run on whole arrays, in the order of `specs`, BYTES as arrays of `str`; return arrays of the caller's own.

        None stands for an optional input that is left out.

        Blocks: until the run is done, with the GIL released. Thread: the execute stage's alone.
        Raises: ExecutionError, DeviceLostError.
        """
        ...
