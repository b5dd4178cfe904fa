"""One process of cameras against an overloaded server, open loop: every frame is accounted for, one by one.

A frame is due at a fixed time, independent of the answers. A camera writes one frame at a time, and later frames wait
at the camera: with LATEST a newer frame replaces a waiting one, with EVERY a waiting one is dropped once it cannot be
in time any more. While the server advises to wait (`retry_after_ms`) a camera sends nothing, as the client library
does. The budget of a frame is the rest of the limit when it is sent, minus the transport time measured so far: both
ways together, from the latest results, round trip minus the server's own time.

The cores that send are the cores that serve, so the message is put together around the payload, as the client library
does it: one copy. Building it with protobuf takes three, and half a core at 1,400 frames of 602 KB in a second.

Run as a separate process: `python -m forebay_server.bench.overload_client ADDRESS MODEL ...`. It opens its streams,
prints `ready`, reads the start time from standard input (seconds of the monotonic clock), and prints one JSON object:
the frames due after the warm-up, as `bench.overload_account.Frame`, and the CPU that they cost.
"""

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from forebay.client.encode import frame_message
from forebay.wire import frames_pb2 as pb
from forebay_server.bench.frame_load import DELIVERIES
from forebay_server.bench.overload_account import Fate, Frame, quantile

METHOD = "/forebay.v1.FrameInference/Stream"
LEAST_TRANSPORT_MS, TRANSPORT_WINDOW, TRANSPORT_EVERY = 5.0, 64, 8
LEAST_BUDGET_MS = 20.0  # one row takes the engine 16 ms: with less a frame is certainly late
PROBE_EVERY = 8  # of the frames with less so many are sent all the same, since the transport time may have fallen
END_AFTER_S = 3.0  # for answers to the last frames; later ones count as unanswered
REFUSED = {
    pb.STATUS_EXPIRED: Fate.EXPIRED,
    pb.STATUS_OVERLOADED: Fate.OVERLOADED,
    pb.STATUS_SUPERSEDED: Fate.SUPERSEDED,
}


@dataclass(slots=True)
class _Tally:
    """What the cameras of this process share. Owner: the event loop."""

    limit_ms: float
    measured_from: float = 0.0  # seconds of the monotonic clock
    frames: list[Frame] = field(default_factory=list)
    transport_ms: float = LEAST_TRANSPORT_MS
    _transports_ms: deque[float] = field(default_factory=lambda: deque(maxlen=TRANSPORT_WINDOW))
    _answers: int = 0

    def end(self, frame: Frame) -> None:
        """Note how a frame ended, unless it was due in the warm-up."""
        if frame.due_s >= 0.0:
            self.frames.append(frame)

    def unsent(self, due: float) -> None:
        """Note a frame that its camera gave up."""
        self.end(Frame(Fate.NOT_SENT, due - self.measured_from))

    def unanswered(self, due: float, sent: float) -> None:
        """Note a frame whose answer did not come."""
        self.end(Frame(Fate.UNANSWERED, due - self.measured_from, (sent - due) * 1e3))

    def answer(self, result: Any, due: float, sent: float, budget_ms: float) -> None:  # noqa: ANN401 - generated message
        """Note an answer, and learn from it how long the way takes."""
        now, times = time.monotonic(), result.timings
        latency_ms = (now - due) * 1e3
        if result.status.code == pb.STATUS_OK:
            fate = Fate.IN_TIME if latency_ms <= self.limit_ms else Fate.LATE
        else:
            fate = REFUSED.get(result.status.code, Fate.OTHER)
        self.end(
            Frame(
                fate,
                due - self.measured_from,
                lag_ms=(sent - due) * 1e3,
                latency_ms=latency_ms,
                budget_ms=budget_ms,
                decided_ms=(times.server_total_us - times.deliver_us) / 1e3,
                batch_size=result.batch_size,
            )
        )
        self._transports_ms.append(max(0.0, (now - sent) * 1e3 - times.server_total_us / 1e3))
        self._answers += 1
        if self._answers % TRANSPORT_EVERY == 0:
            self.transport_ms = max(LEAST_TRANSPORT_MS, quantile(self._transports_ms, 0.5))


class _Camera:
    """One stream: sends due frames, reads results."""

    def __init__(self, call: Any, tally: _Tally, payload: bytes, *, is_latest: bool) -> None:  # noqa: ANN401 - grpc.aio
        self._call = call
        self._tally = tally
        self._payload = payload
        self._is_latest = is_latest
        self._hold_until = 0.0  # the server's advice; seconds of the monotonic clock
        self._under_way: dict[int, tuple[float, float, float]] = {}  # seq -> due, sent, budget

    async def run(self, instants: list[float]) -> None:
        """Send a frame at each instant, and return when all are answered or the time for that is over."""
        reader = asyncio.create_task(self._read())
        following = itertools.chain(instants[1:], [float("inf")])
        for seq, (due, due_next) in enumerate(zip(instants, following, strict=True), start=1):
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self._send(seq, due, due_next)
        await self._call.done_writing()
        await asyncio.wait([reader], timeout=END_AFTER_S)
        if not reader.done():
            reader.cancel()
        for due, sent, _ in self._under_way.values():
            self._tally.unanswered(due, sent)

    async def _send(self, seq: int, due: float, due_next: float) -> None:
        now = time.monotonic()
        left_ms = self._tally.limit_ms - (now - due) * 1e3
        budget_ms = left_ms - self._tally.transport_ms
        is_replaced = self._is_latest and due_next <= now
        is_held = now < self._hold_until
        is_hopeless = budget_ms < LEAST_BUDGET_MS and seq % PROBE_EVERY != 0
        if left_ms <= 0.0 or is_replaced or is_held or is_hopeless:
            self._tally.unsent(due)
            return
        budget_ms = max(1.0, budget_ms)  # a budget is above 0
        self._under_way[seq] = due, now, budget_ms
        await self._call.write(frame_message(seq, 0, budget_ms, (self._payload,)))

    async def _read(self) -> None:
        while data := await self._call.read():  # falsy at the end of the stream
            message = pb.ServerMessage.FromString(data)
            if message.HasField("result"):
                due, sent, budget_ms = self._under_way.pop(message.result.seq)
                self._tally.answer(message.result, due, sent, budget_ms)
                self._hold_until = time.monotonic() + message.result.status.retry_after_ms / 1e3


async def _open(channel: Any, given: argparse.Namespace, index: int) -> Any:  # noqa: ANN401 - grpc.aio's
    call = channel.stream_stream(METHOD)()
    opening = pb.Open(
        model=given.model,
        stream_id=f"camera-{given.first + index}",
        encoding=pb.ENCODING_TENSOR,
        delivery=DELIVERIES[given.delivery],
        latency_budget_ms=given.limit_ms,
    )
    await call.write(pb.ClientMessage(open=opening).SerializeToString())
    await call.read()
    return call


async def run(given: argparse.Namespace) -> dict[str, Any]:
    """Open the streams, wait for the start, send for as long as asked; return the frames and the CPU seconds."""
    import grpc

    generator = np.random.default_rng([given.seed, given.first])
    payload = generator.integers(0, 255, given.payload_bytes, np.uint8).tobytes()
    options = [("grpc.http2.max_frame_size", 1 << 20), ("grpc.use_local_subchannel_pool", 1)]
    channels: list[Any] = [  # the stubs demand a grace
        grpc.aio.insecure_channel(given.address, options=options) for _ in range(given.connections)
    ]
    calls = [await _open(channels[index % given.connections], given, index) for index in range(given.cameras)]
    print("ready", flush=True)
    start = float(await asyncio.to_thread(sys.stdin.readline))
    tally = _Tally(given.limit_ms, start + given.warm_up)
    cpu_s: dict[str, float] = {}
    asyncio.get_running_loop().call_at(tally.measured_from, lambda: cpu_s.update(before=time.process_time()))
    count = round(given.seconds * given.fps)
    cameras = [_Camera(call, tally, payload, is_latest=given.delivery == "latest") for call in calls]
    phases = generator.uniform(0.0, 1.0 / given.fps, given.cameras).tolist()
    runs = [
        camera.run([start + phase + frame / given.fps for frame in range(count)])
        for camera, phase in zip(cameras, phases, strict=True)
    ]
    await asyncio.gather(*runs)
    used_s = time.process_time() - cpu_s["before"]
    for channel in channels:
        await channel.close()
    return {"frames": tally.frames, "cpu_s": used_s}


def main() -> None:
    """Parse arguments, tune, run, print."""
    parser = argparse.ArgumentParser(
        prog="python -m forebay_server.bench.overload_client",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("address")
    parser.add_argument("model")
    parser.add_argument("--payload-bytes", type=int, required=True)
    parser.add_argument("--cameras", type=int, required=True, help="of this process")
    parser.add_argument("--first", type=int, default=0, help="number of the first camera, for its name and its phase")
    parser.add_argument("--connections", type=int, default=2)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--seconds", type=float, default=20.0, help="of sending, warm-up included")
    parser.add_argument("--warm-up", type=float, default=2.0, help="seconds whose frames do not count")
    parser.add_argument("--limit-ms", type=float, default=100.0, help="of a frame, from its intended send")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--delivery", choices=DELIVERIES, default="latest")
    given = parser.parse_args()
    from forebay_server.service.tuning import tune_process

    tune_process()
    print(json.dumps(asyncio.run(run(given))))


if __name__ == "__main__":
    main()
