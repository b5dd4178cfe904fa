"""Stages of models whose shapes vary, each on its own."""

import numpy as np

from forebay_server.engines.device_host import HostDevice
from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.service.channel import Channel
from forebay_server.service.pipeline.slots import Slot, SlotState
from forebay_server.service.pipeline.stage import StageContext
from forebay_server.service.pipeline.unbound import UnboundH2d
from forebay_server.service.request import Batch
from tests.support.clock import ManualClock


def test_the_former_learns_when_an_unbound_batch_was_taken_up():
    clock = ManualClock()
    device = HostDevice(clock=clock)
    varying = (TensorSpec("x", np.dtype(np.float32), (-1,)),)
    slot = Slot(0, device, EngineSpecs(varying, varying, 4))
    slot.move_to(SlotState.RESERVED)
    context = StageContext(
        name="varying.1.0.h2d",
        device=device,
        device_stream=device.create_stream("h2d"),
        slots=(slot,),
        inbound=Channel("inbound", 1, clock),
        outbound=None,
        clock=clock,
        on_fatal=lambda error: None,
    )
    batch = Batch(1, 0, 0, [], 1, 1, formed_ns=clock.now_ns())
    clock.advance(300_000)
    UnboundH2d(context).process(batch)
    assert batch.error is None
    assert batch.upload_started_ns - batch.formed_ns == 300_000
    slot.close()
