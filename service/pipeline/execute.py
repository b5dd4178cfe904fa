"""Stage 2: run the model. Enqueues only; on the host device the engine runs inside `enqueue` with the GIL released."""

from engines.device import Event
from engines.engine import Engine
from service.pipeline.slots import Slot, SlotState
from service.pipeline.stage import Stage, StageContext
from service.request import Batch


class ExecuteStage(Stage):
    """Owns the engine while the lane runs."""

    def __init__(self, context: StageContext, engine: Engine) -> None:
        super().__init__(context)
        self._engine = engine

    def event_before(self, slot: Slot) -> Event | None:
        """Return the end of the upload."""
        return slot.uploaded

    def work(self, batch: Batch, slot: Slot) -> None:
        """Enqueue one execution, ordered after the upload."""
        self.device_stream.wait(slot.uploaded)
        self.device_stream.record(slot.execute_started)
        self._engine.enqueue(slot.index, batch.executed_rows, self.device_stream)
        self.device_stream.record(slot.executed)
        slot.current_outputs = self._engine.outputs(slot.index, batch.executed_rows)
        slot.move_to(SlotState.EXECUTING)
