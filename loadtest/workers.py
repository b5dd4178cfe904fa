"""The coordinator's side of generator processes: start them, talk to them, stop them.

A `Worker` is one process, here or on another host (loadtest.client.agents). Owner: the event loop that started it.
"""

import asyncio
import sys
from typing import Protocol

from forebay_server.loadtest import messages
from forebay_server.loadtest.messages import Message

_STOP_S = 5.0


class Worker(Protocol):
    """One generator process."""

    @property
    def is_remote(self) -> bool:
        """Whether the process has another clock than the coordinator."""
        ...

    async def send(self, message: Message) -> None:
        """Send a message to the process; does nothing if the process is gone."""
        ...

    async def receive(self) -> tuple[Message, bytes] | None:
        """Return the next message of the process; None when it is gone."""
        ...

    async def close(self) -> None:
        """Ask the process to end, and kill it if it does not."""
        ...


class LocalWorker:
    """A generator process on this host, on a pipe."""

    is_remote = False

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def launch(cls) -> "LocalWorker":
        """Start the process."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "forebay_server.loadtest.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches the coordinator alone
        )
        return cls(process)

    async def send(self, message: Message) -> None:
        """See Worker."""
        pipe = self._process.stdin
        if pipe is None or pipe.is_closing():
            return
        try:
            pipe.write(messages.encode(message))
            await pipe.drain()
        except ConnectionError:
            return

    async def receive(self) -> tuple[Message, bytes] | None:
        """See Worker."""
        block = await self.receive_block()
        return messages.decode(block) if block is not None else None

    async def receive_block(self) -> bytes | None:
        """Return the next message of the process as bytes; None when it is gone."""
        return await messages.read(self._process.stdout) if self._process.stdout else None

    async def close(self) -> None:
        """See Worker."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(_STOP_S):
                while await self.receive_block() is not None:
                    pass
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
