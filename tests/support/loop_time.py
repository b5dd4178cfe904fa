"""A real server on an event loop in a separate thread, whose CPU time is measured from outside; raw calls to it.

The measure is the CPU time of the loop's thread, not wall-clock time: a busy machine makes it longer, but the work of
other processes does not count. gRPC hands a message over on that thread too, which costs two copies for any content; so
a cost is compared with that of a message of the same size that is refused unread.
"""

import asyncio
import contextlib
import math
import threading
import time

import grpc

from tests.support.guard import HANG_GUARD_S
from tests.support.real_server import METHOD, real_server
from tests.support.worst_messages import varint

REFUSED = "/inference.GRPCInferenceService/ServerLive"
TRIES = 8
MAX_BYTES = 1 << 30


class MeteredServer:
    """Calls to a server, and the CPU time of its event loop."""

    def __init__(self, address, thread):
        self._clock = time.pthread_getcpuclockid(thread.ident)
        options = [("grpc.max_send_message_length", MAX_BYTES), ("grpc.max_receive_message_length", MAX_BYTES)]
        self.channel = grpc.insecure_channel(address, options)

    def loop_s(self):
        """CPU seconds of the event loop's thread since it began."""
        return time.clock_gettime(self._clock)

    def cost_s(self, method, message):
        """CPU seconds of the event loop for one call that sends a message and reads the answers."""
        began_s = self.loop_s()
        _finish(self.channel.stream_stream(method)(iter([message]), timeout=HANG_GUARD_S))
        return self.loop_s() - began_s

    def cost_of_frame_s(self, opening, message):
        """The same for a message on a frame stream that was opened before."""
        may_go_on = threading.Event()

        def messages():
            yield opening
            may_go_on.wait(HANG_GUARD_S)
            yield message

        call = self.channel.stream_stream(METHOD)(messages(), timeout=HANG_GUARD_S)
        next(call)
        began_s = self.loop_s()
        may_go_on.set()
        _finish(call)
        return self.loop_s() - began_s


def _finish(call):
    with contextlib.suppress(grpc.RpcError):
        for _ in call:
            pass
    assert call.code() not in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED), call.details()


class Limit:
    """The limit of the event loop for a message: 5 ms beyond its reception, more where the machine is slow.

    The unit of work is a small call, 0.25 ms where this was written: a message may cost as much as twenty. CPU time
    becomes longer as well when other processes take the cache or the other half of a core. So after a try that was too
    dear the yardsticks are measured again, and the next try is compared with those.
    """

    def __init__(self, server):
        self._server = server
        self._small_s = 0.0
        self._received_s = {}

    def excess_s(self, cost, nbytes):
        """How much a message costs above its limit, the least of some tries: other work may fall into one."""
        if nbytes not in self._received_s:
            self._measure(nbytes)
        excess_s = math.inf
        for _ in range(TRIES):
            excess_s = min(excess_s, cost() - self._received_s[nbytes] - max(0.005, 20 * self._small_s))
            if excess_s <= 0:
                break
            self._measure(nbytes)
        return excess_s

    def _measure(self, nbytes):
        self._small_s = min(self._server.cost_s(REFUSED, b"") for _ in range(20))
        unread = b"\x82\x7d" + varint(nbytes) + bytes(nbytes)
        self._received_s[nbytes] = max(self._server.cost_s(REFUSED, unread) for _ in range(3))


@contextlib.contextmanager
def metered_server(*repositories, **settings):
    """Run a server while this lasts."""
    ready, found = threading.Event(), {}

    async def serve():
        try:
            async with real_server(*repositories, **settings) as running:
                found["address"], found["leave"] = running.address, asyncio.Event()
                found["loop"] = asyncio.get_running_loop()
                ready.set()
                await found["leave"].wait()
        finally:
            ready.set()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="server's loop")
    thread.start()
    ready.wait()
    try:
        server = MeteredServer(found["address"], thread)
        with server.channel:
            yield server
    finally:
        if "loop" in found:
            found["loop"].call_soon_threadsafe(found["leave"].set)
        thread.join()
