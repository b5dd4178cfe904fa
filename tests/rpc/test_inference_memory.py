"""Shared memory of clients: what it does, whose it is, and what cannot be done with it."""

import os
import tracemalloc
import uuid
from pathlib import Path

import grpc
import numpy as np
import pytest

from forebay.wire import inference_pb2 as pb
from forebay.wire.inference_pb2_grpc import GRPCInferenceServiceStub
from service.frontend.inference_errors import InferenceError
from service.frontend.inference_regions import MAX_REGIONS, ClientRegions
from tests.support import models
from tests.support.connections import Relay
from tests.support.inference import stub_of
from tests.support.loops import on_loop
from tests.support.real_server import eventually, real_server

INVALID = grpc.StatusCode.INVALID_ARGUMENT
SHM = Path("/dev/shm")  # noqa: S108 - what shm_open uses


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
    """A channel with a connection of its own."""
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
            assert (await error_of(register(stub, key, "s", byte_size=4097)))[0] is INVALID
            assert (await error_of(register(stub, key, "s", byte_size=0)))[0] is INVALID
            code, message = await error_of(register(stub, key, "s", 2**64 - 1, 2**64 - 1))
            assert (code, "Integer overflow detected" in message) == (INVALID, True)
            assert (await error_of(register(stub, key, "triton_python_backend_shm_region_1")))[0] is INVALID
    finally:
        link.unlink()


@on_loop
async def test_a_region_is_nobody_elses(repository, key):
    async with real_server(repository, allow_client_shm=True) as running:
        await register(stub_of(running), key)
        async with channel_to(running.address) as channel:
            other = GRPCInferenceServiceStub(channel)
            code, message = await error_of(other.ModelInfer(shared_request()))
            assert (code, message) == (grpc.StatusCode.NOT_FOUND, "Unable to find shared memory region: 'r'")
            assert not (await other.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest())).regions
            await other.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest())
        await stub_of(running).ModelInfer(shared_request())


@on_loop
async def test_a_later_connection_from_the_same_port_owns_nothing_of_the_first(repository, key):
    async with real_server(repository, allow_client_shm=True) as running, Relay(running.address).listening() as relay:
        for _ in range(3):
            async with channel_to(relay.address) as channel:
                stub = GRPCInferenceServiceStub(channel)
                assert not (await stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest())).regions
                assert (await error_of(stub.ModelInfer(shared_request())))[0] is grpc.StatusCode.NOT_FOUND
                await register(stub, key)
                await stub.ModelInfer(shared_request())
                await relay.drop()


@on_loop
async def test_regions_end_with_their_connection(repository, key):
    async with real_server(repository, allow_client_shm=True) as running:
        async with channel_to(running.address) as channel:
            await register(GRPCInferenceServiceStub(channel), key)
            assert running.server.regions.open_count == 1
        await eventually(lambda: running.server.regions.open_count == 0)


@on_loop
async def test_clients_of_the_unix_socket_are_one_owner_as_long_as_one_of_them_is_there(repository, key, tmp_path):
    address = f"unix:{tmp_path / 's'}"
    async with real_server(repository, allow_client_shm=True, uds=tmp_path / "s") as running:
        async with channel_to(address) as first, channel_to(address) as second:
            await GRPCInferenceServiceStub(second).ServerLive(pb.ServerLiveRequest())  # it is connected
            await register(GRPCInferenceServiceStub(first), key)
            await GRPCInferenceServiceStub(second).ModelInfer(shared_request())
            await first.close()
            await GRPCInferenceServiceStub(second).ModelInfer(shared_request())
            assert (await error_of(stub_of(running).ModelInfer(shared_request())))[0] is grpc.StatusCode.NOT_FOUND
        await eventually(lambda: running.server.regions.open_count == 0)


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
        ClientRegions(is_enabled=True).check_new("r", 1, "ipv4:192.0.2.1:5000")
    assert refused.value.code is grpc.StatusCode.PERMISSION_DENIED


@on_loop
async def test_it_is_off_unless_asked_for(repository, key):
    async with real_server(repository) as running:
        code, message = await error_of(register(stub_of(running), key))
        assert (code, message.startswith("Client shared memory is disabled.")) == (
            grpc.StatusCode.UNIMPLEMENTED,
            True,
        )
