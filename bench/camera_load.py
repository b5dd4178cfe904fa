"""Cameras against a server, open loop: every frame is accounted for, one by one.

A frame is due at a fixed time, independent of the answers. A camera writes one frame at a time, and later frames wait
at the camera: with LATEST a newer frame replaces a waiting one, with EVERY a waiting one is dropped once it cannot be
in time any more. While the server advises to wait (`retry_after_ms`) a camera sends nothing, as the client library
does. The budget of a frame is the rest of the limit when it is sent, minus the transport time measured so far: both
ways together, from the latest results, round trip minus the server's own time.

A camera that is asked to reconnect opens a new stream on a connection of its own and reads the old one to its end: with
pictures at the next frame, with video when its file begins again. The client library does not wait for that: it leaves
at any keyframe.

The cores that send are the cores that serve, so the message is put together around the payload, as the client library
does it: one copy. Building it with protobuf takes three, and half a core at 1,400 frames of 602 KB in a second.

Run as a separate process: `python -m forebay_server.bench.camera_load ADDRESS MODEL ...`. It opens its streams and
prints one JSON object: the frames due after the warm-up, as `bench.overload_account.Frame`, and the CPU that they cost.
With `--wait` it prints `ready` before it sends, and reads the start time from standard input (seconds of the monotonic
clock).
"""

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from forebay.client.encode import frame_message
from forebay.wire import frames_pb2 as pb
from forebay_server.bench.dialects import DELIVERIES, channels_to, noise
from forebay_server.bench.overload_account import Fate, Frame, quantile
from forebay_server.bench.unit_file import read_units

METHOD = "/forebay.v1.FrameInference/Stream"
LEAST_TRANSPORT_MS, TRANSPORT_WINDOW, TRANSPORT_EVERY = 5.0, 64, 8
PROBE_EVERY = 8  # of hopeless frames so many are sent all the same, since the transport time may have fallen
START_AFTER_S = 0.5
END_AFTER_S = 20.0  # for answers to the last frames, on a busy machine; later ones count as unanswered
STAGES = ("receive", "decode", "queue", "h2d", "execute", "d2h", "deliver")
REFUSED = {
    pb.STATUS_EXPIRED: Fate.EXPIRED,
    pb.STATUS_OVERLOADED: Fate.OVERLOADED,
    pb.STATUS_SUPERSEDED: Fate.SUPERSEDED,
}


@dataclass(slots=True)
class _Tally:
    """The frames of all cameras of this process. Owner: the event loop."""

    limit_ms: float
    measured_from: float = 0.0  # seconds of the monotonic clock
    frames: list[Frame] = field(default_factory=list)
    transport_ms: float = LEAST_TRANSPORT_MS
    stages_us: Counter[str] = field(default_factory=Counter)  # of executed frames
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

    def answer(self, result: Any, due: float, sent: float, budget_ms: float) -> bool:  # noqa: ANN401 - generated message
        """Note an answer, and learn from it how long the way takes; return whether it counts as one in time."""
        now, times = time.monotonic(), result.timings
        latency_ms = (now - due) * 1e3
        if result.status.code == pb.STATUS_OK:
            fate = Fate.IN_TIME if latency_ms <= self.limit_ms else Fate.LATE
            if due >= self.measured_from:
                self.stages_us.update({stage: getattr(times, f"{stage}_us") for stage in STAGES})
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
        return fate is Fate.IN_TIME and due >= self.measured_from


class _Camera:
    """One camera: sends due frames, reads results.

    Attributes:
        in_time_count: frames that were answered in time.
        moves: streams opened after the first.
    """

    def __init__(
        self,
        call: Any,  # noqa: ANN401 - grpc.aio's
        reopen: Callable[[], Awaitable[Any]],
        tally: _Tally,
        payloads: Sequence[bytes],
        least_budget_ms: float,
        *,
        is_latest: bool,
    ) -> None:
        self.in_time_count = self.moves = 0
        self._call = call
        self._reopen = reopen
        self._is_asked_to_leave = False
        self._readers: list[asyncio.Task[None]] = []
        self._tally = tally
        self._payloads = payloads
        self._least_budget_ms = least_budget_ms
        self._is_latest = is_latest
        self._hold_until = 0.0  # the server's advice; seconds of the monotonic clock
        self._under_way: dict[int, tuple[float, float, float]] = {}  # seq -> due, sent, budget

    async def run(self, instants: list[float]) -> None:
        """Send a frame at each instant, and return when all are answered or the time for that is over."""
        self._readers.append(asyncio.create_task(self._read(self._call)))
        following = itertools.chain(instants[1:], [float("inf")])
        for seq, (due, due_next) in enumerate(zip(instants, following, strict=True), start=1):
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if self._is_asked_to_leave and (seq - 1) % len(self._payloads) == 0:  # a file begins with a keyframe
                await self._move()
            await self._send(seq, due, due_next)
        await self._call.done_writing()
        _, unfinished = await asyncio.wait(self._readers, timeout=END_AFTER_S)
        for reader in unfinished:
            reader.cancel()
        for due, sent, _ in self._under_way.values():
            self._tally.unanswered(due, sent)

    async def _move(self) -> None:
        """Open a new stream, and end the old one with its last answers."""
        old, self._call = self._call, await self._reopen()
        await old.done_writing()
        self._is_asked_to_leave = False
        self.moves += 1
        self._readers.append(asyncio.create_task(self._read(self._call)))

    async def _send(self, seq: int, due: float, due_next: float) -> None:
        now = time.monotonic()
        left_ms = self._tally.limit_ms - (now - due) * 1e3
        budget_ms = left_ms - self._tally.transport_ms
        is_replaced = self._is_latest and due_next <= now
        is_held = now < self._hold_until
        is_hopeless = budget_ms < self._least_budget_ms and seq % PROBE_EVERY != 0
        if left_ms <= 0.0 or is_replaced or is_held or is_hopeless:
            self._tally.unsent(due)
            return
        budget_ms = max(1.0, budget_ms)  # a budget is above 0
        self._under_way[seq] = due, now, budget_ms
        payload = self._payloads[(seq - 1) % len(self._payloads)]
        await self._call.write(frame_message(seq, 0, budget_ms, (payload,)))

    async def _read(self, call: Any) -> None:  # noqa: ANN401 - grpc.aio's
        while data := await call.read():  # falsy at the end of the stream
            message = pb.ServerMessage.FromString(data)
            if message.HasField("reconnect"):
                self._is_asked_to_leave = call is self._call
            elif message.HasField("result"):
                due, sent, budget_ms = self._under_way.pop(message.result.seq)
                self.in_time_count += self._tally.answer(message.result, due, sent, budget_ms)
                self._hold_until = time.monotonic() + message.result.status.retry_after_ms / 1e3


def _encoding(given: argparse.Namespace) -> pb.Encoding:
    if given.video is not None:
        return pb.ENCODING_H264
    return pb.ENCODING_TENSOR if given.jpeg is None else pb.ENCODING_JPEG


def _payloads(given: argparse.Namespace) -> Sequence[bytes]:
    if given.video is not None:
        return read_units(given.video)
    file = given.jpeg or given.tensor
    return [noise(given.payload_bytes, given.seed) if file is None else file.read_bytes()]


async def _open(channel: Any, given: argparse.Namespace, index: int) -> Any:  # noqa: ANN401 - grpc.aio's
    call = channel.stream_stream(METHOD)()
    opening = pb.Open(
        model=given.model,
        stream_id=f"camera-{given.first + index}",
        encoding=_encoding(given),
        delivery=DELIVERIES[given.delivery],
        max_in_flight=given.window,
        latency_budget_ms=given.limit_ms,
    )
    await call.write(pb.ClientMessage(open=opening).SerializeToString())
    await call.read()
    return call


async def run(given: argparse.Namespace) -> dict[str, Any]:
    """Open the streams, wait for the start, send for as long as asked; return the frames and their cost."""
    generator = np.random.default_rng([given.seed, given.first])
    payloads = _payloads(given)
    channels = channels_to(given.address, given.connections)
    calls = [await _open(channels[index % given.connections], given, index) for index in range(given.cameras)]

    async def reopen(index: int) -> Any:  # noqa: ANN401 - grpc.aio's
        channels.extend(channels_to(given.address, 1))
        return await _open(channels[-1], given, index)

    start = time.monotonic() + START_AFTER_S
    if given.wait:
        print("ready", flush=True)
        start = float(await asyncio.to_thread(sys.stdin.readline))
    tally = _Tally(given.limit_ms, start + given.warm_up)
    cpu_s: dict[str, float] = {}
    asyncio.get_running_loop().call_at(tally.measured_from, lambda: cpu_s.update(before=time.process_time()))
    count = round(given.seconds * given.fps)
    is_latest = given.delivery == "latest"
    cameras = [
        _Camera(call, partial(reopen, index), tally, payloads, given.least_budget_ms, is_latest=is_latest)
        for index, call in enumerate(calls)
    ]
    phases = generator.uniform(0.0, 1.0 / given.fps, given.cameras).tolist()
    runs = [
        camera.run([start + phase + frame / given.fps for frame in range(count)])
        for camera, phase in zip(cameras, phases, strict=True)
    ]
    await asyncio.gather(*runs)
    used_s = time.process_time() - cpu_s["before"]
    for channel in channels:
        await channel.close()
    return {
        "frames": tally.frames,
        "in_time_by_camera": [camera.in_time_count for camera in cameras],
        "moves": sum(camera.moves for camera in cameras),
        "cpu_s": used_s,
        "transport_ms": tally.transport_ms,
        "stages_us": tally.stages_us,
    }


def main() -> None:
    """Parse arguments, tune, run, print."""
    parser = argparse.ArgumentParser(
        prog="python -m forebay_server.bench.camera_load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("address")
    parser.add_argument("model")
    parser.add_argument("--payload-bytes", type=int, default=0)
    parser.add_argument("--jpeg", type=Path, help="send this picture instead of a raw tensor")
    parser.add_argument("--video", type=Path, help="send this file's access units of H.264, round and round")
    parser.add_argument("--tensor", type=Path, help="send the bytes of this file instead of noise")
    parser.add_argument("--cameras", type=int, required=True, help="of this process")
    parser.add_argument("--first", type=int, default=0, help="number of the first camera, for its name and its phase")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--window", type=int, default=0, help="frames in flight to ask for; 0: the server's default")
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--seconds", type=float, default=20.0, help="of sending, warm-up included")
    parser.add_argument("--warm-up", type=float, default=2.0, help="seconds whose frames do not count")
    parser.add_argument("--limit-ms", type=float, default=100.0, help="of a frame, from its intended send")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--delivery", choices=DELIVERIES, default="every")
    parser.add_argument(
        "--least-budget-ms",
        type=float,
        default=1.0,
        help=f"with less a frame cannot be in time: only each {PROBE_EVERY}th of those is sent",
    )
    parser.add_argument("--wait", action="store_true", help="for the start time on standard input")
    given = parser.parse_args()
    from forebay_server.service.tuning import tune_process

    tune_process()
    print(json.dumps(asyncio.run(run(given))))


if __name__ == "__main__":
    main()
