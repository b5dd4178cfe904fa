"""CPU time of `forebay stream` with an H.264 camera: part of `python -m forebay_server.bench.video --only client`.

A camera of this process speaks RTSP and sends the bundled clip at 1280x720, 25 frames a second. `forebay stream` runs
as users run it, and sends the packets to a server that answers every frame at once with a street's number of objects.
The kernel tells what each of its threads used between two of the camera's frames: the start is left out.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from forebay.wire import frames_pb2 as pb
from forebay_server.bench.rtsp_camera import RtspCamera
from forebay_server.engines.clock import MonotonicClock

FRAMES_PER_S = 25
FIRST_FRAMES = 200  # left out: imports, FFmpeg's look at the stream (5 s at most), the first group of pictures
FOUND = 8  # objects of an answer, as in the bundled clip
_END_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class ClientCost:
    """CPU time of one camera's client.

    Attributes:
        frames: of the camera, in the time that was measured.
        by_thread: milliseconds of a frame, by the threads' names in the kernel.
        words: the command's last line.
    """

    frames: int
    by_thread: dict[str, float]
    words: str

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of a frame, all threads."""
        return sum(self.by_thread.values())

    @property
    def share(self) -> float:
        """Part of one core."""
        return self.cpu_ms * FRAMES_PER_S / 1e3


def client_cost(units: Sequence[bytes], frames: int, transcode: str, *, is_shown: bool) -> ClientCost:
    """Return the cost of `forebay stream`.

    Args:
        units: of a camera, access units of H.264; repeated.
        frames: to measure.
        transcode: `never`: packets are passed through; `always`: pictures are decoded and sent.
        is_shown: on a terminal, with the live view; else as JSON lines.
    """
    pace = _Pace(frames)
    showing = [units[index % len(units)] for index in range(FIRST_FRAMES + frames + FRAMES_PER_S)]
    with _answering() as address, RtspCamera([showing], pace) as camera, _discarded(is_terminal=is_shown) as output:
        command = [sys.executable, "-m", "forebay_server.service", "stream", camera.url, "--address", address]
        command += ["--model", "detector", "--transcode", transcode, "--delivery", "latest"]
        with subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
            pace.pid = process.pid
            pace.ended.wait((FIRST_FRAMES + frames) / FRAMES_PER_S + _END_TIMEOUT_S)
            process.send_signal(signal.SIGINT)
            _, words = process.communicate(timeout=_END_TIMEOUT_S)
    spent = {name: (pace.after[name] - pace.before.get(name, 0)) / 1e6 / frames for name in pace.after}
    return ClientCost(frames, dict(sorted(spent.items(), key=lambda item: -item[1])), words.strip().rpartition("\n")[2])


@dataclass(slots=True)
class _Pace:
    """Called by the camera before each frame: waits, and reads the client's CPU time at the first and the last."""

    frames: int
    pid: int = 0
    before: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)
    _clock: MonotonicClock = field(default_factory=MonotonicClock)
    _count: int = 0
    _started_ns: int = 0

    def __call__(self) -> None:
        if not self._count:
            self._started_ns = self._clock.now_ns()
        self._clock.sleep_until(self._started_ns + self._count * 1_000_000_000 // FRAMES_PER_S)
        if self._count == FIRST_FRAMES:
            self.before = _threads_ns(self.pid)
        elif self._count == FIRST_FRAMES + self.frames:
            self.after = _threads_ns(self.pid)
            self.ended.set()
        self._count += 1


def _threads_ns(pid: int) -> dict[str, int]:
    """Return the CPU time of a process's threads, by name."""
    spent: Counter[str] = Counter()
    for task in Path(f"/proc/{pid}/task").iterdir():
        spent[(task / "comm").read_text().strip()] += int((task / "schedstat").read_text().split()[0])
    return dict(spent)


@contextlib.contextmanager
def _discarded(*, is_terminal: bool) -> Iterator[int]:
    """Yield a file descriptor for output that is read and dropped."""
    leader, follower = os.openpty() if is_terminal else os.pipe()

    def read() -> None:
        with contextlib.suppress(OSError):  # the other end of a terminal was closed
            while os.read(leader, 1 << 16):
                pass

    reader = threading.Thread(target=read, name="reader")
    reader.start()
    try:
        yield follower
    finally:
        os.close(follower)
        reader.join()
        os.close(leader)


@contextlib.contextmanager
def _answering() -> Iterator[str]:
    """Yield the address of a server in a thread that answers every frame at once."""
    loop = asyncio.new_event_loop()
    started: asyncio.Future[str] = loop.create_future()
    ending = asyncio.Event()

    async def serve() -> None:
        server = grpc.aio.server()
        handler = grpc.stream_stream_rpc_method_handler(_stream, pb.ClientMessage.FromString, None)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("forebay.v1.FrameInference", {"Stream": handler}),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        started.set_result(f"127.0.0.1:{port}")
        await ending.wait()
        await server.stop(None)

    ready = threading.Event()
    started.add_done_callback(lambda _: ready.set())
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name="answering")
    thread.start()
    ready.wait(_END_TIMEOUT_S)
    try:
        yield started.result()
    finally:
        loop.call_soon_threadsafe(ending.set)
        thread.join()
        loop.close()


async def _stream(_: Any, context: Any) -> None:  # noqa: ANN401 - grpc has no types for either
    opening = await context.read()
    opened = pb.Opened(session_id="1", model=opening.open.model, model_version="1", window=16)
    opened.latency_budget_ms = 100
    await context.write(pb.ServerMessage(opened=opened).SerializeToString())
    box = pb.Box(x_min=0.1, y_min=0.1, x_max=0.2, y_max=0.4)
    pixels = pb.Box(x_min=128, y_min=72, x_max=256, y_max=288)
    found = [pb.Detection(label="person", score=0.9 - index / 20, box=box, box_pixels=pixels) for index in range(FOUND)]
    timings = pb.Timings(receive_us=100, decode_us=3000, queue_us=50, execute_us=9000, deliver_us=80)
    while isinstance(message := await context.read(), pb.ClientMessage):
        result = pb.Result(seq=message.frame.seq, capture_time_us=message.frame.capture_time_us, detections=found)
        result.status.code = pb.STATUS_OK
        result.timings.CopyFrom(timings)
        await context.write(pb.ServerMessage(result=result).SerializeToString())
