"""The time at which a message was received: when its socket was ready, not when the event loop came to it.

Under load a message waits for its turn behind those of all other streams. That time counts in its budget like all other
time: a frame that has lost its chance by then is refused before any work on it.
"""

import asyncio

from forebay_server.service.clock import Clock
from forebay_server.service.event_loop import ServingLoop


def received_ns(clock: Clock) -> int:
    """Return the time at which the message was received that the running coroutine has just read.

    Thread: the event loop's.
    """
    loop = asyncio.get_running_loop()
    return clock.now_ns() - (loop.waited_ns if isinstance(loop, ServingLoop) else 0)
