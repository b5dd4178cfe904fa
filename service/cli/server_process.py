"""`forebay serve` as a separate process, for commands that need a server: start it, await it, end it in order."""

import asyncio
import contextlib
import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import IO

from forebay_server.service.child import command_of_child
from forebay_server.service.cli import SILENCE

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
END_TIMEOUT_S = 1.0  # for a server that failed at its start
SHOWN_LINES = 8


class ServerStartError(Exception):
    """The server did not get ready; the message contains its last lines."""


@contextlib.asynccontextmanager
async def running_server(arguments: Sequence[str] = ()) -> AsyncIterator[str]:
    """Run a server on a free port of 127.0.0.1 during the block and yield its address.

    Args:
        arguments: more flags of `forebay serve`.

    Raises:
        ServerStartError: the server ended, or was not ready in time.
    """
    command = command_of_child(["serve", "--address", "127.0.0.1:0", *arguments])
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=environment_of_server(os.environ),
            start_new_session=True,  # Ctrl-C goes to this process, which then ends the server in order
        )
        try:
            yield await _address_of(process, log)
        finally:
            await _stop(process)


def environment_of_server(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a server: without the silence of gRPC that commands which call servers set."""
    return {name: value for name, value in environment.items() if (name, value) != ("GRPC_VERBOSITY", SILENCE)}


async def _address_of(process: asyncio.subprocess.Process, log: IO[bytes]) -> str:
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):  # `wait_for` of Python 3.11 may swallow Ctrl-C
            line = await _first_line(process)
        return str(json.loads(line)["address"])
    except TimeoutError:
        raise ServerStartError(f"the server was not ready within {READY_TIMEOUT_S:g} s\n{_tail(log)}") from None
    except (ValueError, KeyError):
        with contextlib.suppress(TimeoutError):  # most likely the server is ending
            async with asyncio.timeout(END_TIMEOUT_S):
                await process.wait()
        raise ServerStartError(f"the server ended before it was ready\n{_tail(log)}") from None


async def _first_line(process: asyncio.subprocess.Process) -> bytes:
    return b"" if process.stdout is None else await process.stdout.readline()


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Send SIGTERM, and SIGKILL if the server does not end."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()


def _tail(log: IO[bytes]) -> str:
    """Return the line of the log with the server's error, or its last lines."""
    log.seek(0)
    lines = log.read().decode(errors="replace").splitlines()
    return "\n".join([line for line in lines if line.startswith("forebay: ")] or lines[-SHOWN_LINES:])
