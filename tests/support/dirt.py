"""Dirties the memory of an execution: fills with a pattern the memory that it must write and must not read.

In a pipeline: `Pipeline(before_execution=Dirt(pattern))`, `real_server(before_execution=...)`. In an engine's rig:
`BoundSlot.run(inputs, dirt=pattern)`. An answer that shows the pattern contains unwritten bytes.
"""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from forebay_server.engines.device import DeviceBuffer, DeviceStream, HostBuffer
from forebay_server.engines.engine import EngineSpecs
from tests.support import models

if TYPE_CHECKING:  # engines are tested where the service's packages are not installed
    from forebay_server.service.pipeline.slots import Slot
    from forebay_server.service.request import Batch

PATTERNS = (0xFF, 0xA7)
"""NaN in every floating type, which spreads through computations; and an ordinary number."""


def spread(
    stream: DeviceStream,
    pattern: int,
    host_outputs: Sequence[HostBuffer],
    outputs: Sequence[DeviceBuffer],
    inputs: Sequence[DeviceBuffer],
    beyond: Sequence[int],
) -> None:
    """Fill all outputs, on both sides, and each input from an offset `beyond` the batch to its end."""
    for host, buffer in zip(host_outputs, outputs, strict=True):
        host.write_view()[:] = pattern
        stream.copy_h2d(buffer, host, buffer.nbytes)
    source = host_outputs[0]
    for buffer, start in zip(inputs, beyond, strict=True):
        for offset in range(start, buffer.nbytes, source.nbytes):
            stream.copy_h2d(buffer, source, min(source.nbytes, buffer.nbytes - offset), offset)


class Dirt:
    """A function that a stage calls before it executes; see the module.

    Attributes:
        executions: number of dirtied executions.
    """

    def __init__(self, pattern: int) -> None:
        self.pattern = pattern
        self.executions = 0

    def __call__(self, specs: EngineSpecs, batch: "Batch", slot: "Slot", stream: DeviceStream) -> None:
        """Fill the slot; for an unbound batch, the memory that ONNX Runtime takes its results from."""
        self.executions += 1
        if specs.is_fixed:
            beyond = [spec.row_bytes * batch.rows for spec in specs.inputs]
            spread(stream, self.pattern, slot.host_outputs, slot.device_outputs, slot.device_inputs, beyond)
            return
        for array in (array for request in batch.requests for array in request.frame.arrays):
            leave_behind(self.pattern, array.nbytes)


@functools.cache
def _echoing():
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.use_env_allocators", "1")  # the arena that served models share
    model = models.identity(("n",), TensorProto.UINT8).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def leave_behind(pattern: int, nbytes: int, count: int = 4) -> None:
    """Let ONNX Runtime allocate `count` results of `nbytes` bytes, full of `pattern`, and free them."""
    source = np.full(nbytes, pattern, np.uint8)
    results = [_echoing().run(None, {"x": source}) for _ in range(count)]
    del results
