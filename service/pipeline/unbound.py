"""Models whose tensors have no fixed row size: variable inner dimensions, BYTES, data-dependent outputs.

Models with inputs that requests may leave out are among them. All take the same way as other models, through the same
slots, channels and threads, but nothing of theirs lies in fixed buffers: a request brings its inputs as arrays,
`UnboundExecute` joins those of a batch (equal batch keys mean equal inner shapes, and the same inputs left out) and
has the engine run on whole arrays, and the outputs that the engine allocated stay in the slot until they are read.
The memory of requests and of one execution is bounded; there are no graphs and no copies to overlap.

On a device whose memory is not the host's, the engine copies.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.device import HostBuffer
from forebay_server.engines.engine import EngineSpecs, UnboundEngine
from forebay_server.engines.errors import ExecutionError
from forebay_server.service.errors import InvalidRequestError, InvariantError, OverloadedError
from forebay_server.service.pipeline.execute import BeforeExecution, ExecutingStage
from forebay_server.service.pipeline.outputs import OutputReader
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.pipeline.shares import Share
from forebay_server.service.pipeline.slots import Slot, SlotState
from forebay_server.service.pipeline.stage import Stage, StageContext
from forebay_server.service.request import Batch, Completion

Arrays = tuple[NDArray[Any], ...]
Inputs = tuple[NDArray[Any] | None, ...]
"""None for an optional input that the request leaves out."""

STRING_BYTES = 64  # counted for a BYTES element beside its letters: Python's object


class ArraysFrame(ABC):
    """The inputs of one request as arrays; see service.request.FrameBuffer. Held by one thread at a time."""

    __slots__ = ()

    @property
    @abstractmethod
    def arrays(self) -> Inputs | None:
        """None once they were given back."""

    @property
    def host(self) -> HostBuffer:
        """There is none."""
        raise InvariantError("an unbound request lies in no buffer")

    @property
    def offsets(self) -> tuple[int, ...]:
        """There are none."""
        return ()

    @property
    @abstractmethod
    def is_released(self) -> bool:
        """Whether it was given back."""

    @abstractmethod
    def release(self) -> None:
        """Let go of the arrays. Idempotent."""


class UnboundFrames:
    """Permits and a byte account for requests that hold their inputs themselves. Thread: any.

    Args:
        permits: server-wide.
        limit_bytes: most that the inputs of one model version's requests may hold together.

    Attributes:
        limit_bytes: the same.
    """

    def __init__(self, permits: Permits, limit_bytes: int) -> None:
        self._permits = permits
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._held_bytes = 0

    def lease(self, arrays: Inputs, share: Share | None = None) -> ArraysFrame:
        """Take a permit of `share` and count the arrays.

        Raises:
            OverloadedError: the others leave no permit or no room for them now.
            InvalidRequestError: there will never be room for them.
        """
        nbytes, share = self.reserve(arrays, share)
        return UnboundFrame(self, share, arrays, nbytes)

    def reserve(self, arrays: Inputs, share: Share | None) -> tuple[int, Share]:
        """Count the arrays, and return how much and for whom; see `lease`. `take_back` undoes it."""
        nbytes = sum(nbytes_of(array) for array in arrays if array is not None)
        if nbytes > self.limit_bytes:
            raise InvalidRequestError(
                f"the inputs hold {nbytes} bytes, and those of all requests with varying shapes may hold "
                f"{self.limit_bytes} bytes together: send fewer rows or smaller ones"
            )
        share = self._permits.take(share)
        with self._lock:
            is_room = self._held_bytes + nbytes <= self.limit_bytes
            if is_room:
                self._held_bytes += nbytes
        if not is_room:
            self._permits.give_back(share)
            raise OverloadedError(
                f"requests with inputs of varying shapes may hold {self.limit_bytes} bytes together; send fewer",
                retry_after_ms=100,
            )
        return nbytes, share

    def take_back(self, nbytes: int, share: Share) -> None:
        """Accept a frame from its request, and the permit of `share`."""
        with self._lock:
            self._held_bytes -= nbytes
        self._permits.give_back(share)


class UnboundFrame(ArraysFrame):
    """Inputs that this process holds."""

    __slots__ = ("_frames", "_nbytes", "_share", "arrays")

    def __init__(self, frames: UnboundFrames, share: Share, arrays: Inputs, nbytes: int) -> None:
        self._frames = frames
        self._share = share
        self._nbytes = nbytes
        self.arrays: Inputs | None = arrays

    @property
    def is_released(self) -> bool:
        """Whether it was given back."""
        return self.arrays is None

    def release(self) -> None:
        """Let go of the arrays. Idempotent."""
        if self.arrays is not None:
            self.arrays = None
            self._frames.take_back(self._nbytes, self._share)


class UnboundH2d(Stage):
    """Passes batches on: there is nothing to copy."""

    def work(self, batch: Batch, slot: Slot) -> None:
        """Stamp when it was taken up, and the events."""
        batch.upload_started_ns = self.clock.now_ns()
        slot.move_to(SlotState.FILLING)
        self.device_stream.record(slot.upload_started)
        self.device_stream.record(slot.uploaded)
        slot.move_to(SlotState.UPLOADING)


class UnboundExecute(ExecutingStage):
    """Joins the inputs of a batch and runs the engine on whole arrays."""

    def __init__(
        self,
        context: StageContext,
        engine: UnboundEngine,
        specs: EngineSpecs,
        limit_bytes: int,
        before_execution: BeforeExecution | None = None,
    ) -> None:
        super().__init__(context, specs, before_execution)
        self._engine = engine
        self._limit_bytes = limit_bytes

    def execute(self, batch: Batch, slot: Slot) -> None:
        """Run. Raises ExecutionError if an output has another number of rows than the batch, or is too large."""
        self.device_stream.record(slot.execute_started)
        outputs = self._engine.run(_join(batch, len(self.specs.inputs)))
        if self.specs.has_batch_dimension and any(array.shape[:1] != (batch.rows,) for array in outputs):
            raise ExecutionError(f"an output has another first dimension than the {batch.rows} rows of the batch")
        if sum(nbytes_of(array) for array in outputs) > self._limit_bytes:
            raise ExecutionError(f"the outputs exceed {self._limit_bytes} bytes")
        slot.arrays = outputs
        self.device_stream.record(slot.executed)
        slot.move_to(SlotState.EXECUTING)


class UnboundOutputReader(OutputReader):
    """Cuts the arrays that the engine gave into the requests' rows."""

    def __init__(self, specs: EngineSpecs, model_version: str, finish: Callable[[Sequence[Completion]], None]) -> None:
        super().__init__((), model_version, finish)
        self._has_batch = specs.has_batch_dimension

    def _copy(self, rows: int, slot: Slot) -> Arrays:  # noqa: ARG002 - rows are in the arrays
        arrays, slot.arrays = slot.arrays, ()
        return arrays if self._has_batch else tuple(array[np.newaxis] for array in arrays)


def _join(batch: Batch, count: int) -> Inputs:
    """Return the inputs of all rows. Equal batch keys mean that requests leave out the same inputs."""
    parts: list[Inputs] = []
    for request in batch.requests:
        frame = request.frame
        arrays = frame.arrays if isinstance(frame, ArraysFrame) else None
        if arrays is None:
            raise InvariantError("an unbound batch with a request that holds no arrays")
        parts.append(arrays)
    if len(parts) == 1:
        return parts[0]
    return tuple(_joined([arrays[index] for arrays in parts]) for index in range(count))


def _joined(parts: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    arrays = [array for array in parts if array is not None]
    if not arrays:
        return None
    if len(arrays) != len(parts):
        raise InvariantError("one batch of requests with and without an optional input")
    return np.concatenate(arrays)


def nbytes_of(array: NDArray[Any]) -> int:
    """Return about how much memory an array takes."""
    if array.dtype != np.dtype(object):
        return array.nbytes
    return sum(len(value) + STRING_BYTES for value in array.reshape(-1).tolist())
