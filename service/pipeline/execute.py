"""Stage 2: run the model. Enqueues only; on the host device the engine runs inside `enqueue` with the GIL released."""

from abc import abstractmethod

from engines.device import Event
from engines.engine import Engine
from service.pipeline.slots import Slot, SlotState
from service.pipeline.stage import Stage, StageContext
from service.pipeline.turns import Turn
from service.request import Batch


class ExecutingStage(Stage):
    """Runs the model once it is its lane's turn. Base of the bound and the unbound stage.

    Args:
        context: of the stage.
        turn: the lane's place among the models of other priority; None where the device arbitrates itself.
    """

    def __init__(self, context: StageContext, turn: Turn | None) -> None:
        super().__init__(context)
        self.turn = turn

    @abstractmethod
    def execute(self, batch: Batch, slot: Slot) -> None:
        """Run. Raises EngineError on failure."""

    def work(self, batch: Batch, slot: Slot) -> None:
        """Order the execution after the upload, wait for the turn where there is one, and run."""
        self.device_stream.wait(slot.uploaded)
        turn = self.turn
        if turn is None or not (turn.is_needed or turn.is_asked):  # what was asked for is taken, to be given back
            self.execute(batch, slot)
            return
        was_busy, self.busy_since_ns = self.busy_since_ns, 0  # to wait for others is not to hang
        turn.take()
        if was_busy:
            self.busy_since_ns = self.clock.now_ns()
        try:
            self.execute(batch, slot)
        finally:
            turn.give_back(has_next=self.has_next)

    def process(self, batch: Batch) -> None:
        """Work on one batch; of one that has failed already nothing is executed, so that no turn is needed."""
        if batch.error is not None and self.turn is not None:
            self.turn.give_up()
        super().process(batch)


class ExecuteStage(ExecutingStage):
    """Owns the engine while the lane runs."""

    def __init__(self, context: StageContext, engine: Engine, turn: Turn | None = None) -> None:
        super().__init__(context, turn)
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
