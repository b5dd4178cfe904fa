"""Cameras behind networks that delay, slice, stall and cut, and behind a cable that is pulled out."""

import asyncio
import os
import shutil
import subprocess
import sys
import uuid
from collections import Counter
from contextlib import contextmanager

import grpc
import numpy as np
import pytest

import forebay.aio
from tests.support.bad_network import BadNetwork
from tests.support.real_server import ROW_BYTES, eventually, real_server, simulated
from tests.support.repository import ROOT

FRAMES = 300
ROW = np.arange(ROW_BYTES, dtype=np.uint8)
GUARD_S = 240.0


async def play(client, name, delivery, network=None):
    """Send frames one after the other as fast as the stream takes them; statuses and seqs of the answers."""
    statuses, seqs = Counter(), []
    async with client.stream(name, model="sim", encoding="tensor", delivery=delivery) as stream:

        async def receive():
            async for result in stream:
                statuses[result.status.value] += 1
                seqs.append(result.seq)
                if result.is_ok:
                    assert next(iter(result.tensors.values())).tobytes() == ROW.tobytes()
                if network is not None and len(seqs) == FRAMES // 2:
                    network.heal()

        receiving = asyncio.create_task(receive())
        for _ in range(FRAMES):
            await stream.send(ROW)
            await asyncio.sleep(0.002)
        stream.finish()
        await receiving
    return statuses, seqs


@pytest.mark.parametrize("delivery", ["every", "latest"])
@pytest.mark.parametrize(
    "faults",
    [{"delay_s": 0.05}, {"slice_bytes": 1}, {"cut_after_bytes": 4000}, {"cut_after_bytes": 8000, "slice_bytes": 7}],
    ids=["delays", "slices", "cuts", "cuts in slices"],
)
def test_every_frame_is_accounted_for_behind_a_bad_network(tmp_path, faults, delivery):
    async def run():
        async with (
            real_server(simulated(tmp_path)) as running,
            BadNetwork(running.address, **faults).listening() as network,
            forebay.aio.Client(network.address) as client,
            asyncio.timeout(GUARD_S),
        ):
            statuses, seqs = await play(client, "camera", delivery, network)
            return statuses, seqs, network.cuts

    statuses, seqs, cuts = asyncio.run(run())
    assert sum(statuses.values()) == FRAMES
    assert seqs == sorted(set(seqs))
    assert (cuts > 0) == ("cut_after_bytes" in faults)
    if delivery == "every":
        assert set(statuses) == {"ok"}


SEND_FOR_EVER = """
import sys
import numpy as np
import forebay
with forebay.Client(sys.argv[1]) as client, client.stream("camera", model="sim", encoding="tensor") as stream:
    while True:
        stream.send(np.zeros(64, np.uint8))
        stream.receive()
        print(".", flush=True)
"""


def sh(*words):
    subprocess.run(words, check=True, capture_output=True)


@contextmanager
def cable():
    """A separate host on a cable: its name, and this end's name and address."""
    name = f"fb{uuid.uuid4().hex[:8]}"
    here, there = f"{name}a", f"{name}b"
    sh("ip", "netns", "add", name)
    try:
        sh("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        sh("ip", "addr", "add", "10.213.7.1/30", "dev", here)
        sh("ip", "link", "set", here, "up")
        sh("ip", "-n", name, "addr", "add", "10.213.7.2/30", "dev", there)
        sh("ip", "-n", name, "link", "set", there, "up")
        yield name, here, "10.213.7.1"
    finally:
        sh("ip", "netns", "del", name)  # and the cable with it


def can_make_hosts():
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"fb{uuid.uuid4().hex[:8]}"
    made = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True).returncode == 0
    return made and subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not can_make_hosts(), reason="makes a network namespace: needs root and iproute2")
def test_a_camera_whose_cable_is_pulled_is_found_and_freed(tmp_path):
    """No packet says that it is gone: only keepalive finds it."""

    async def run(host, end, address):
        settings = {"address": f"{address}:0", "insecure": True, "keepalive_time_s": 1, "keepalive_timeout_s": 1}
        async with real_server(simulated(tmp_path), **settings) as running:
            camera = await asyncio.create_subprocess_exec(
                *("ip", "netns", "exec", host, sys.executable, "-c", SEND_FOR_EVER, running.address),
                stdout=asyncio.subprocess.PIPE,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            try:
                assert await camera.stdout.readline()
                assert len(running.server.frames.streams) == 1
                sh("ip", "link", "set", end, "down")
                async with asyncio.timeout(GUARD_S):
                    while running.server.frames.streams:
                        await asyncio.sleep(0.1)
            finally:
                camera.kill()
                await camera.communicate()
            sh("ip", "link", "set", end, "up")
            async with grpc.aio.insecure_channel(running.address) as channel:
                await channel.channel_ready()
            await eventually(lambda: not running.server.frames.streams)

    with cable() as (host, end, address):
        asyncio.run(run(host, end, address))
