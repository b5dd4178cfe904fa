"""The proof that executions write all that clients receive: every element of every output, before a model serves.

Output buffers live as long as their model version and serve its clients in turn. Bytes that an execution leaves
unchanged would be a piece of another client's answer. So the outputs are filled with a pattern, the model runs, and an
element that still shows the pattern is a suspect; a second run with another pattern clears the elements to which the
model gave the value of the pattern. A model with random outputs is cleared after a few more runs, because only
unwritten elements show all patterns.

Not here: the values that an execution computes, and sizes that are not prepared: engines have their own checks for
those.
"""

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.device import Device, DeviceStream, HostBuffer
from forebay_server.engines.engine import Engine
from forebay_server.engines.errors import ModelFileError

PATTERNS = (0xA5, 0x5A, 0x3C, 0xC3, 0x69, 0x96, 0x0F, 0xF0)
"""One run proves most models with elements of four bytes, two runs nearly all others."""


def prove_outputs(
    engine: Engine, runs: Iterable[tuple[int, int]], device: Device, device_stream: DeviceStream, model: str
) -> None:
    """Run each (slot, batch size) at least once. Blocks.

    Thread: the one that warms up; no other thread runs the engine.

    Args:
        engine: bound.
        runs: the (slot, batch size) pairs to prove.
        device: of the outputs' memory.
        device_stream: that the engine enqueues on.
        model: for the error.

    Raises:
        ModelFileError: an output keeps unwritten elements.
        EngineError: as `enqueue` does.
    """
    specs = engine.specs
    largest_bytes = max(spec.row_bytes for spec in specs.outputs) * specs.max_batch_size
    with closing(device.alloc_host(largest_bytes)) as scratch:
        for slot_index, batch_size in runs:
            execution = _Execution(engine, slot_index, batch_size, device_stream, scratch)
            for index, count in unwritten(execution.run_over).items():
                raise ModelFileError(
                    f"{model}: output {specs.outputs[index].name!r}: of a batch of {batch_size} rows {count} "
                    "elements are not written by the model and would be what lay in memory before: export it so that "
                    "an operator computes this output"
                )


def unwritten(run_over: Callable[[int], dict[int, NDArray[np.bool_]]]) -> dict[int, int]:
    """Run until every element is known to be written or unwritten.

    Args:
        run_over: fills memory with a pattern and runs; returns the elements of each output that show it.

    Returns:
        The number of unwritten elements, by output, for outputs that have any.
    """
    suspects: dict[int, NDArray[np.bool_]] = {}
    for pattern in PATTERNS:
        found = run_over(pattern)
        if suspects:
            found = {index: mask & found[index] for index, mask in suspects.items()}
        suspects = {index: mask for index, mask in found.items() if mask.any()}
        if not suspects:
            break
    return {index: int(mask.sum()) for index, mask in suspects.items()}


def shows(memory: NDArray[np.uint8], pattern: int, element_bytes: int) -> NDArray[np.bool_]:
    """Return the elements that are full of `pattern`; an operator writes all of an element or nothing."""
    whole = int.from_bytes(bytes([pattern]) * element_bytes)
    found: NDArray[np.bool_] = memory.view(f"u{element_bytes}") == whole
    return found


@dataclass(frozen=True, slots=True)
class _Execution:
    """One (slot, batch size), and host memory for one output of it."""

    engine: Engine
    slot_index: int
    batch_size: int
    device_stream: DeviceStream
    scratch: HostBuffer

    def run_over(self, pattern: int) -> dict[int, NDArray[np.bool_]]:
        """Fill the outputs with `pattern` and run; return the elements that show it, by output."""
        stream = self.device_stream
        specs = self.engine.specs.outputs
        sizes = [spec.row_bytes * self.batch_size for spec in specs]
        self.scratch.write_view()[:] = pattern
        for buffer, nbytes in zip(self.engine.outputs(self.slot_index, self.batch_size), sizes, strict=True):
            stream.copy_h2d(buffer, self.scratch, nbytes)
        stream.sync()
        self.engine.enqueue(self.slot_index, self.batch_size, stream)
        found = {}
        outputs = self.engine.outputs(self.slot_index, self.batch_size)
        for index, (spec, buffer, nbytes) in enumerate(zip(specs, outputs, sizes, strict=True)):
            stream.copy_d2h(self.scratch, buffer, nbytes)
            stream.sync()
            found[index] = shows(self.scratch.read_view()[:nbytes], pattern, spec.dtype.itemsize)
        return found
