"""When a message was received: when its socket was ready, and not when the event loop came to it.

Under load a message waits for its turn behind those of all other streams. That time counts in its budget as all the
rest does: a frame that has lost its chance by then is refused before anything is done for it.
"""

import asyncio

from forebay_server.service.clock import Clock
from forebay_server.service.event_loop import ServingLoop


def received_ns(clock: Clock) -> int:
    """Return when the message was received that the running coroutine has just read. Thread: the event loop's."""
    loop = asyncio.get_running_loop()
    return clock.now_ns() - (loop.waited_ns if isinstance(loop, ServingLoop) else 0)
