"""Clients that leave without a message, at every stage: their resources are returned, and no error is logged."""

import asyncio
import sys

import grpc
import pytest
import structlog

from forebay.wire import frames_pb2 as pb
from tests.support.loops import on_loop
from tests.support.real_server import SimulatedDevices, assert_quiescent, eventually, real_server, simulated
from tests.support.repository import ROOT

STAGES = ["nothing sent", "open", "frames in flight", "frames in flight and half-closed", "answers unread"]


async def bring_to(stage, running, channel):
    """A stream that is at `stage`; frames in flight are held on the device."""
    running.channel = channel
    if stage == "nothing sent":
        stream = running.stream()
        await stream.call.wait_for_connection()
        await eventually(lambda: running.server.frames.streams)
        return stream
    stream = await running.open(max_in_flight=8)
    if stage == "open":
        return stream
    if stage == "answers unread":
        for seq in range(1, 5):
            await stream.send(seq)
        await eventually(lambda: running.sessions[0].session.outcomes.total() == 4)
        return stream
    await running.occupy(stream)
    for seq in range(2, 7):
        await stream.send(seq)
    await running.received(6)
    if stage.endswith("half-closed"):
        await stream.half_close()
    return stream


async def leave_by_cancel(stream, channel):
    stream.call.cancel()


async def leave_by_close(stream, channel):
    await channel.close()


@pytest.mark.parametrize("leave", [leave_by_cancel, leave_by_close])
@pytest.mark.parametrize("stage", STAGES)
@on_loop
async def test_a_client_that_leaves_holds_nothing(tmp_path, stage, leave):
    devices = SimulatedDevices()
    with structlog.testing.capture_logs() as logs:
        async with real_server(simulated(tmp_path), devices=devices) as running:
            channel = grpc.aio.insecure_channel(running.address, options=[("grpc.use_local_subchannel_pool", 1)])
            stream = await bring_to(stage, running, channel)
            await leave(stream, channel)
            await eventually(lambda: not running.server.frames.streams)  # at once, not when the device is done
            running.release()
            await assert_quiescent(running)
            await channel.close()
    assert [entry for entry in logs if entry["log_level"] in ("error", "warning")] == []
    assert devices.devices[0].races == ()


@on_loop
async def test_clients_that_leave_do_not_hurt_those_that_stay(tmp_path):
    async with real_server(simulated(tmp_path, alpha_ms=1)) as running:
        stays = await running.open(stream_id="stays", max_in_flight=64)

        async def come_and_go(number):
            stream = await running.open(stream_id=f"goes {number}")
            for seq in range(number):
                await stream.send(seq)
            stream.call.cancel()

        for seq in range(40):
            await stays.send(seq)
            if seq % 2:
                await come_and_go(seq % 7)
        await stays.half_close()
        results = await stays.results()
        await assert_quiescent(running)
        assert running.server.frames.frames_received >= 40
    assert [(r.seq, r.status.code) for r in results] == [(seq, pb.STATUS_OK) for seq in range(40)]


@pytest.mark.parametrize("stage", ["open", "frames in flight"])
@on_loop
async def test_a_client_process_that_is_killed_holds_nothing(tmp_path, stage):
    with structlog.testing.capture_logs() as logs:
        async with real_server(simulated(tmp_path), devices=SimulatedDevices()) as running:
            running.hold()
            client = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.support.leaving_client", running.address, stage),
                stdout=asyncio.subprocess.PIPE,
                cwd=ROOT,
            )
            try:
                assert await client.stdout.readline() == b"there\n"
                await running.received(0 if stage == "open" else 6)
            finally:
                client.kill()
                await client.communicate()
            await eventually(lambda: not running.server.frames.streams)
            running.release()
            await assert_quiescent(running)
    assert [entry for entry in logs if entry["log_level"] in ("error", "warning")] == []
