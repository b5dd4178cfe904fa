"""A client whose address is gRPC's to resolve, `xds:///name`: a bootstrap file, an xDS server, gRPC's own policy."""

import asyncio
import json
import os
import sys

import pytest

from tests.support.guard import HANG_GUARD_S
from tests.support.loops import on_loop
from tests.support.real_server import eventually
from tests.support.scripted_server import scripted
from tests.support.xds_server import xds_server

PROGRAM = """
import asyncio, sys
import forebay, forebay.aio

async def main():
    limits = forebay.Reconnection(connect_timeout_s=float(sys.argv[1]))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, stop.set)
    async with forebay.aio.Client("xds:///cameras", reconnection=limits) as client:
        while not stop.is_set():
            stream = client.stream("door", model="m", encoding="jpeg", delivery="every")
            await stream.open()
            await stream.send(b"jpeg")
            result = await stream.receive()
            print(result.status.value, stream.server)
            await stream.close(5)

try:
    asyncio.run(main())
except forebay.UnreachableError as error:
    print(error)
"""


async def run(seconds, condition=lambda: False, **environment):
    """The lines of a client that opens streams until a condition holds, or one is refused.

    It has a process of its own: gRPC reads the bootstrap once.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GRPC_XDS")} | environment
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-c", PROGRAM, str(seconds))
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)
    try:
        await eventually(lambda: condition() or process.returncode is not None)
        output, errors = await asyncio.wait_for(process.communicate(b""), HANG_GUARD_S)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, errors.decode()
    return output.decode().splitlines()


def bootstrap(folder, server):
    """Write the file that says where the xDS server is."""
    credentials = [{"type": "insecure"}]
    servers = [{"server_uri": server, "channel_creds": credentials, "server_features": ["xds_v3"]}]
    path = folder / "bootstrap.json"
    path.write_text(json.dumps({"xds_servers": servers, "node": {"id": "camera"}}))
    return str(path)


@on_loop
async def test_streams_go_to_the_servers_that_an_xds_server_names(tmp_path):
    async with scripted() as first, scripted() as second:
        ports = [int(server.address.rpartition(":")[2]) for server in (first, second)]
        async with xds_server("cameras", ports) as server:
            both = lambda: first.calls and second.calls  # noqa: E731
            lines = await run(20, both, GRPC_XDS_BOOTSTRAP=bootstrap(tmp_path, server))
        assert set(lines) == {"ok xds:///cameras"}
        assert first.calls
        assert second.calls


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "an xds: address needs a bootstrap file, whose path is in GRPC_XDS_BOOTSTRAP"),
        ({"GRPC_XDS_BOOTSTRAP": "/nowhere"}, "the bootstrap file of xDS that GRPC_XDS_BOOTSTRAP names cannot be read"),
        ({"GRPC_XDS_BOOTSTRAP_CONFIG": "{"}, "the bootstrap file of xDS is not as gRPC wants it"),
    ],
    ids=["none", "missing", "broken"],
)
@on_loop
async def test_a_bootstrap_that_gRPC_cannot_use_is_said_in_words(environment, words):  # noqa: N802
    (line,) = await run(0.5, **environment)
    assert line.startswith(f"no stream on xds:///cameras within 0.5 s; the last try: UNAVAILABLE: {words}")


@on_loop
async def test_an_xds_server_that_cannot_be_reached_is_said_in_words(tmp_path):
    (line,) = await run(0.5, GRPC_XDS_BOOTSTRAP=bootstrap(tmp_path, "127.0.0.1:1"))
    assert line.endswith("the xDS server 127.0.0.1:1 cannot be reached: nothing listens there (connection refused)")
