"""The machine's clock jumps, as when a time service corrects it: no deadline and no timer notices."""

import asyncio
import os
import re
import shutil
import subprocess

import grpc
import pytest

from forebay.wire import frames_pb2 as pb
from tests.support.real_server import RawStream, simulated
from tests.support.repository import ROOT
from tests.support.serve_process import serve

COMPILER = shutil.which("cc")
JUMPS_S = (0, 3600, -3600, 0, -86_400)  # the last one shows in the log of the end
FRAMES = 50
BUDGET_MS = 10_000.0  # an hour is larger than any other delay on the machine


@pytest.fixture
def library(tmp_path):
    built = tmp_path / "jumping_clock.so"
    source = ROOT / "tests" / "support" / "jumping_clock.c"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O2", "-o", built, source, "-ldl"], check=True)
    return built


@pytest.mark.skipif(COMPILER is None, reason="fakes the clock of a process: needs a C compiler")
def test_frames_are_answered_in_time_while_the_clock_jumps(tmp_path, library):
    offset = tmp_path / "offset"
    offset.write_text(str(JUMPS_S[0]))
    environment = {**os.environ, "LD_PRELOAD": str(library), "JUMPING_CLOCK": str(offset)}

    async def run():
        repository = simulated(tmp_path / "models", alpha_ms=1)
        async with serve("--model-repository", repository, environment=environment) as server:
            address = await server.wait_ready()
            async with grpc.aio.insecure_channel(address) as channel:
                stream = RawStream(channel)
                await stream.send_open(latency_budget_ms=BUDGET_MS)
                seq = 0
                for jump in JUMPS_S:
                    offset.write_text(str(jump))
                    for _ in range(FRAMES):
                        seq += 1
                        await stream.send(seq)
                        result = await stream.result()
                        assert (result.seq, result.status.code) == (seq, pb.STATUS_OK), (jump, result)
                        assert result.timings.server_total_us < BUDGET_MS * 1000
                await stream.half_close()
                await stream.drain()
            assert await server.end() == 0, server.errors
        assert "Traceback" not in server.errors, server.errors
        days = re.findall(r'"timestamp": "([-0-9]+)T', server.errors)
        assert len(set(days)) > 1, "the clock did not jump"

    asyncio.run(run())
