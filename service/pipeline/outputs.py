"""Reads the outputs of a batch out of its slot: one completion per request, for the front end.

The slot is free before a thread is woken, and the event loop never touches slot memory. A request may have been
cancelled meanwhile; its completion goes out all the same, because the session does the counting.
"""

from collections.abc import Callable, Sequence

import numpy as np

from forebay_server.engines.engine import TensorSpec
from forebay_server.service.pipeline.slots import Slot
from forebay_server.service.request import Batch, Completion, OutputArrays

Finish = Callable[[Sequence[Completion]], None]
"""Takes the completions of one batch. Thread: of the d2h stage, or the one that runs a batch inline."""


class OutputReader:
    """Builds completions.

    Args:
        outputs: the model's outputs.
        model_version: named in every completion.
        finish: where completions go: the results worker pool if typed results are wanted, else the event loop.
    """

    def __init__(self, outputs: tuple[TensorSpec, ...], model_version: str, finish: Finish) -> None:
        self._outputs = tuple((spec.row_bytes, spec.dtype, spec.shape) for spec in outputs)
        self._model_version = model_version
        self.post = finish

    def take_outputs(self, batch: Batch, slot: Slot) -> list[Completion]:
        """Copy the batch's outputs out of the slot, one copy per output, and cut them into the requests' rows.

        Returns:
            Completions in the order of the requests; `outputs[i]` has shape (request.size, *specs[i].shape) and is a
            view of an array that the completions of this batch share.
        """
        if batch.error is not None:
            return [Completion(request, error=batch.error) for request in batch.requests]
        arrays = self._copy(batch.rows, slot)
        completions: list[Completion] = []
        end = 0
        for request in batch.requests:
            start, end = end, end + request.size
            if request.fault is not None:
                completions.append(Completion(request, error=request.fault))
                continue
            completions.append(
                Completion(
                    request,
                    outputs=tuple([array[start:end] for array in arrays]),
                    batch_size=batch.executed_rows,
                    model_version=self._model_version,
                )
            )
        return completions

    def _copy(self, rows: int, slot: Slot) -> OutputArrays:
        arrays = [
            np.array(host.read_view()[: rows * row_bytes]).view(dtype).reshape(rows, *shape)
            for (row_bytes, dtype, shape), host in zip(self._outputs, slot.host_outputs, strict=True)
        ]
        return tuple(arrays)
