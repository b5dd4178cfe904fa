"""Stage 2: run the model. Enqueues only; on the host device the engine runs inside `enqueue` with the GIL released.

Here a batch becomes the lane's for good, if its upload has not made it so. A batch that the former has taken back is
passed on without being executed.
"""

from abc import abstractmethod
from collections.abc import Callable

from forebay_server.engines.device import DeviceStream, Event
from forebay_server.engines.engine import Engine, EngineSpecs
from forebay_server.service.pipeline.slots import Slot, SlotState
from forebay_server.service.pipeline.stage import Stage, StageContext
from forebay_server.service.request import Batch

BeforeExecution = Callable[[EngineSpecs, Batch, Slot, DeviceStream], None]
"""Called when a batch's inputs are uploaded and its execution is not enqueued. Thread: the one that executes the batch.
Only tests set one: it fills the outputs with a pattern that the execution must overwrite (tests/support/dirt.py)."""


class ExecutingStage(Stage):
    """Runs the model. Base of the bound and the unbound stage.

    Args:
        context: of the stage.
        specs: of the engine.
        before_execution: see there.
    """

    def __init__(self, context: StageContext, specs: EngineSpecs, before_execution: BeforeExecution | None) -> None:
        super().__init__(context)
        self.specs = specs
        self._before_execution = before_execution
        self._execute = self.execute if before_execution is None else self._execute_after_hook

    @abstractmethod
    def execute(self, batch: Batch, slot: Slot) -> None:
        """Run. Raises EngineError on failure."""

    def work(self, batch: Batch, slot: Slot) -> None:
        """Take the batch for good and run it after its upload, unless the former has taken it back."""
        if batch.claim.start():
            self.device_stream.wait(slot.uploaded)
            self._execute(batch, slot)

    def _execute_after_hook(self, batch: Batch, slot: Slot) -> None:
        assert self._before_execution is not None  # noqa: S101 - for mypy: bound only then
        self._before_execution(self.specs, batch, slot, self.device_stream)
        self.execute(batch, slot)

    def process(self, batch: Batch) -> None:
        """Work on one batch; of one that has failed already nothing is executed."""
        if batch.error is not None:
            batch.claim.start()  # the lane answers the failed requests
        super().process(batch)


class ExecuteStage(ExecutingStage):
    """Owns the engine while the lane runs."""

    def __init__(
        self,
        context: StageContext,
        engine: Engine,
        before_execution: BeforeExecution | None = None,
    ) -> None:
        super().__init__(context, engine.specs, before_execution)
        self._engine = engine

    def event_before(self, slot: Slot) -> Event | None:
        """Return the end of the upload."""
        return slot.uploaded

    def execute(self, batch: Batch, slot: Slot) -> None:
        """Enqueue one execution."""
        self.device_stream.record(slot.execute_started)
        self._engine.enqueue(slot.index, batch.executed_rows, self.device_stream)
        self.device_stream.record(slot.executed)
        slot.current_outputs = self._engine.outputs(slot.index, batch.executed_rows)
        slot.move_to(SlotState.EXECUTING)
