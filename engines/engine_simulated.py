"""An engine that takes t(b) = alpha + beta * b milliseconds for b rows and returns a checksum or a copy of its input.

Served from a repository as `backend: "simulated"`. On a host device `enqueue` blocks until the time is over; on the
simulated device it enqueues an operation of that cost, which declares its reads and writes. Options, all optional:

- `alpha_ms`, `beta_ms` (0), at most 600000: the cost; 0 and 0 cost next to nothing.
- `jitter_ms` (0), `jitter_seed` (0): adds up to this much, drawn from a seeded generator.
- `input_shape` (`3,224,224`) or `input_bytes` (150528), and `datatype` (UINT8): the one input, called `input`.
- `output`: `checksum` (one UINT64 called `checksum`: the XOR of the row's 64-bit words, the last one filled with zeros)
  or `copy` (called `output`, the input again).
- `max_batch_size` (32), unless the model's configuration says so.
- `fail_every` (0, never): every execution whose number is a multiple raises ExecutionError.
- `hang_at` (0, never): the execution with this number never ends. For trials of the watchdog, on a host device only.
"""

import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.backends import BACKENDS
from forebay_server.engines.clock import Clock
from forebay_server.engines.datatypes import DTYPE_BY_NAME
from forebay_server.engines.device import Device, DeviceBuffer, DeviceStream
from forebay_server.engines.engine import Engine, EngineSpecs, SlotBuffers, TensorSpec
from forebay_server.engines.errors import ExecutionError, MisuseError, ModelFileError
from forebay_server.engines.host_memory import memory_of
from forebay_server.engines.options import MOST_ROWS, OptionReader
from forebay_server.engines.simulated.stream import SimulatedStream, byte_ranges

_NEVER_NS = 1 << 60  # 36 years
_instances = itertools.count()
_WORD = np.dtype(np.uint64)


@dataclass(frozen=True, slots=True)
class _BoundSlot:
    """A slot and the memory of its input and output, both (max_batch_size, ...): bytes, or words of a checksum."""

    buffers: SlotBuffers
    source: NDArray[Any]
    target: NDArray[Any]


class SimulatedEngine:
    """See the module. `model_path` is not read."""

    def __init__(
        self,
        *,
        model_path: Path | None,  # noqa: ARG002 - every engine is built with the same keywords
        device: Device,
        clock: Clock,
        options: Mapping[str, str],
        max_batch_size: int | None,
    ) -> None:
        reader = OptionReader("simulated", options, BACKENDS["simulated"].options)
        self._device = device
        self._clock = clock
        self._alpha_ns = round(reader.milliseconds("alpha_ms", 0) * 1e6)
        self._beta_ns = round(reader.milliseconds("beta_ms", 0) * 1e6)
        self._jitter_ns = round(reader.milliseconds("jitter_ms", 0) * 1e6)
        self._random = random.Random(reader.integer("jitter_seed", 0))  # noqa: S311 - not a secret
        self._fail_every = reader.integer("fail_every", 0)
        self._hang_at = reader.integer("hang_at", 0)
        self._executions = 0
        self._activations = f"activation memory of instance {next(_instances)}"
        self._specs = _read_specs(reader, max_batch_size)
        self._is_checksum = self._specs.outputs[0].name == "checksum"
        self._slots: dict[int, _BoundSlot] = {}
        self._is_closed = False

    @property
    def specs(self) -> EngineSpecs:
        """One input and one output."""
        return self._specs

    @property
    def launches(self) -> None:
        """None: executions run one way."""

    def bind(self, slot: SlotBuffers) -> None:
        """Take the buffers of `slot`."""
        self._check_open()
        if slot.index in self._slots:
            raise MisuseError(f"slot {slot.index} is bound already")
        source = self._rows(slot, self._specs.inputs[0], slot.inputs[0])
        target = self._rows(slot, self._specs.outputs[0], slot.outputs[0])
        self._slots[slot.index] = _BoundSlot(slot, source, target.view(_WORD) if self._is_checksum else target)

    def warm_up(self, batch_sizes: tuple[int, ...], device_stream: DeviceStream) -> None:
        """Check the sizes; nothing is lazy."""
        self._check_open()
        for slot_index in self._slots:
            for batch_size in batch_sizes:
                self._checked_slot(slot_index, batch_size)
        device_stream.sync()

    def enqueue(self, slot_index: int, batch_size: int, device_stream: DeviceStream) -> None:
        """Execute. Blocks: for the cost of the batch, on a host device."""
        slot = self._checked_slot(slot_index, batch_size)
        self._executions += 1
        if self._fail_every and self._executions % self._fail_every == 0:
            raise ExecutionError(f"execution {self._executions} fails, as fail_every={self._fail_every} asks")
        if self._executions == self._hang_at:
            self._clock.sleep_until(_NEVER_NS)
        cost_ns = self._alpha_ns + self._beta_ns * batch_size
        if self._jitter_ns:
            cost_ns += self._random.randrange(self._jitter_ns)
        if isinstance(device_stream, SimulatedStream):
            self._enqueue_declared(slot, batch_size, cost_ns, device_stream)
            return
        started_ns = self._clock.now_ns() if cost_ns else 0
        self._compute(slot, batch_size)
        if cost_ns:
            self._clock.sleep_until(started_ns + cost_ns)

    def outputs(self, slot_index: int, batch_size: int) -> tuple[DeviceBuffer, ...]:
        """Return the slot's own output buffer."""
        return self._checked_slot(slot_index, batch_size).buffers.outputs

    def close(self) -> None:
        """Release the slots. Idempotent."""
        self._is_closed = True
        self._slots.clear()

    def _enqueue_declared(
        self, slot: _BoundSlot, batch_size: int, cost_ns: int, device_stream: SimulatedStream
    ) -> None:
        specs = self._specs
        device_stream.execute(
            reads=byte_ranges(slot.buffers.inputs, [spec.row_bytes * batch_size for spec in specs.inputs]),
            writes=byte_ranges(slot.buffers.outputs, [spec.row_bytes * batch_size for spec in specs.outputs]),
            cost_ns=cost_ns,
            run=partial(self._compute, slot, batch_size),
            exclusive=self._activations,
            label=f"batch of {batch_size}",
        )

    def _compute(self, slot: _BoundSlot, batch_size: int) -> None:
        if self._is_checksum:
            checksum(slot.source[:batch_size], slot.target[:batch_size, 0])
        else:
            np.copyto(slot.target[:batch_size], slot.source[:batch_size])

    def _rows(self, slot: SlotBuffers, spec: TensorSpec, buffer: DeviceBuffer) -> NDArray[np.uint8]:
        nbytes = spec.row_bytes * self._specs.max_batch_size
        if buffer.nbytes < nbytes:
            raise MisuseError(f"slot {slot.index}: {spec.name!r} needs {nbytes} bytes, not {buffer.nbytes}")
        return memory_of(buffer)[:nbytes].reshape(self._specs.max_batch_size, spec.row_bytes)

    def _checked_slot(self, slot_index: int, batch_size: int) -> _BoundSlot:
        self._check_open()
        slot = self._slots.get(slot_index)
        if slot is None:
            raise MisuseError(f"slot {slot_index} is not bound")
        if not 1 <= batch_size <= self._specs.max_batch_size:
            raise MisuseError(f"batch size {batch_size} is outside 1..{self._specs.max_batch_size}")
        return slot

    def _check_open(self) -> None:
        if self._is_closed:
            raise MisuseError("engine used after close")


def checksum(rows: NDArray[np.uint8], out: NDArray[np.uint64]) -> None:
    """Write the XOR of the 64-bit words of each row to `out`.

    Args:
        rows: shape (batch_size, row_bytes), C-contiguous; the last word of a row is filled up with zeros.
        out: shape (batch_size,).
    """
    row_bytes = rows.shape[1]
    whole_bytes = row_bytes - row_bytes % _WORD.itemsize
    if whole_bytes == row_bytes:
        np.bitwise_xor.reduce(rows.view(_WORD), axis=1, out=out)
        return
    for position, row in enumerate(rows):
        last = np.zeros(_WORD.itemsize, np.uint8)
        last[: row_bytes - whole_bytes] = row[whole_bytes:]
        out[position] = np.bitwise_xor.reduce(row[:whole_bytes].view(_WORD)) ^ last.view(_WORD)[0]


def _read_specs(reader: OptionReader, max_batch_size: int | None) -> EngineSpecs:
    datatype = reader.text("datatype", "UINT8", tuple(name for name in DTYPE_BY_NAME if name != "BYTES"))
    dtype = DTYPE_BY_NAME[datatype]
    shape = reader.shape("input_shape")
    input_bytes = reader.integer("input_bytes", 3 * 224 * 224, minimum=1)
    if shape is None:
        if input_bytes % dtype.itemsize:
            raise ModelFileError(f"backend 'simulated': input_bytes {input_bytes} is no whole number of {datatype}")
        shape = (input_bytes // dtype.itemsize,)
    given = TensorSpec("input", dtype, shape)
    if reader.text("output", "checksum", ("checksum", "copy")) == "checksum":
        result = TensorSpec("checksum", _WORD, (1,))
    else:
        result = TensorSpec("output", dtype, shape)
    limit = (
        reader.integer("max_batch_size", 32, minimum=1, maximum=MOST_ROWS) if max_batch_size is None else max_batch_size
    )
    return EngineSpecs((given,), (result,), max_batch_size=max(limit, 1), has_batch_dimension=limit > 0)


def _conforms(engine: SimulatedEngine) -> Engine:
    return engine
