"""The generator's ceiling on this host, now: its rate against a server that does nothing.

A run near this rate measures the generator. The null server runs as a process beside the generator, as a server on the
same host would.
"""

import asyncio
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from forebay_server.loadtest.errors import InvalidRunError
from forebay_server.loadtest.job import Job
from forebay_server.loadtest.runner import run_load
from forebay_server.loadtest.scenario import ArrivalProcess

_DURATION_S = 1.5
_STREAMS = 16  # with four frames in flight each: enough to keep the generator busy
_START_S = 10.0


async def null_server_ceiling(job: Job) -> float:
    """Return answered frames per second of the job's frames, closed loop, against a null server."""
    with tempfile.TemporaryDirectory(prefix="forebay-load-") as folder:
        address = f"unix:{Path(folder) / 'null.sock'}"
        server = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "forebay_server.loadtest.null_server",
            "--listen",
            address,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            await _until_ready(server)
            scenario = replace(
                job.scenario,
                arrival=ArrivalProcess.CLOSED,
                duration_s=_DURATION_S,
                streams=max(_STREAMS, job.processes),
                concurrency=4,
                connect_ramp_s=0.0,
                trace=(),
            )
            spec = replace(job.spec, address=address, ca_file="", connections=0)
            outcome = await run_load(replace(job, scenario=scenario, spec=spec))
        finally:
            server.terminate()
            await server.wait()
    return outcome.run.counters.answers.get("OK", 0) / _DURATION_S


async def _until_ready(server: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(_START_S):
            line = await server.stdout.readline() if server.stdout else b""
    except TimeoutError:
        line = b""
    if not line.startswith(b"listening"):
        raise InvalidRunError("the null server for the generator's self-check did not start; --no-calibrate skips it")
