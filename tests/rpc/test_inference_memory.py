"""Shared memory of clients: its uses, its owners, and its refusals."""

import contextlib
import os
import resource
import tracemalloc
import uuid
from pathlib import Path

import grpc
import numpy as np
import pytest

from forebay.wire import inference_pb2 as pb
from forebay.wire.inference_pb2_grpc import GRPCInferenceServiceStub
from forebay_server.service.frontend.memory import regions as regions_module
from forebay_server.service.frontend.memory.regions import MAX_REGIONS, ClientRegions
from forebay_server.service.frontend.open_inference.errors import InferenceError
from tests.support import models
from tests.support.inference import stub_of
from tests.support.loops import on_loop
from tests.support.real_server import ROW_BYTES, SimulatedDevices, eventually, real_server, row, simulated

INVALID = grpc.StatusCode.INVALID_ARGUMENT
SHM = Path("/dev/shm")  # noqa: S108 - the folder of shm_open


@pytest.fixture
def key():
    """A shared memory object of 4 KiB."""
    name = f"forebay-test-{uuid.uuid4().hex}"
    (SHM / name).write_bytes(bytes(4096))
    yield name
    (SHM / name).unlink()


@pytest.fixture
def repository(tmp_path):
    models.save(models.add_sub(), tmp_path / "simple" / "1" / "model.onnx")
    return tmp_path


def channel_to(address):
    """A channel with its own connection."""
    return grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])


async def error_of(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details()


def register(stub, key, name="r", offset=0, byte_size=4096):
    request = pb.SystemSharedMemoryRegisterRequest(name=name, key=key, offset=offset, byte_size=byte_size)
    return stub.SystemSharedMemoryRegister(request)


def place(parameters, offset, byte_size=64, region="r"):
    parameters["shared_memory_region"].string_param = region
    parameters["shared_memory_byte_size"].int64_param = byte_size
    parameters["shared_memory_offset"].int64_param = offset


def shared_request(offset=64, byte_size=64, output_size=64):
    """INPUT0 in the message, INPUT1 and OUTPUT0 in shared memory."""
    request = pb.ModelInferRequest(model_name="simple")
    request.inputs.add(name="INPUT0", datatype="INT32", shape=[1, 16])
    request.raw_input_contents.append(np.full(16, 7, np.int32).tobytes())
    place(request.inputs.add(name="INPUT1", datatype="INT32", shape=[1, 16]).parameters, offset, byte_size)
    place(request.outputs.add(name="OUTPUT0").parameters, 128, output_size)
    request.outputs.add(name="OUTPUT1")
    return request


def copying_request(request_id="", region="r"):
    """One row of the simulated model: input and output in shared memory, one behind the other."""
    request = pb.ModelInferRequest(model_name="sim", id=request_id)
    place(request.inputs.add(name="input", datatype="UINT8", shape=[1, ROW_BYTES]).parameters, 0, ROW_BYTES, region)
    place(request.outputs.add(name="output").parameters, ROW_BYTES, ROW_BYTES, region)
    return request


async def names(stub, name=""):
    return sorted((await stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest(name=name))).regions)


async def unregister(stub, name=""):
    await stub.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest(name=name))


@on_loop
async def test_inputs_and_outputs_may_lie_in_shared_memory(repository, key):
    async with real_server(repository, allow_client_shm=True) as running:
        stub = stub_of(running)
        values = np.arange(16, dtype=np.int32)
        with (SHM / key).open("r+b") as file:
            file.seek(64)
            file.write(values.tobytes())
        await register(stub, f"/{key}")
        response = await stub.ModelInfer(shared_request())
        assert response.raw_output_contents[0] == b""
        np.testing.assert_array_equal(np.frombuffer(response.raw_output_contents[1], np.int32), 7 - values)
        with (SHM / key).open("rb") as file:
            file.seek(128)
            np.testing.assert_array_equal(np.frombuffer(file.read(64), np.int32), 7 + values)
        status = await stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest())
        assert status.regions["r"].byte_size == 4096
        await stub.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest())
        assert (await error_of(stub.ModelInfer(shared_request())))[0] is grpc.StatusCode.NOT_FOUND


@on_loop
async def test_ranges_outside_a_region_are_refused(repository, key):
    async with real_server(repository, allow_client_shm=True) as running:
        stub = stub_of(running)
        await register(stub, key, byte_size=192)
        for request, words in (
            (shared_request(offset=-1), "Invalid offset for shared memory region: 'r'"),
            (shared_request(offset=193), "Invalid offset for shared memory region: 'r'"),
            (shared_request(offset=192), "Invalid offset for shared memory region: 'r'"),
            (shared_request(offset=192, byte_size=0), "Invalid offset for shared memory region: 'r'"),
            (shared_request(offset=129), "Invalid offset + byte size for shared memory region: 'r'"),
            (shared_request(byte_size=2**63 - 1), "Invalid offset + byte size for shared memory region: 'r'"),
            (shared_request(byte_size=-64), "Invalid offset + byte size for shared memory region: 'r'"),
            (shared_request(output_size=65), "Invalid offset + byte size for shared memory region: 'r'"),
            (shared_request(byte_size=60), "input byte size mismatch for input 'INPUT1'"),
        ):
            code, message = await error_of(stub.ModelInfer(request))
            assert (code, words in message) == (INVALID, True), message
        code, message = await error_of(stub.ModelInfer(shared_request(output_size=60)))
        assert code is grpc.StatusCode.INTERNAL
        assert "(60 bytes) should be at least 64 bytes to hold the results" in message


def strings_request(byte_size):
    request = pb.ModelInferRequest(model_name="strings")
    place(request.inputs.add(name="x", datatype="BYTES", shape=[1, 1]).parameters, 0, byte_size)
    return request


@on_loop
async def test_nothing_is_read_of_a_range_whose_size_is_wrong(repository, key):
    nbytes = (256 << 20) + 1
    os.truncate(SHM / key, nbytes)  # sparse: it takes no memory
    models.save(models.identity(["batch"], models.TensorProto.STRING), repository / "strings" / "1" / "model.onnx")
    async with real_server(repository, allow_client_shm=True) as running:
        stub = stub_of(running)
        await register(stub, key, byte_size=nbytes)
        for request, words in (
            (shared_request(offset=0, byte_size=nbytes), f"Expected 64, got {nbytes}"),
            (strings_request(nbytes), f"at most {nbytes - 1} of BYTES"),
        ):
            tracemalloc.start()
            try:
                code, message = await error_of(stub.ModelInfer(request))
                _, peak_bytes = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert (code, words in message) == (INVALID, True), message
            assert peak_bytes < nbytes // 4


@on_loop
async def test_a_file_that_became_shorter_is_an_error_and_not_the_end(repository, key):
    async with real_server(repository, allow_client_shm=True) as running:
        stub = stub_of(running)
        await register(stub, key)
        os.truncate(SHM / key, 10)
        assert (await error_of(stub.ModelInfer(shared_request())))[0] is INVALID
        os.truncate(SHM / key, 130)
        assert (await error_of(stub.ModelInfer(shared_request())))[0] is INVALID
        assert (SHM / key).stat().st_size == 130


@on_loop
async def test_what_cannot_be_registered(repository, key):
    link = SHM / f"{key}-link"
    link.symlink_to(SHM / key)
    try:
        async with real_server(repository, allow_client_shm=True) as running:
            stub = stub_of(running)
            await register(stub, key)
            exists = (grpc.StatusCode.ALREADY_EXISTS, "shared memory region 'r' already in manager")
            assert await error_of(register(stub, key)) == exists
            for other in ("no-such-key", "../etc/passwd", "", ".", "a/b", f"{key}-link"):
                code, message = await error_of(register(stub, other, "s"))
                assert (code, message) == (
                    grpc.StatusCode.INTERNAL,
                    f"Unable to open shared memory region: '{other}'",
                )
            for offset, byte_size in ((0, 4097), (1, 4096), (4096, 1), (4097, 0), (0, 0)):
                code, message = await error_of(register(stub, key, "s", offset, byte_size))
                assert code is INVALID
                assert message.startswith("failed to register shared memory region 's': invalid args")
            code, message = await error_of(register(stub, key, "s", 2**64 - 1, 2**64 - 1))
            assert (code, "Integer overflow detected" in message) == (INVALID, True)
            for reserved in ("triton_python_backend_shm_region_1", "/triton_python_backend_shm_region_1"):
                assert await error_of(register(stub, reserved, "s")) == (
                    INVALID,
                    f"cannot register shared memory region 's' with key '{reserved}' as the key contains the reserved "
                    "prefix 'triton_python_backend_shm_region_'",
                )
            assert await error_of(names(stub, "s")) == (
                grpc.StatusCode.NOT_FOUND,
                "Unable to find system shared memory region: 's'",
            )
    finally:
        link.unlink()


@on_loop
async def test_a_region_that_was_never_registered_or_is_no_more_is_not_found(repository, key):
    async with real_server(repository, allow_client_shm=True) as running:
        stub = stub_of(running)
        unknown = (grpc.StatusCode.NOT_FOUND, "Unable to find shared memory region: 'r'")
        assert await error_of(stub.ModelInfer(shared_request())) == unknown
        await register(stub, key)
        await unregister(stub, "r")
        assert await error_of(stub.ModelInfer(shared_request())) == unknown


@on_loop
async def test_a_region_is_its_users_on_every_connection(repository, key):
    async with real_server(repository, allow_client_shm=True) as running:
        await register(stub_of(running), key)
        async with channel_to(running.address) as channel:
            other = GRPCInferenceServiceStub(channel)
            await other.ModelInfer(shared_request())
            assert await names(other) == ["r"]
            assert (await error_of(register(other, key)))[0] is grpc.StatusCode.ALREADY_EXISTS
            await unregister(other, "r")
            assert await names(stub_of(running)) == []
            await register(other, key)
            assert await names(stub_of(running)) == ["r"]  # and from now on it has to do with it
        running.server.regions.close_orphans()
        await stub_of(running).ModelInfer(shared_request())


@on_loop
async def test_a_region_in_use_stays_until_the_requests_that_use_it_have_ended(tmp_path, key):
    async with real_server(simulated(tmp_path), devices=SimulatedDevices(), allow_client_shm=True) as running:
        stub = stub_of(running)
        (SHM / key).write_bytes(row(7) + bytes(4032))
        await register(stub, key)
        running.hold()
        first = stub.ModelInfer(copying_request())
        await eventually(lambda: running.server.permits.taken_count == 1)
        await unregister(stub, "r")
        assert await names(stub) == ["r"]
        assert (await error_of(register(stub, key)))[0] is grpc.StatusCode.ALREADY_EXISTS
        stream = stub.ModelStreamInfer()
        await stream.write(copying_request("second"))  # usable while it is registered
        await eventually(lambda: running.server.permits.taken_count == 2)
        running.release()
        await first
        assert not (await stream.read()).error_message
        assert (SHM / key).read_bytes()[ROW_BYTES : 2 * ROW_BYTES] == row(7)
        assert await names(stub) == []
        assert running.server.regions.open_count == 0
        await stream.done_writing()


@on_loop
async def test_requests_that_fail_or_are_given_up_keep_no_region(tmp_path, key):
    async with real_server(simulated(tmp_path), devices=SimulatedDevices(), allow_client_shm=True) as running:
        stub = stub_of(running)
        await register(stub, key)
        wrong = copying_request()
        wrong.outputs[0].parameters["shared_memory_byte_size"].int64_param = 1
        late = copying_request()
        late.parameters["latency_budget_ms"].double_param = 0
        unknown = copying_request()
        place(unknown.outputs[0].parameters, 0, ROW_BYTES, "s")
        for request in (wrong, late, unknown):
            await error_of(stub.ModelInfer(request))
        running.hold()
        given_up = stub.ModelInfer(copying_request())
        stream = stub.ModelStreamInfer()
        await stream.write(copying_request())
        await eventually(lambda: running.server.permits.taken_count == 2)
        given_up.cancel()
        stream.cancel()
        await unregister(stub)
        await eventually(lambda: running.server.regions.open_count == 0)
        running.release()


@on_loop
async def test_regions_end_with_the_last_connection_of_their_user(repository, key):
    async with real_server(repository, allow_client_shm=True) as running:
        async with channel_to(running.address) as channel:
            await register(GRPCInferenceServiceStub(channel), key)
            assert running.server.regions.open_count == 1
        await eventually(lambda: running.server.regions.open_count == 0)


@on_loop
async def test_a_user_has_its_regions_over_tcp_and_through_the_unix_socket(repository, key, tmp_path):
    address = f"unix:{tmp_path / 's'}"
    async with real_server(repository, allow_client_shm=True, uds=tmp_path / "s") as running:
        async with channel_to(address) as first, channel_to(address) as second:
            await register(GRPCInferenceServiceStub(first), key)
            await GRPCInferenceServiceStub(second).ModelInfer(shared_request())
            await stub_of(running).ModelInfer(shared_request())
            await first.close()
            await GRPCInferenceServiceStub(second).ModelInfer(shared_request())
        await stub_of(running).ModelInfer(shared_request())


@on_loop
async def test_one_region_too_many_is_refused_and_all_others_stay(repository, key):
    async with real_server(repository, allow_client_shm=True) as running:
        stub = stub_of(running)
        for number in range(MAX_REGIONS):
            await register(stub, key, f"r{number}")
        code, message = await error_of(register(stub, key, "r"))
        assert (code, f"{MAX_REGIONS} shared memory regions" in message) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            True,
        )
        assert running.server.regions.open_count == MAX_REGIONS
        await stub.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest(name="r7"))
        await register(stub, key, "r")


def test_a_client_of_another_machine_is_refused():
    with pytest.raises(InferenceError, match="for clients on the server's machine") as refused:
        ClientRegions(is_enabled=True).check_new("r", "ipv4:192.0.2.1:5000")
    assert refused.value.code is grpc.StatusCode.PERMISSION_DENIED


@on_loop
async def test_a_user_and_the_server_have_limits_of_their_own(repository, key, monkeypatch):
    monkeypatch.setattr(regions_module, "MAX_USER_REGIONS", 3)
    async with real_server(repository, allow_client_shm=True) as running:
        stub = stub_of(running)
        await register(stub, key, "r0")
        async with channel_to(running.address) as channel:
            other = GRPCInferenceServiceStub(channel)
            for number in (1, 2):
                await register(other, key, f"r{number}")
            for one in (other, stub):
                code, message = await error_of(register(one, key, "r"))
                assert (code, message.partition(",")[0]) == (
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    "this user has 3 shared memory regions",
                )
        running.server.regions._most = 2
        await unregister(stub, "r1")
        code, message = await error_of(register(stub, key, "r"))
        assert (code, message.partition(",")[0]) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "the server has 2 shared memory regions",
        )


def test_regions_leave_descriptors_for_everything_else(monkeypatch):
    monkeypatch.setattr(regions_module.resource, "getrlimit", lambda _: (1024, 4096))
    assert ClientRegions(is_enabled=True)._most == 256


@pytest.mark.parametrize("left", [0, 1])
@on_loop
async def test_without_a_descriptor_left_a_registration_is_refused_and_the_server_serves_on(repository, key, left):
    async with real_server(repository, allow_client_shm=True) as running:
        stub = stub_of(running)
        await stub.ServerLive(pb.ServerLiveRequest())
        soft_limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = max(int(path.name) for path in Path("/proc/self/fd").iterdir()) + 1
        taken = []
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.dup(0))
            for _ in range(left):  # one is enough to find out who asks, and to find the object, not to open it
                os.close(taken.pop())
            code, message = await error_of(register(stub, key))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft_limit, hard))
            for descriptor in taken:
                os.close(descriptor)
        assert (code, "no file descriptor left" in message) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True), message
        await register(stub, key)


@on_loop
async def test_it_is_off_unless_asked_for(repository, key):
    async with real_server(repository) as running:
        code, message = await error_of(register(stub_of(running), key))
        assert (code, message.startswith("Client shared memory is disabled.")) == (
            grpc.StatusCode.UNIMPLEMENTED,
            True,
        )
        assert await names(stub_of(running)) == []
