"""Under a limit of its memory a server takes no message that gRPC could not receive: gRPC ends the process then."""

import asyncio
import json
import sys

import grpc
import pytest

from forebay_server.service.frontend.server import LEAST_MESSAGE_BYTES, MESSAGE_SHARE, within_memory
from forebay_server.service.settings import ServeSettings
from tests.support.guard import HANG_GUARD_S
from tests.support.loops import on_loop
from tests.support.real_server import simulated
from tests.support.repository import ROOT

MIB = 1 << 20
INFER = "/inference.GRPCInferenceService/ModelInfer"
CLIENT = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]


@pytest.mark.parametrize(
    ("left_bytes", "expected"),
    [(None, 1 << 30), (16 << 30, 1 << 30), (800 * MIB, 800 * MIB // MESSAGE_SHARE), (0, LEAST_MESSAGE_BYTES)],
)
def test_a_message_has_its_share_of_what_the_limit_leaves(left_bytes, expected):
    settings = ServeSettings(max_message_bytes=1 << 30)
    assert within_memory(settings, left_bytes).max_message_bytes == expected


def test_a_limit_of_messages_below_the_least_stays():
    assert within_memory(ServeSettings(max_message_bytes=2000), 0).max_message_bytes == 2000


@on_loop
async def test_a_server_with_little_address_space_refuses_what_it_could_not_receive(tmp_path):
    arguments = (
        f"ulimit -v {1000 * 1024} && exec {sys.executable} -m forebay_server.service serve --address 127.0.0.1:0 "
    )
    process = await asyncio.create_subprocess_shell(
        f"{arguments} --model-repository {simulated(tmp_path)}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"FOREBAY_MAX_MESSAGE_BYTES": str(1 << 30), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        cwd=ROOT,
    )
    try:
        line = await asyncio.wait_for(process.stdout.readline(), HANG_GUARD_S)
        async with grpc.aio.insecure_channel(json.loads(line)["address"], CLIENT) as channel:
            for nbytes, code in ((200 * MIB, grpc.StatusCode.RESOURCE_EXHAUSTED), (0, grpc.StatusCode.NOT_FOUND)):
                call = channel.unary_unary(INFER)(b"\x82\x7d" + b"\x80\x80\x80\x64" + bytes(nbytes) if nbytes else b"")
                assert await asyncio.wait_for(call.code(), HANG_GUARD_S) is code
        process.terminate()
        assert await asyncio.wait_for(process.wait(), HANG_GUARD_S) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
