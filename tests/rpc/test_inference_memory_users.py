"""Shared memory between users: a client gets only objects that its own user may open, even if the server may open more.

The server runs within the test, as root; clients of other users are separate processes.
"""

import os
import tempfile
import uuid
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc
import pytest

from forebay.wire import inference_pb2 as pb
from forebay.wire.inference_pb2_grpc import GRPCInferenceServiceStub
from tests.rpc.test_inference_memory import SHM, register, shared_request
from tests.support import models
from tests.support.inference import stub_of
from tests.support.loops import on_loop
from tests.support.other_user import NEEDS_ROOT, SOMEBODY, SOMEBODY_ELSE, client_of
from tests.support.real_server import eventually, real_server

pytestmark = NEEDS_ROOT


@contextmanager
def shared_object(uid, mode):
    """A shared memory object of 4 KiB that belongs to a user."""
    path = SHM / f"forebay-test-{uuid.uuid4().hex}"
    path.write_bytes(bytes(4096))
    try:
        path.chmod(mode)
        os.chown(path, uid, uid)
        yield path.name
    finally:
        path.unlink()


@asynccontextmanager
async def serving(tmp_path, transport):
    """A server that every user of the machine can connect to, and its address."""
    models.save(models.add_sub(), tmp_path / "models" / "simple" / "1" / "model.onnx")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        uds = Path(folder) / "s"
        async with real_server(tmp_path / "models", allow_client_shm=True, uds=uds) as running:
            uds.chmod(0o666)
            yield running, f"unix:{uds}" if transport == "unix" else running.address


def refusal(key):
    return "INTERNAL", f"Unable to open shared memory region: '{key}'"


both = pytest.mark.parametrize("transport", ["tcp", "unix"])


@both
@on_loop
async def test_only_what_the_asking_user_may_read_and_write_is_opened(tmp_path, transport):
    async with serving(tmp_path, transport) as (running, address), client_of(address, SOMEBODY) as client:
        for owner, mode, is_let in (
            (0, 0o600, False),  # the server's own
            (0, 0o644, False),  # to be read only
            (0, 0o662, False),
            (0, 0o666, True),
            (SOMEBODY, 0o600, True),
            (SOMEBODY, 0o466, False),  # the owner has the owner's rights, and no others
            (SOMEBODY_ELSE, 0o600, False),
            (SOMEBODY_ELSE, 0o606, False),  # the group may not, and whether it is one of the group is not known
        ):
            with shared_object(owner, mode) as key:
                answer = await client.register("r", key)
                assert answer == (("OK", {}) if is_let else refusal(key)), (owner, oct(mode))
                assert (await client.call("SystemSharedMemoryUnregister"))[0] == "OK"
        assert await client.register("r", "no-such-object") == refusal("no-such-object")
        assert running.server.regions.open_count == 0


@both
@on_loop
async def test_a_refusal_does_not_tell_how_large_an_object_is(tmp_path, transport):
    async with serving(tmp_path, transport) as (_, address), client_of(address, SOMEBODY) as client:
        with shared_object(0, 0o600) as key:
            assert await client.register("r", key, byte_size=1 << 30) == refusal(key)


@both
@on_loop
async def test_connections_of_one_user_share_its_regions(tmp_path, transport):
    async with serving(tmp_path, transport) as (running, address):
        with shared_object(SOMEBODY, 0o600) as key:
            async with client_of(address, SOMEBODY) as second:
                async with client_of(address, SOMEBODY) as first:
                    assert await first.register("r", key) == ("OK", {})
                    assert (await second.infer(shared_request()))[0] == "OK"
                    assert await second.regions() == ["r"]
                    assert (await second.register("r", key))[0] == "ALREADY_EXISTS"
                assert (await second.infer(shared_request()))[0] == "OK"  # the first has gone, its user has not
                assert (await second.call("SystemSharedMemoryUnregister", name="r"))[0] == "OK"
                assert await second.regions() == []
                assert await second.register("r", key) == ("OK", {})
            await eventually(lambda: running.server.regions.open_count == 0)


@on_loop
async def test_users_see_and_use_nothing_of_each_other(tmp_path):
    async with serving(tmp_path, "tcp") as (running, address):
        with shared_object(SOMEBODY, 0o666) as key:
            async with client_of(address, SOMEBODY) as one, client_of(address, SOMEBODY_ELSE) as other:
                assert await one.register("r", key) == ("OK", {})
                unknown = ("NOT_FOUND", "Unable to find shared memory region: 'r'")
                assert await other.infer(shared_request()) == unknown
                assert await other.regions() == []
                assert await other.call("SystemSharedMemoryStatus", name="r") == (
                    "NOT_FOUND",
                    "Unable to find system shared memory region: 'r'",
                )
                assert (await other.call("SystemSharedMemoryUnregister"))[0] == "OK"
                assert await other.register("r", key) == ("OK", {})  # a distinct name
                assert running.server.regions.open_count == 2
                assert (await one.infer(shared_request()))[0] == "OK"
                root = stub_of(running)
                assert not (await root.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest())).regions


@on_loop
async def test_several_users_at_the_unix_socket_have_the_rights_that_all_of_them_have(tmp_path):
    async with serving(tmp_path, "unix") as (running, address), client_of(address, SOMEBODY) as one:
        with shared_object(SOMEBODY, 0o600) as own, shared_object(SOMEBODY, 0o666) as everybodys:
            assert await one.register("r", own) == ("OK", {})
            async with client_of(address, SOMEBODY_ELSE) as other:
                for client in (one, other):
                    code, words = await client.infer(shared_request())
                    assert (code, words.partition(";")[0]) == (
                        "NOT_FOUND",
                        "Unable to find shared memory region: 'r'",
                    )
                    assert await client.regions() == []
                    assert await client.register("s", own) == refusal(own)
                assert await other.register("s", everybodys) == ("OK", {})
                assert await one.regions() == ["s"]
                async with client_of(running.address, SOMEBODY) as over_tcp:  # who is one user
                    assert await over_tcp.regions() == ["r", "s"]
            await eventually(lambda: not running.server.regions._askers.get("unix:").users - {SOMEBODY})
            assert await one.regions() == ["r", "s"]
            assert (await one.infer(shared_request()))[0] == "OK"


@on_loop
async def test_root_at_the_unix_socket_takes_nothing_from_a_user_and_leaves_it_nothing(tmp_path):
    async with serving(tmp_path, "unix") as (_, address), client_of(address, SOMEBODY) as client:
        with shared_object(SOMEBODY, 0o600) as own, shared_object(0, 0o600) as of_root:
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(address, options=options) as channel:
                root = GRPCInferenceServiceStub(channel)
                await root.ServerLive(pb.ServerLiveRequest())
                assert await client.register("r", own) == ("OK", {})
                with pytest.raises(grpc.aio.AioRpcError, match="Unable to open"):
                    await register(root, of_root, "s")


@on_loop
async def test_what_root_registers_over_tcp_is_roots_alone(tmp_path):
    async with serving(tmp_path, "tcp") as (running, address), client_of(address, SOMEBODY) as client:
        with shared_object(0, 0o600) as key:
            await register(stub_of(running), key)
            await stub_of(running).ModelInfer(shared_request())
            assert (await client.infer(shared_request()))[0] == "NOT_FOUND"
