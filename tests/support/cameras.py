"""Cameras that send at fixed times over real streams and record the arrival of each result."""

import asyncio
import time
from contextlib import suppress

import grpc

from forebay.wire import frames_pb2 as pb
from tests.support.real_server import RawStream


class Cameras:
    """Cameras on a connection each, from `start` until `stop`; the phases are spread evenly.

    Attributes:
        arrivals_s: arrival times of results in time by this clock, counted from the due time of the frame.
        limit_s: maximum lateness.
    """

    def __init__(self, address, model, count, fps, *, payload_bytes, budget_ms, limit_ms):
        self.address, self.model, self.count, self.fps = address, model, count, fps
        self.payload = bytes(payload_bytes)
        self.budget_ms, self.limit_s = budget_ms, limit_ms / 1e3
        self.arrivals_s = []
        self._is_over = False
        self._tasks = []

    async def start(self):
        """Open every stream, then send."""
        start_s = time.monotonic() + 0.5
        gap_s = 1.0 / self.fps / self.count
        self._tasks = [asyncio.create_task(self._camera(n, start_s + n * gap_s)) for n in range(self.count)]

    async def stop(self):
        """Half-close every stream, read the rest, and close."""
        self._is_over = True
        await asyncio.gather(*self._tasks)

    def in_time_per_s(self, start_s, end_s):
        """The rate of results in time between two times."""
        return sum(start_s <= at_s < end_s for at_s in self.arrivals_s) / (end_s - start_s)

    async def _camera(self, number, first_s):
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(self.address, options=options) as channel:
            stream = RawStream(channel)
            await stream.send_open(
                model=self.model,
                stream_id=f"camera-{number}",
                delivery=pb.DELIVERY_EVERY,
                latency_budget_ms=self.budget_ms,
                max_in_flight=32,
            )
            await stream.receive()
            intended_s = {}
            reader = asyncio.create_task(self._read(stream, intended_s))
            seq = 0
            while not self._is_over:
                due_s = first_s + seq / self.fps
                seq += 1
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                if time.monotonic() - due_s < self.limit_s:  # else a camera would have overwritten it
                    intended_s[seq] = due_s
                    await stream.send(seq, self.payload)
            await stream.half_close()
            await reader

    async def _read(self, stream, intended_s):
        with suppress(grpc.RpcError):
            while message := await stream.receive():
                if not message.HasField("result"):
                    continue
                due_s, now_s = intended_s.pop(message.result.seq), time.monotonic()
                if message.result.status.code == pb.STATUS_OK and now_s - due_s <= self.limit_s:
                    self.arrivals_s.append(now_s)
