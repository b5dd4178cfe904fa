"""CUDA shared memory of clients, over a stand-in for CUDA that tracks owners (a GPU: tests/gpu)."""

import asyncio
import threading

import grpc
import numpy as np
import pytest

from forebay.wire import inference_pb2 as pb
from forebay.wire.inference_pb2_grpc import GRPCInferenceServiceStub
from forebay_server.service.frontend.memory.cuda import CudaMemoryRpcs, CudaRegion
from forebay_server.service.frontend.memory.regions import ClientRegions
from tests.rpc.test_inference_memory import INVALID, channel_to, copying_request, error_of, place, shared_request
from tests.support import models
from tests.support.connections import connection
from tests.support.fake_cudart import FakeCudart, cudaError_t, install, uninstall
from tests.support.guard import HANG_GUARD_S
from tests.support.inference import array_of, stub_of
from tests.support.loops import on_loop
from tests.support.real_server import LEAK, ROW_BYTES, SimulatedDevices, eventually, real_server, row, simulated

NOT_FOUND = grpc.StatusCode.NOT_FOUND


@pytest.fixture
def cuda(monkeypatch):
    fake = FakeCudart()
    install(monkeypatch, fake)
    yield fake
    uninstall()
    assert fake.mapped == {}
    assert fake.open == set()


@pytest.fixture
def repository(tmp_path):
    models.save(models.add_sub(), tmp_path / "simple" / "1" / "model.onnx")
    return tmp_path


def register(stub, handle, name="r", device_id=0, byte_size=4096):
    request = pb.CudaSharedMemoryRegisterRequest(name=name, raw_handle=handle, device_id=device_id, byte_size=byte_size)
    return stub.CudaSharedMemoryRegister(request)


async def names(stub, name=""):
    return sorted((await stub.CudaSharedMemoryStatus(pb.CudaSharedMemoryStatusRequest(name=name))).regions)


@on_loop
async def test_inputs_and_outputs_may_lie_on_the_gpu(repository, cuda):
    handle = cuda.export(4096)
    memory = np.ctypeslib.as_array(cuda.exported[handle].bytes)
    memory[64:128].view(np.int32)[:] = range(16)
    async with real_server(repository, allow_client_shm=True) as running:
        stub = stub_of(running)
        await register(stub, handle)
        response = await stub.ModelInfer(shared_request())
        assert array_of(response, "OUTPUT1").tolist() == [[7 - i for i in range(16)]]
        assert memory[128:192].view(np.int32).tolist() == [7 + i for i in range(16)]
        assert response.outputs[0].parameters["shared_memory_byte_size"].int64_param == 64
        status = await stub.CudaSharedMemoryStatus(pb.CudaSharedMemoryStatusRequest())
        assert [(region.name, region.device_id, region.byte_size) for region in status.regions.values()] == [
            ("r", 0, 4096)
        ]
        await stub.CudaSharedMemoryUnregister(pb.CudaSharedMemoryUnregisterRequest(name="r"))
        assert cuda.mapped == {}
        assert (await error_of(stub.ModelInfer(shared_request())))[0] is NOT_FOUND


@on_loop
async def test_a_frame_that_is_read_is_the_servers_own_copy(tmp_path, cuda):
    simulated(tmp_path, alpha_ms=30)
    handle = cuda.export(ROW_BYTES)
    memory = np.ctypeslib.as_array(cuda.exported[handle].bytes)
    memory[:] = 5
    async with real_server(tmp_path, allow_client_shm=True) as running:
        stub = stub_of(running)
        await register(stub, handle, byte_size=ROW_BYTES)
        request = pb.ModelInferRequest(model_name="sim")
        place(request.inputs.add(name="input", datatype="UINT8", shape=[1, ROW_BYTES]).parameters, 0, ROW_BYTES)
        answer = stub.ModelInfer(request)
        await eventually(lambda: running.server.permits.taken_count == 1)
        memory[:] = 6
        assert (await answer).raw_output_contents[0] == row(5)


@on_loop
async def test_ranges_outside_a_region_are_refused(repository, cuda):
    async with real_server(repository, allow_client_shm=True) as running:
        stub = stub_of(running)
        await register(stub, cuda.export(8192))
        for offset, byte_size in ((4097, 0), (4096, 0), (4060, 64), (-1, 64), (2**62, 2**62), (0, -64)):
            code, message = await error_of(stub.ModelInfer(shared_request(offset, byte_size)))
            assert code is INVALID
            assert message.startswith("Invalid offset")
        code, message = await error_of(stub.ModelInfer(shared_request(output_size=60)))
        assert code is grpc.StatusCode.INTERNAL
        assert "(60 bytes) should be at least 64 bytes to hold the results" in message
        await stub.ModelInfer(shared_request())


@on_loop
async def test_what_cannot_be_registered(repository, cuda):
    handle = cuda.export(4096)
    async with real_server(repository, allow_client_shm=True) as running:
        stub = stub_of(running)
        await register(stub, handle)
        exists = (grpc.StatusCode.ALREADY_EXISTS, "shared memory region 'r' already in manager")
        assert await error_of(register(stub, handle)) == exists
        wrong = (
            (b"", 0, 4096, "raw_handle has 0 bytes, a cudaIpcMemHandle_t 64"),
            (b"x" * 64, 0, 4096, "the handle cannot be opened"),
            (handle, 0, 4097, "of at least byte_size (4097) bytes"),
            (handle, 0, 2**64 - 1, "of at least byte_size"),
            (handle, 1, 4096, "GPUs not supported: this server has no GPU 1"),
            (handle, -1, 4096, "no GPU -1"),
            (handle, 0, 0, "failed to register shared memory region 's': invalid args, byte_size is 0"),
        )
        for given, device_id, byte_size, words in wrong:
            code, message = await error_of(register(stub, given, "s", device_id, byte_size))
            assert code is INVALID
            assert words in message
            assert not LEAK.search(message)
        assert await names(stub) == ["r"]
        assert list(cuda.mapped.values()) == [1]
        assert await error_of(names(stub, "s")) == (NOT_FOUND, "Unable to find cuda shared memory region: 's'")


@on_loop
async def test_of_two_that_register_one_name_at_once_one_gets_it(repository, cuda):
    async with real_server(repository, allow_client_shm=True) as running:
        stub = stub_of(running)
        calls = [register(stub, cuda.export(4096)) for _ in range(4)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        refused = [answer.code() for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        assert refused == [grpc.StatusCode.ALREADY_EXISTS] * 3
        assert list(cuda.mapped.values()) == [1]


@on_loop
async def test_a_registration_that_is_cancelled_leaves_nothing_open(cuda):
    opening, go_on, closing = threading.Event(), threading.Event(), threading.Event()
    cuda.before["cudaIpcCloseMemHandle"] = closing.set
    cuda.before["cudaIpcOpenMemHandle"] = lambda: (opening.set(), go_on.wait(HANG_GUARD_S))
    regions = ClientRegions(is_enabled=True)
    request = pb.CudaSharedMemoryRegisterRequest(name="r", raw_handle=cuda.export(64), byte_size=64)
    with connection("127.0.0.1") as (peer, _, _):
        call = asyncio.create_task(CudaMemoryRpcs(regions).register(request, peer))
        await eventually(opening.is_set)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        go_on.set()
        await eventually(closing.is_set)
        await eventually(lambda: not cuda.mapped)
        assert regions.all_of(CudaRegion, peer) == []


@on_loop
async def test_a_machine_without_a_gpu_says_so(repository, cuda):
    cuda.fail["cudaGetDeviceCount"] = cudaError_t.cudaErrorNoDevice
    async with real_server(repository, allow_client_shm=True) as running:
        stub = stub_of(running)
        code, message = await error_of(register(stub, b"x" * 64, "c"))
        assert code is INVALID
        assert message.startswith("failed to register CUDA shared memory region: 'c', GPUs not supported")
        assert await names(stub) == []
        await stub.CudaSharedMemoryUnregister(pb.CudaSharedMemoryUnregisterRequest())


@on_loop
async def test_a_region_is_its_users_on_every_connection_and_goes_with_its_kind_only(repository, cuda):
    async with real_server(repository, allow_client_shm=True) as running:
        stub = stub_of(running)
        for name in ("r", "s"):
            await register(stub, cuda.export(4096), name)
        await stub.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest())
        system = await stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest())
        assert not system.regions
        async with channel_to(running.address) as channel:
            other = GRPCInferenceServiceStub(channel)
            await other.ModelInfer(shared_request())
            assert await names(other) == ["r", "s"]
            await other.CudaSharedMemoryUnregister(pb.CudaSharedMemoryUnregisterRequest())
        assert await names(stub) == []


@on_loop
async def test_an_allocation_in_use_is_unmapped_when_the_request_has_ended(tmp_path, cuda):
    handle = cuda.export(2 * ROW_BYTES)
    async with real_server(simulated(tmp_path), devices=SimulatedDevices(), allow_client_shm=True) as running:
        stub = stub_of(running)
        await register(stub, handle, byte_size=2 * ROW_BYTES)
        running.hold()
        answer = stub.ModelInfer(copying_request())
        await eventually(lambda: running.server.permits.taken_count == 1)
        await stub.CudaSharedMemoryUnregister(pb.CudaSharedMemoryUnregisterRequest(name="r"))
        assert await names(stub) == ["r"]
        assert list(cuda.mapped.values()) == [1]
        running.release()
        await answer
        assert await names(stub) == []
        assert cuda.mapped == {}


@on_loop
async def test_a_gpu_that_refuses_a_copy_is_an_error_of_that_request_alone(repository, cuda):
    async with real_server(repository, allow_client_shm=True) as running:
        stub = stub_of(running)
        await register(stub, cuda.export(4096))
        cuda.fail["cudaMemcpyAsync"] = cudaError_t.cudaErrorStreamCaptureInvalidated
        code, message = await error_of(stub.ModelInfer(shared_request()))
        assert (code, message) == (
            grpc.StatusCode.INTERNAL,
            "CUDA shared memory region 'r' cannot be read: register it anew",
        )
        await stub.ModelInfer(shared_request())


@on_loop
async def test_it_is_off_unless_asked_for(repository, cuda):
    async with real_server(repository) as running:
        code, message = await error_of(register(stub_of(running), cuda.export(4096)))
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert message.startswith("Client shared memory is disabled.")
        assert await names(stub_of(running)) == []
        assert cuda.mapped == {}
