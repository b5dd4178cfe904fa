"""Runs a short batch on the thread that forms it. Here is also the whole story of which thread forms and runs a batch.

Theory of operation
    The long way. The former's thread forms a batch and sends it through the channels of three stage threads (h2d,
    execute, d2h), so that copies of one batch overlap the execution of another. Its results go back to the event loop.
    That is four hand-overs between threads, together about 0.2 ms of the host's time for a batch (docs/adr/0070).

    Inline. A batch whose work takes less than that is done sooner without them: the former's thread takes it through
    the three stages itself, inside `Pipeline.submit`. Three conditions hold then. The batch is alone in its lane: the
    stage threads wait in their channels and touch nothing, and nothing could overlap. The device is synchronous: its
    work is done when the enqueuing call returns, so that no thread has to wait for it. The shapes are fixed: the
    duration of a run with other shapes cannot be predicted. The stages notify the former on its own thread, and the
    former keeps these notices in a list instead of sending itself messages.

    On the event loop. Where a batch of one row may run inline (`QuickBatches`), even the hand-over to the
    former's thread costs more than the batch. The event loop takes the former's step itself then (docs/adr/0120), not
    at every arrival but when it has read everything that there is to read (`ServingLoop.call_when_idle`), so that a
    backlog makes batches grow. A batch is admitted, formed, run and answered on one thread. Work that is not quick, or
    has to wait for a time, stays with the former's thread: the loop wakes it.

    Who may step. Loop and former's thread share the former's core by one lock (`BatchFormer._step_lock`). The thread
    waits for it, the loop only tries. Messages leave the inbox under it, so that requests keep their order.

    When the prediction is wrong. A step on the loop holds up every stream. Long steps in a row send the former's work
    back to its thread for a second (`ShortRuns`), then one step is tried again. A prediction that is too long does not
    last either: a batch that was short at calibration is tried inline all the same (`QuickBatches`).

Thread: the one that submits: the former's, or the event loop's.
"""

from collections.abc import Sequence

from forebay_server.engines.device import Device
from forebay_server.engines.engine import EngineSpecs
from forebay_server.service.pipeline.stage import Stage
from forebay_server.service.request import Batch

INLINE_NS = 200_000
"""Time to hand a batch from thread to thread: shorter work is done sooner without hand-overs (docs/adr/0070)."""


class InlineRunner:
    """See the module's theory of operation.

    Args:
        stages: of the lane, left to right.
        limit_ns: work below this runs inline; 0 for none, as `inline_limit_ns` says.
    """

    def __init__(self, stages: Sequence[Stage], limit_ns: int) -> None:
        self.limit_ns = limit_ns
        self._stages = tuple(stages)

    def takes(self, batch: Batch) -> bool:
        """Whether a batch may run inline. The former says that it is short, and that its lane knows of no other."""
        return batch.is_quick and self.limit_ns > 0

    def run(self, batch: Batch) -> None:
        """Take a batch through all stages; its failure, if any, is recorded in it. Blocks: until it has ended."""
        for stage in self._stages:
            stage.process(batch)


def inline_limit_ns(device: Device, specs: EngineSpecs) -> int:
    """Return the work below which batches of a model run inline on a device; 0 if none does."""
    return INLINE_NS if device.is_synchronous and specs.is_fixed else 0
