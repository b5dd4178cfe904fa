"""Outputs go straight from a lane's slot into the memory that a front-end process shares: one copy an output.

The completions that come of it hold no arrays. The answer, which the sink sends, tells the front-end process that its
outputs are there; the typed results are made there too.

Thread: the d2h stage's, or the one that runs a batch inline.
"""

from collections.abc import Sequence

import numpy as np

from forebay_server.engines.engine import EngineSpecs
from forebay_server.service.errors import ServiceError
from forebay_server.service.group.memory_layout import MemoryLayout
from forebay_server.service.group.shared_frames import SharedArrays, SharedFrame
from forebay_server.service.pipeline.outputs import Finish, OutputReader
from forebay_server.service.pipeline.slots import Slot
from forebay_server.service.pipeline.unbound import UnboundOutputReader
from forebay_server.service.request import Batch, Completion

GIL_HELD_COPY_BYTES = 256 * 1024
"""As in `engines.host_memory`: a copy up to this size keeps the interpreter's lock."""


class SharedOutputReader(OutputReader):
    """Copies the outputs of a batch to the places of its requests.

    Args:
        layout: of the version's memory file.
        memory: of that file.
        model_version: named in every completion.
        finish: takes completions.
    """

    def __init__(self, layout: MemoryLayout, memory: memoryview, model_version: str, finish: Finish) -> None:
        super().__init__((), model_version, finish)
        self._layout = layout
        self._memory = memory
        self._row_bytes = layout.output_row_bytes
        self._one_row = layout.output_places(1)

    def take_outputs(self, batch: Batch, slot: Slot) -> list[Completion]:
        """Copy each request's rows to their place, and return completions without arrays, in the requests' order."""
        if batch.error is not None:
            return [Completion(request, error=batch.error) for request in batch.requests]
        views = [host.read_view().data for host in slot.host_outputs]
        version, size = self._model_version, batch.executed_rows
        completions: list[Completion] = []
        start = 0
        for request in batch.requests:
            frame = request.frame
            if request.fault is not None:
                completions.append(Completion(request, error=request.fault))
                start += request.size
                continue
            if isinstance(frame, SharedFrame) and not (request.is_cancelled or frame.link.is_dead):  # else: a trial
                self._copy_rows(views, start, request.size, frame.output_offset)
            start += request.size
            completions.append(Completion(request, outputs=(), batch_size=size, model_version=version))
        return completions

    def _copy_rows(self, views: Sequence[memoryview], start: int, rows: int, output_offset: int) -> None:
        memory = self._memory
        places = self._one_row if rows == 1 else self._layout.output_places(rows)
        for view, row_bytes, place in zip(views, self._row_bytes, places, strict=True):
            source = view[start * row_bytes : (start + rows) * row_bytes]
            target = memory[output_offset + place : output_offset + place + len(source)]
            if len(source) <= GIL_HELD_COPY_BYTES:
                target[:] = source
            else:
                np.copyto(np.frombuffer(target, np.uint8), np.frombuffer(source, np.uint8))


class SharedArraysReader(UnboundOutputReader):
    """Writes the arrays that the engine gave to the requests' places, each its rows."""

    def __init__(self, specs: EngineSpecs, model_version: str, finish: Finish) -> None:
        super().__init__(specs, model_version, finish)

    def take_outputs(self, batch: Batch, slot: Slot) -> list[Completion]:
        """Write each request's rows, and return completions without arrays, in the requests' order."""
        completions = super().take_outputs(batch, slot)
        for completion in completions:
            frame = completion.request.frame
            if completion.outputs is None or not isinstance(frame, SharedArrays):
                continue
            outputs, completion.outputs = completion.outputs, ()
            if completion.request.is_cancelled or frame.link.is_dead:
                continue
            try:
                frame.write(outputs)
            except ServiceError as error:
                completion.error, completion.outputs = error, None
        return completions
