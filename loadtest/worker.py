"""One generator process: python -m forebay_server.loadtest.worker; its job comes on standard input.

Answers on its standard output; see loadtest.job for the conversation and loadtest.messages for the bytes. Ends when its
input ends.
"""

import asyncio
import contextlib
import os
import signal
import sys

from forebay_server.loadtest import messages
from forebay_server.loadtest.process_tuning import tune_process

_NICENESS = -10  # needs CAP_SYS_NICE; without it the generator has no priority over other processes


async def _converse() -> None:
    from forebay_server.loadtest.job import carry_out

    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)

    async def receive() -> messages.Message | None:
        block = await messages.read(reader)
        return messages.decode(block)[0] if block is not None else None

    def send(message: messages.Message, blob: bytes) -> None:
        block = memoryview(messages.encode(message, blob))
        while block:
            block = block[os.write(output, block) :]

    # Output of libraries must not get between messages.
    output = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    await carry_out(receive, send)


def main() -> None:
    """Carry out one job."""
    with contextlib.suppress(OSError):
        # On the server's own host the generator must run in time even when the server takes all the CPU it can get.
        os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the coordinator handles Ctrl-C and the terminal's end
    tune_process()
    asyncio.run(_converse())


if __name__ == "__main__":
    main()
