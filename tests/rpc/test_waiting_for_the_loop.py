"""The time that a message waits for the event loop counts in its budget."""

import grpc

from forebay.wire import frames_pb2 as pb
from forebay_server.service.event_loop import ServingLoop
from tests.support.loops import on_loop
from tests.support.real_server import RawStream, real_server, simulated

INPUT_BYTES = 1024
BUDGET_MS = 600_000


@on_loop
async def test_a_frame_whose_budget_ran_out_while_it_waited_is_refused_before_anything_is_done(tmp_path, monkeypatch):
    async with (
        real_server(simulated(tmp_path, input_bytes=INPUT_BYTES)) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        stream = RawStream(channel)
        await stream.send_open(outputs=[pb.OUTPUT_TENSORS], latency_budget_ms=BUDGET_MS)
        await stream.receive()
        await stream.send(1, bytes(INPUT_BYTES))
        in_time = (await stream.receive()).result
        monkeypatch.setattr(ServingLoop, "waited_ns", BUDGET_MS * 1_000_000)
        await stream.send(2, bytes(INPUT_BYTES))
        late = (await stream.receive()).result
        executed = running.version().statistics.snapshot().rows
        await stream.call.done_writing()
    assert (in_time.status.code, late.status.code) == (pb.STATUS_OK, pb.STATUS_EXPIRED)
    assert late.timings.server_total_us >= BUDGET_MS * 1000
    assert executed == 1
