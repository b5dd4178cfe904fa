"""Streams of requests: order, windows, newest-only delivery, cancellation, drains."""

import asyncio
import sys
import tracemalloc

import grpc
import numpy as np
import pytest
from structlog.testing import capture_logs

from forebay.wire import frames_pb2 as frames_pb
from forebay.wire import inference_pb2 as pb
from forebay_server.engines.device_simulated import FaultPlan
from forebay_server.engines.errors import DeviceMemoryError, MisuseError
from forebay_server.service.frontend.heavy_work import HeavyWork
from forebay_server.service.frontend.open_inference.stream import InferStream
from tests.support.inference import array_of, request_of, stub_of
from tests.support.loops import on_loop
from tests.support.real_server import ROW_BYTES, SimulatedDevices, eventually, real_server, simulated


def sim_request(value, model="sim", rows=1, **fields):
    return request_of(model, input=np.full((rows, ROW_BYTES), value, np.uint8), request_id=str(value), **fields)


async def responses(call, count):
    return [await call.read() for _ in range(count)]


@on_loop
async def test_responses_of_a_model_come_in_the_order_of_its_requests(tmp_path):
    simulated(tmp_path, instances=2, max_batch_size=4)
    async with real_server(tmp_path) as running:
        call = stub_of(running).ModelStreamInfer()
        for number in range(60):
            await call.write(sim_request(number, rows=1 + number % 4))
        await call.done_writing()
        got = await responses(call, 60)
        assert [response.infer_response.id for response in got] == [str(number) for number in range(60)]
        for number, response in enumerate(got):
            assert array_of(response.infer_response, "output").shape == (1 + number % 4, ROW_BYTES)
            assert np.all(array_of(response.infer_response, "output") == number)
        assert await call.read() is grpc.aio.EOF


@on_loop
async def test_a_held_model_does_not_hold_up_another(tmp_path):
    simulated(tmp_path, "slow")
    simulated(tmp_path, "fast")
    async with real_server(tmp_path, devices=SimulatedDevices()) as running:
        running.hold("slow")
        call = stub_of(running).ModelStreamInfer()
        await call.write(sim_request(1, "slow"))
        await call.write(sim_request(2, "fast"))
        assert (await call.read()).infer_response.id == "2"
        running.release("slow")
        assert (await call.read()).infer_response.id == "1"
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


@on_loop
async def test_with_delivery_latest_a_waiting_request_makes_way_and_says_so(tmp_path):
    simulated(tmp_path, max_batch_size=1)
    async with real_server(tmp_path, devices=SimulatedDevices()) as running:
        running.hold()
        call = stub_of(running).ModelStreamInfer()
        for number in range(12):
            await call.write(sim_request(number, parameters={"delivery": "latest"}))
        await eventually(lambda: running.version().statistics.snapshot().failures["REJECTED"] > 0)
        running.release()
        await call.done_writing()
        got = [response.infer_response async for response in call]
        assert [response.id for response in got] == [str(number) for number in range(12)]
        dropped = [response for response in got if "dropped" in response.parameters]
        assert dropped
        for response in dropped:
            assert response.parameters["dropped"].string_param == "superseded"
            assert response.parameters["triton_final_response"].bool_param
            assert not response.outputs
        assert got[-1].outputs


@on_loop
async def test_a_stream_that_is_cancelled_gives_everything_back(tmp_path):
    simulated(tmp_path, max_batch_size=1)
    async with real_server(tmp_path, devices=SimulatedDevices()) as running:
        running.hold()
        call = stub_of(running).ModelStreamInfer()
        for number in range(20):
            await call.write(sim_request(number))
        await eventually(lambda: running.server.permits.taken_count > 10)
        call.cancel()
        await eventually(lambda: running.server.permits.taken_count <= 4)
        running.release()


@on_loop
async def test_a_unary_call_that_is_cancelled_is_not_executed(tmp_path):
    simulated(tmp_path, max_batch_size=1)
    async with real_server(tmp_path, devices=SimulatedDevices()) as running:
        running.hold()
        stub = stub_of(running)
        calls = [stub.ModelInfer(sim_request(number)) for number in range(8)]
        await eventually(lambda: running.server.permits.taken_count >= 8)
        for call in calls:
            call.cancel()
        await eventually(lambda: running.version().statistics.snapshot().failures["CANCELED"] >= 4)
        running.release()
        assert (await stub.ModelInfer(sim_request(9))).id == "9"


@on_loop
async def test_a_stream_answers_what_it_has_read_when_the_server_drains(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path, drain_grace_s=0.2, is_checked=False) as running:
        stub = stub_of(running)
        call = stub.ModelStreamInfer()
        for number in range(5):
            await call.write(sim_request(number))
        assert len(await responses(call, 5)) == 5
        closing = asyncio.create_task(running.server.front_end.drain())
        await eventually(lambda: running.server.inference._is_draining)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelInfer(sim_request(1))
        # CANCELLED by gRPC itself in the first instant, on a connection that also carries a stream (docs/adr/0087).
        assert caught.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        await closing


@on_loop
async def test_frames_and_requests_share_a_batch(tmp_path):
    simulated(tmp_path, max_batch_size=4)
    async with real_server(tmp_path, devices=SimulatedDevices()) as running:
        running.hold()
        stream = await running.open()
        stub = stub_of(running)
        for seq in range(6):
            await stream.send(seq)
        calls = [asyncio.ensure_future(_infer(stub, number)) for number in range(6)]
        # A batch of four may execute: of at least nine requests some came each way.
        await eventually(lambda: running.version().former.statistics().waiting_requests >= 8)
        running.release()
        await stream.half_close()
        assert len(await stream.results()) == 6
        assert [response.id for response in await asyncio.gather(*calls)] == [str(number) for number in range(6)]
        batches = running.version().statistics.snapshot().batches
        assert sum(rows * counts.compute_infer.count for rows, counts in batches.items()) == 12
        assert sum(counts.compute_infer.count for counts in batches.values()) < 12


async def _infer(stub, number):
    return await stub.ModelInfer(sim_request(number))


@on_loop
async def test_too_many_streams_are_refused(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path, max_streams=1) as running:
        stub = stub_of(running)
        first = stub.ModelStreamInfer()
        await first.write(sim_request(1))
        assert (await first.read()).infer_response.id == "1"
        second = stub.ModelStreamInfer()
        assert await second.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await first.done_writing()
        assert await first.read() is grpc.aio.EOF


def test_the_fields_that_a_response_may_have_are_the_protocols():
    assert [field.name for field in pb.ModelStreamInferResponse.DESCRIPTOR.fields] == [
        "error_message",
        "infer_response",
    ]


@on_loop
async def test_sequences_of_a_model_are_flows_that_do_not_wait_for_each_other(tmp_path):
    simulated(tmp_path, max_batch_size=1)
    async with real_server(tmp_path) as running:
        call = stub_of(running).ModelStreamInfer()
        ways = [{"sequence_id": 7}, {"sequence_id": "cam"}, {"stream": "door"}, {}]
        for number in range(40):
            parameters = {**ways[number % 4], "sequence_start": number < 4, "sequence_end": number >= 36}
            await call.write(sim_request(number, parameters=parameters))
        await call.done_writing()
        ids = [int((await call.read()).infer_response.id) for _ in range(40)]
        for way in range(4):
            assert [number for number in ids if number % 4 == way] == list(range(way, 40, 4))
        assert await call.read() is grpc.aio.EOF


@on_loop
async def test_a_request_with_a_wrong_sequence_id_is_refused_before_those_that_wait(tmp_path):
    """Its flow is the model's own, and so it need not wait for the flow of a sequence."""
    simulated(tmp_path)
    async with real_server(tmp_path, devices=SimulatedDevices()) as running:
        running.hold()
        call = stub_of(running).ModelStreamInfer()
        await call.write(sim_request(1, parameters={"sequence_id": 3}))
        await call.write(sim_request(2, parameters={"sequence_id": 0.5}))
        response = await call.read()
        assert response.infer_response.id == "2"
        assert "invalid value type for 'sequence_id' parameter" in response.error_message
        running.release()
        assert (await call.read()).infer_response.id == "1"
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


@on_loop
async def test_who_asks_for_an_empty_final_response_gets_one_response_which_is_final(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path) as running:
        stub = stub_of(running)
        call = stub.ModelStreamInfer()
        asked = {"triton_enable_empty_final_response": True}
        for number in range(2):
            await call.write(sim_request(number, parameters=asked))
        await call.done_writing()
        got = [response.infer_response async for response in call]
        assert [response.id for response in got] == ["0", "1"]
        assert all(response.outputs and response.parameters["triton_final_response"].bool_param for response in got)
        alone = await stub.ModelInfer(sim_request(2, parameters=asked))
        assert alone.outputs
        assert "triton_final_response" not in alone.parameters


@on_loop
async def test_with_the_header_the_first_error_ends_the_stream_and_what_waits_is_given_up(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path, devices=SimulatedDevices()) as running:
        running.hold()
        call = stub_of(running).ModelStreamInfer(metadata=(("triton_grpc_error", "true"),))
        await call.write(sim_request(1, parameters={"sequence_id": 3}))
        await call.write(sim_request(2, model="nobody"))
        assert await call.code() is grpc.StatusCode.NOT_FOUND
        assert await call.details() == "Request for unknown model: 'nobody' is not found"
        running.release()
        await eventually(lambda: running.server.permits.taken_count == 0)


LEAKS = {
    "no memory": DeviceMemoryError("cudaHostAlloc failed at /secret"),
    "a bug": MisuseError("secret"),
}


@pytest.mark.one_process("a front-end process allocates nothing for a request")
@pytest.mark.parametrize("case", LEAKS)
@on_loop
async def test_what_nobody_foresaw_ends_its_request_and_not_the_stream(tmp_path, case):
    devices = SimulatedDevices()
    async with real_server(simulated(tmp_path), devices=devices) as running:
        stub = stub_of(running)
        call = stub.ModelStreamInfer()
        await call.write(sim_request(1))
        assert (await call.read()).infer_response.id == "1"
        devices.devices[0].arm(FaultPlan(fail={("alloc_host", 0): LEAKS[case], ("alloc_host", 1): LEAKS[case]}))
        with capture_logs() as logs:
            await call.write(sim_request(2, rows=2))
            response = await call.read()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.ModelInfer(sim_request(3, rows=2))
        assert response.infer_response.id == "2"
        expected = {
            "no memory": (grpc.StatusCode.UNAVAILABLE, "the machine has no memory for this request of several rows"),
            "a bug": (grpc.StatusCode.INTERNAL, "internal error; the server's log has the details"),
        }[case]
        for message, request_id in ((response.error_message, 2), (refused.value.details(), 3)):
            assert message.startswith(f"[request id: {request_id}] {expected[1]}")
            assert "secret" not in message
        assert refused.value.code() is expected[0]
        assert len([line for line in logs if line["log_level"] == "error"]) == (2 if case == "a bug" else 0)
        await call.write(sim_request(4, rows=2))
        assert array_of((await call.read()).infer_response, "output").shape == (2, ROW_BYTES)
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


def infer_stream(running, on_output=lambda: None):
    """A stream without a client: the front end's treatment of messages, at the time they are read."""
    servicer = running.server.inference
    return InferStream(
        servicer._lookup,
        HeavyWork(running.server.pool),
        servicer._admission,
        running.server.clock,
        "client",
        16,
        ends_on_error=False,
        on_output=on_output,
        on_room=lambda: None,
    )


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("is_borrowed", [False, True])
@on_loop
async def test_received_bytes_are_let_go_of_as_soon_as_nobody_reads_them(tmp_path, rows, is_borrowed):
    """By the pipeline too, where it reads them in place: long before an answer's turn comes."""
    devices = None if is_borrowed else SimulatedDevices()
    async with real_server(simulated(tmp_path), devices=devices) as running:
        if not is_borrowed:
            running.hold()
        is_ready = asyncio.Event()
        stream = infer_stream(running, is_ready.set)
        data = sim_request(1, rows=rows).SerializeToString()
        before = sys.getrefcount(data)
        stream.on_message(data, running.server.clock.now_ns())
        if is_borrowed:
            await is_ready.wait()
        assert sys.getrefcount(data) == before
        if not is_borrowed:
            running.release()
        await eventually(lambda: stream.next_message() is not None)
        stream.stop_reading()


@pytest.mark.parametrize("protocol", ["open inference", "frames"])
@on_loop
async def test_a_stream_that_is_idle_holds_nothing_of_its_last_message(tmp_path, protocol):
    nbytes = 8 << 20
    async with real_server(simulated(tmp_path, input_bytes=nbytes, output="checksum"), permits=2) as running:
        payload = bytes(nbytes)
        tracemalloc.start()
        try:
            if protocol == "frames":
                stream = await running.open()
                await stream.send(1, payload)
                assert (await stream.result()).status.code == frames_pb.STATUS_OK
                half_close = stream.half_close
            else:
                call = stub_of(running).ModelStreamInfer()
                request = pb.ModelInferRequest(model_name="sim")
                request.inputs.add(name="input", datatype="UINT8", shape=[1, nbytes])
                request.raw_input_contents.append(payload)
                await call.write(request)
                del request
                assert not (await call.read()).error_message
                half_close = call.done_writing
            await eventually(lambda: tracemalloc.get_traced_memory()[0] < nbytes // 2)
        finally:
            tracemalloc.stop()
        await half_close()
