"""Statuses that depend on the state of the server, not on the request: see the table in test_inference_status.py."""

import asyncio

import grpc
import numpy as np
import pytest

from forebay.wire import inference_pb2 as pb
from forebay_server.service.batching.pending import DELAYED_NS
from tests.support.inference import array_of, request_of, stub_of
from tests.support.loops import on_loop
from tests.support.real_server import ROW_BYTES, SimulatedDevices, eventually, real_server, simulated


def sim_request(number=0, **fields):
    return request_of("sim", input=np.full((1, ROW_BYTES), number, np.uint8), request_id=str(number), **fields)


async def status_of(call):
    return await call.code(), await call.details()


@on_loop
async def test_a_model_that_was_unloaded_has_no_versions(tmp_path):
    simulated(tmp_path)
    settings = {"model_control_mode": "explicit", "load_model": ("sim",)}
    async with real_server(tmp_path, devices=SimulatedDevices(), **settings) as running:
        stub = stub_of(running)
        version = running.version()
        running.hold()
        under_way = stub.ModelInfer(sim_request(1))
        await eventually(lambda: version.former.statistics().in_flight == 1)
        await stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="sim"))
        none = "Request for unknown model: 'sim' has no available versions"
        old = "Request for unknown model: 'sim' version 1 is not at ready state"
        other = "Request for unknown model: 'sim' version 2 is not found"
        for number in ("", "1", "2"):
            assert not (await stub.ModelReady(_asking(stub.ModelReady, stub, number))).ready
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        for number in ("", "1"):
            answer = await status_of(stub.ModelStatistics(_asking(stub.ModelStatistics, stub, number)))
            assert answer == (invalid, "requested model 'sim' is not available")
        for call in (stub.ModelInfer, stub.ModelMetadata, stub.ModelConfig):
            for number, code, message in (
                ("", grpc.StatusCode.NOT_FOUND, none),
                ("1", grpc.StatusCode.UNAVAILABLE, old),
                ("2", grpc.StatusCode.NOT_FOUND, other),
            ):
                request = sim_request(version=number) if call is stub.ModelInfer else _asking(call, stub, number)
                assert await status_of(call(request)) == (code, message)
        for lane in version.lanes:
            lane.execute.device_stream.release()
        assert (await under_way).id == "1"
        await eventually(lambda: not running.server.registry.unloading())


def _asking(call, stub, version):
    kinds = {
        stub.ModelReady: pb.ModelReadyRequest,
        stub.ModelMetadata: pb.ModelMetadataRequest,
        stub.ModelConfig: pb.ModelConfigRequest,
        stub.ModelStatistics: pb.ModelStatisticsRequest,
    }
    return kinds[call](name="sim", version=version)


@on_loop
async def test_a_full_queue_refuses_the_newest(tmp_path):
    simulated(tmp_path, max_batch_size=1)
    with (tmp_path / "sim" / "config.pbtxt").open("a") as file:
        file.write("\ndynamic_batching { default_queue_policy { max_queue_size: 2 } }")
    async with real_server(tmp_path, devices=SimulatedDevices()) as running:
        stub = stub_of(running)
        running.hold()
        calls = [stub.ModelInfer(sim_request(number)) for number in range(20)]
        await eventually(lambda: running.version().statistics.snapshot().failures["REJECTED"] > 0)
        running.release()
        told = [await status_of(call) for call in calls]
        full = (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
        refused = [(code, message.partition("] ")[2]) for code, message in told if code is not grpc.StatusCode.OK]
        assert refused
        assert set(refused) == {full}
        assert grpc.StatusCode.OK in [code for code, _ in told]


@on_loop
async def test_a_delayed_request_holds_up_no_later_one_of_its_connection(tmp_path):
    simulated(tmp_path, policy="window")
    with (tmp_path / "sim" / "config.pbtxt").open("a") as file:
        file.write(
            "\ndynamic_batching { preferred_batch_size: [ 2 ] max_queue_delay_microseconds: 60000000 "
            "default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 60000000 "
            "allow_timeout_override: true } }"
        )
    async with real_server(tmp_path, devices=SimulatedDevices()) as running:
        stub = stub_of(running)
        pending = running.version().former._core.pending

        def is_delayed():
            return any(
                place.order_key >= DELAYED_NS for group in list(pending.groups.values()) for place in group.queue
            )

        delayed = stub.ModelInfer(sim_request(1, parameters={"timeout": 50_000}))
        await eventually(is_delayed)
        pair = request_of("sim", input=np.full((2, ROW_BYTES), 2, np.uint8), request_id="2")
        assert (await stub.ModelInfer(pair)).id == "2"
        assert len(pending) == 1
        assert not delayed.done()
        assert (await stub.ModelInfer(sim_request(3))).id == "3"  # makes the pair that the delayed one waits for
        assert (await delayed).id == "1"


@on_loop
async def test_a_request_that_is_cancelled_ends_cancelled(tmp_path):
    simulated(tmp_path, max_batch_size=1)
    async with real_server(tmp_path, devices=SimulatedDevices()) as running:
        stub = stub_of(running)
        running.hold()
        calls = [stub.ModelInfer(sim_request(number)) for number in range(7)]
        await eventually(lambda: running.server.permits.taken_count == 7)
        last = stub.ModelInfer(sim_request(7))  # behind all others, so that no lane has it
        await eventually(lambda: running.server.permits.taken_count == 8)
        last.cancel()
        assert await last.code() is grpc.StatusCode.CANCELLED
        await eventually(lambda: running.version().statistics.snapshot().failures["CANCELED"] == 1)
        running.release()
        assert [await call.code() for call in calls] == [grpc.StatusCode.OK] * 7


@on_loop
async def test_while_it_drains_open_streams_are_answered_and_new_calls_refused(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path, is_checked=False) as running:
        stub = stub_of(running)
        stream = stub.ModelStreamInfer()
        await stream.write(sim_request(1))
        assert (await stream.read()).infer_response.id == "1"
        running.server.inference.refuse()  # later requests meet a closed listener, which is UNAVAILABLE as well
        words = "GRPC server is shutting down and has stopped accepting new requests."
        assert await status_of(stub.ModelInfer(sim_request(2))) == (grpc.StatusCode.UNAVAILABLE, words)
        draining = asyncio.create_task(running.server.front_end.drain())
        await eventually(lambda: running.server.front_end.health._is_draining)
        await stream.write(sim_request(3))
        response = await stream.read()
        assert (response.infer_response.id, response.error_message) == ("3", "")
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK
        await draining


@on_loop
async def test_a_decoupled_model_is_refused_when_it_is_loaded(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path, model_control_mode="explicit", load_model=("sim",)) as running:
        stub = stub_of(running)
        request = pb.RepositoryModelLoadRequest(model_name="sim")
        request.parameters[
            "config"
        ].string_param = '{"backend": "simulated", "model_transaction_policy": {"decoupled": true}}'
        with pytest.raises(grpc.aio.AioRpcError, match="decoupled models are not served") as caught:
            await stub.RepositoryModelLoad(request)
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert await stub.ModelInfer(sim_request(1))


@pytest.mark.parametrize("name", ["priority", "timeout"])
@on_loop
async def test_the_largest_number_that_can_be_said_is_as_good_as_any(tmp_path, name):
    async with real_server(simulated(tmp_path)) as running:
        stub = stub_of(running)
        for number in range(1, 4):
            response = await stub.ModelInfer(sim_request(number, parameters={name: 2**63 - 1}))
            assert array_of(response, "output").tolist() == [[number] * ROW_BYTES]
