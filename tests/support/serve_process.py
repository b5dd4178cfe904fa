"""`forebay serve` as a process, and clients that load it while a signal stops it."""

import asyncio
import contextlib
import json
import os
import signal
import sys

import grpc

from forebay.wire import frames_pb2 as pb
from tests.support import forms
from tests.support.guard import HANG_GUARD_S
from tests.support.real_server import RawStream
from tests.support.repository import ROOT


class ServeProcess:
    """A running server. `lines` are its lines on standard error, once it has ended."""

    def __init__(self, process):
        self.process = process
        self.ready = None
        self.output = self.errors = ""
        self._read_errors = b""

    async def wait_ready(self, guard_s=HANG_GUARD_S):
        line = await asyncio.wait_for(self.process.stdout.readline(), guard_s)
        assert line, (await self.process.communicate())[1].decode()
        self.ready = json.loads(line)
        return self.ready["address"]

    async def error_line(self):
        """Read a line of standard error while the process runs."""
        line = await asyncio.wait_for(self.process.stderr.readline(), HANG_GUARD_S)
        self._read_errors += line
        return line.decode()

    async def end(self, number=signal.SIGTERM):
        """Send a signal; the exit code."""
        self.signal(number)
        return await self.wait()

    def signal(self, number):
        """Send a signal; do nothing if the process has ended.

        By number: asyncio's own method also checks whether the process has ended, and takes the exit code, which is
        then missing where it is waited for (255).
        """
        with contextlib.suppress(ProcessLookupError):
            if self.process.returncode is None:
                os.kill(self.process.pid, number)

    async def wait(self):
        output, errors = await asyncio.wait_for(self.process.communicate(), HANG_GUARD_S)
        self.output, self.errors = (output or b"").decode(), (self._read_errors + (errors or b"")).decode()
        return self.process.returncode


@contextlib.asynccontextmanager
async def serve(*arguments, environment=None, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE):
    """Start `forebay serve` in the form of the present test (`forms`); it is killed if the block leaves it running.

    `stdout` and `stderr` are as Popen's, but for None: the server has none.
    """
    closed = [f"{descriptor}>&-" for descriptor, given in ((1, stdout), (2, stderr)) if given is None]
    # A shell closes them: with a preexec_fn Python would fork, and gRPC's fork handlers may crash before exec.
    shell = ("/bin/sh", "-c", f'exec "$@" {" ".join(closed)}', "sh") if closed else ()
    if forms.current == forms.FRONT_END:
        arguments = (*arguments, "--front-ends", forms.PROCESSES)
    process = await asyncio.create_subprocess_exec(
        *shell,
        *(sys.executable, "-m", "forebay_server.service", "serve", "--address", "127.0.0.1:0", *map(str, arguments)),
        stdout=stdout,
        stderr=stderr,
        env=environment,
        cwd=ROOT,
    )
    try:
        yield ServeProcess(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


class LoadClient:
    """Sends frames at full speed until it is asked to leave, and keeps its own list of sent frames.

    Attributes:
        sent: seqs whose write returned before the half-close.
        answered: (seq, status code) of every result, in order.
    """

    def __init__(self, channel, **open_fields):
        self.stream = RawStream(channel)
        self.sent = []
        self.answered = []
        self.is_leaving = asyncio.Event()
        self._open_fields = open_fields

    async def run(self, frames_before_ready, ready):
        await self.stream.send_open(**self._open_fields)
        await self.stream.receive()
        sender = asyncio.create_task(self._send())
        while (message := await self.stream.receive()) is not None:
            if message.WhichOneof("message") == "reconnect":
                self.is_leaving.set()
            elif message.WhichOneof("message") == "result":
                self.answered.append((message.result.seq, message.result.status.code))
                if len(self.answered) == frames_before_ready:
                    ready.set()
        await sender
        return await self.stream.call.code()

    async def _send(self):
        seq = 0
        while not self.is_leaving.is_set():
            seq += 1
            await self.stream.send(seq)
            self.sent.append(seq)
            await asyncio.sleep(0)
        await self.stream.half_close()


async def terminate_under_load(repository, number, clients=3, **streams):
    """Load a server, stop it with a signal, and check that the two lists of every client are the same."""
    async with serve("--model-repository", repository, **streams) as server:
        address = await server.wait_ready()
        async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            loads = [
                LoadClient(channel, stream_id=f"camera {i}", delivery=1 + i % 2, max_in_flight=8 * (1 + i))
                for i in range(clients)
            ]
            ready = [asyncio.Event() for _ in loads]
            runs = [asyncio.create_task(load.run(20, event)) for load, event in zip(loads, ready, strict=True)]
            await asyncio.gather(*(event.wait() for event in ready))
            code = await server.end(number)
            codes = await asyncio.gather(*runs)
    assert codes == [grpc.StatusCode.OK] * clients, server.errors
    for load in loads:
        assert [seq for seq, _ in load.answered] == load.sent
        statuses = {status for _, status in load.answered}
        assert statuses <= {pb.STATUS_OK, pb.STATUS_SUPERSEDED, pb.STATUS_EXPIRED}, statuses
    assert "Traceback" not in server.errors, server.errors
    assert code == 0, server.errors
    return sum(len(load.sent) for load in loads)
