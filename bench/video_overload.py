"""Cameras of H.264 beyond what the cores decode: part of `python -m forebay_server.bench.video --only overload`.

LATEST streams of the bundled clip at 1920x1080, 15 frames a second, a keyframe every 2 s, each camera at a place of its
own in its group of pictures. The model takes no time, so that decoding is the limit. A frame counts if its result comes
within the budget. Server and cameras share the cores, so that the server has a little less than it decodes alone. Where
other work takes cores, compare the shares of the server's CPU that went into frames in time.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from forebay.client.encode import frame_message
from forebay.wire import frames_pb2 as pb
from forebay_server.bench.dialects import channels_to
from forebay_server.bench.server_process import RunningServer, running_server, simulated_config

METHOD = "/forebay.v1.FrameInference/Stream"
FRAMES_PER_S = 15
BUDGET_MS = 100.0
SIDE = 416
WARM_UP_S, MEASURED_S = 6.0, 12.0
LAST_ANSWERS_S = 5.0
LOADS = (0.5, 1.0, 1.5, 2.0)
_CAPACITY_S = 4.0


@dataclass(slots=True)
class Offered:
    """The frames of one load.

    Attributes:
        cameras: streams.
        sent: frames in the time that was measured.
        in_time: of these, results that came within the budget.
        statuses: of these, by the status of the answer.
        server_cores: cores that the server used.
    """

    cameras: int
    sent: int = 0
    in_time: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    server_cores: float = 0.0

    def words(self) -> str:
        """Return the shares of the statuses other than OK."""
        others = ((pb.StatusCode.Name(code), count) for code, count in self.statuses.most_common())
        shares = ((name.removeprefix("STATUS_").lower(), count) for name, count in others if name != "STATUS_OK")
        return ", ".join(f"{name} {count / max(1, self.sent):.0%}" for name, count in shares) or "none"


def decoded_per_s(make: Callable[[], Callable[[], None]], frames: int, cores: int) -> float:
    """Return the frames a second that `cores` threads decode, each `frames` by a call of what `make` returns."""
    counts = [0] * cores
    until = time.monotonic() + _CAPACITY_S

    def run(index: int) -> None:
        decode = make()
        while time.monotonic() < until:
            decode()
            counts[index] += frames

    started = time.monotonic()
    threads = [threading.Thread(target=run, args=(index,), name=f"decode-{index}") for index in range(cores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - started)


CAMERA_BYTES = 64 << 20  # of a decoder's memory, for 1920x1080 with few references


def offer(units: Sequence[bytes], cameras: Sequence[int]) -> list[Offered]:
    """Return the result for each number of cameras.

    Args:
        units: of a camera, access units of H.264; repeated.
        cameras: numbers of streams.
    """
    shape = f'input {{ name: "input" data_type: TYPE_UINT8 format: FORMAT_NHWC dims: [ {SIDE}, {SIDE}, 3 ] }}\n'
    config = simulated_config(input_shape=f"{SIDE},{SIDE},3", max_batch_size=8) + shape
    found = []
    for count in cameras:
        most = {"FOREBAY_MAX_VIDEO_STREAMS": str(count), "FOREBAY_VIDEO_MEMORY_BYTES": str(count * CAMERA_BYTES)}
        with running_server({"camera": config}, environment=most) as server:
            found.append(asyncio.run(_offered(server, units, count)))
    return found


async def _offered(server: RunningServer, units: Sequence[bytes], cameras: int) -> Offered:
    offered = Offered(cameras)
    (channel,) = channels_to(server.address, 1)
    started = time.monotonic() + 0.5
    measured = (started + WARM_UP_S, started + WARM_UP_S + MEASURED_S)
    runs = [
        asyncio.create_task(_Camera(offered, measured, units, started, index, cameras).run(channel))
        for index in range(cameras)
    ]
    await asyncio.sleep(measured[0] - time.monotonic())
    before_s = server.cpu_s()
    await asyncio.sleep(measured[1] - time.monotonic())
    offered.server_cores = (server.cpu_s() - before_s) / MEASURED_S
    await asyncio.gather(*runs)
    await channel.close()
    return offered


class _Camera:
    """One stream: sends its frames at their times, and reads the results."""

    def __init__(
        self,
        offered: Offered,
        measured: tuple[float, float],
        units: Sequence[bytes],
        started: float,
        index: int,
        cameras: int,
    ) -> None:
        self._offered = offered
        self._measured = measured
        self._units = units
        self._started = started + index / cameras / FRAMES_PER_S
        self._first = index * len(units) // cameras
        self._index = index
        self._due: dict[int, float] = {}

    async def run(self, channel: Any) -> None:  # noqa: ANN401 - grpc has no types
        call = channel.stream_stream(METHOD)()
        opening = pb.Open(model="camera", stream_id=f"camera-{self._index}", encoding=pb.ENCODING_H264)
        opening.delivery, opening.latency_budget_ms = pb.DELIVERY_LATEST, BUDGET_MS
        await call.write(pb.ClientMessage(open=opening).SerializeToString())
        await call.read()
        reader = asyncio.create_task(self._read(call))
        seq, due = 0, self._started
        while due < self._measured[1]:
            await asyncio.sleep(due - time.monotonic())
            seq += 1
            self._due[seq] = due
            self._offered.sent += due >= self._measured[0]
            payload = self._units[(self._first + seq - 1) % len(self._units)]
            await call.write(frame_message(seq, 0, None, (payload,)))
            due = self._started + seq / FRAMES_PER_S
        await call.done_writing()
        await asyncio.wait_for(reader, LAST_ANSWERS_S)

    async def _read(self, call: Any) -> None:  # noqa: ANN401
        while isinstance(data := await call.read(), bytes):
            message = pb.ServerMessage.FromString(data)
            if message.WhichOneof("message") != "result":
                continue
            result, now = message.result, time.monotonic()
            due = self._due.pop(result.seq)
            if due < self._measured[0]:
                continue
            self._offered.statuses[result.status.code] += 1
            is_ok = result.status.code == pb.STATUS_OK
            self._offered.in_time += is_ok and (now - due) * 1e3 <= BUDGET_MS
