"""CPU time of a frame in the engine process, from its descriptor to its answer, without the device's work.

`python -m forebay_server.bench.group_hop` starts an engine process whose device takes time and no CPU, as a GPU does,
plays its front-end processes itself, and prints CPU microseconds per frame of the engine process, by frames in flight.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from forebay_server.bench.server_process import simulated_config
from forebay_server.engines.clock import Clock
from forebay_server.engines.device import DeviceBuffer, HostBuffer, Piece, StreamPriority
from forebay_server.engines.device_host import HostDevice
from forebay_server.engines.engine_simulated import SimulatedEngine
from forebay_server.engines.host_handles import HostStream
from forebay_server.service.group import descriptors as wire
from forebay_server.service.group.engine_server import EngineServer
from forebay_server.service.group.messages import Hello, Published, Serving
from forebay_server.service.group.talk import Talk
from forebay_server.service.request import Delivery
from forebay_server.service.serving import serve_with
from forebay_server.service.settings import ServeSettings

INPUT_BYTES = 150_528  # 224 x 224 x 3
ALPHA_MS, BETA_MS = 0.4, 0.062  # of ResNet-50 on an H200
FRONT_ENDS = 2
IN_FLIGHT = (1, 8, 32, 96)
WARM_UP_S = 1.0
START_TIMEOUT_S = 60.0


class _FreeStream(HostStream):
    """Copies take no CPU, as on a device with a copy engine."""

    def copy_h2d(
        self, dst: DeviceBuffer, src: HostBuffer, nbytes: int, dst_offset: int = 0, src_offset: int = 0
    ) -> None:
        pass

    def gather_h2d(self, dst: DeviceBuffer, pieces: Sequence[Piece]) -> None:
        pass

    def copy_d2h(
        self, dst: HostBuffer, src: DeviceBuffer, nbytes: int, dst_offset: int = 0, src_offset: int = 0
    ) -> None:
        pass


class _Device(HostDevice):
    """The CPU as a device that works beside it: batches go through the three threads."""

    is_synchronous = False

    def create_stream(
        self,
        name: str,
        *,
        priority: StreamPriority = StreamPriority.NORMAL,  # noqa: ARG002 - no priorities here
    ) -> HostStream:
        return _FreeStream(self, name)


def _open_device(_: str, clock: Clock) -> _Device:
    return _Device(clock=clock)


def run_engine(control_fd: int, repository: str) -> int:
    """Serve as an engine process."""
    SimulatedEngine._compute = lambda *_: None  # type: ignore[method-assign]  # noqa: SLF001 - time, and no CPU
    control = socket.socket(fileno=control_fd)
    values = {"model_repository": (repository,), "admin_address": "", "front_ends": FRONT_ENDS}
    settings = ServeSettings.model_validate(values)
    return serve_with(lambda guard: EngineServer(settings, control, open_device=_open_device, guard=guard))


class _FrontEnd:
    """Sends requests as a front-end process does, a number of them in flight."""

    def __init__(self, index: int, data: socket.socket, talk: socket.socket) -> None:
        data.setblocking(False)  # noqa: FBT003
        self.index, self.data = index, data
        self.serving = asyncio.Event()
        self.answered = 0
        self.sizes: collections.Counter[int] = collections.Counter()
        self.talk = Talk(talk, self._on_message, lambda: None)
        self.talk.send(Hello(os.getpid()))
        self._published: Published | None = None
        self._records: list[bytes] = []
        self._open: set[int] = set()
        self._target = 0
        asyncio.get_running_loop().add_reader(data, self._read)
        data.send(wire.pack_open_stream(1, Delivery.EVERY, is_ordered=True, weight=1))

    def _on_message(self, message: object, descriptors: list[int]) -> None:
        for each in descriptors:
            os.close(each)
        if isinstance(message, Published):
            self._published = message
            layout = message.layout
            places = [layout.slot_offset(self.index, slot) for slot in range(layout.slots)]
            self._records = [
                wire.pack_request(slot, message.number, 1, 1, 1, place, place + layout.inputs_bytes(1), wire.NONE, 0)
                for slot, place in enumerate(places)
            ]
        elif isinstance(message, Serving):
            self.serving.set()

    def keep(self, in_flight: int) -> None:
        """Have so many in flight from now on."""
        self._target = in_flight
        self._send()

    def _send(self) -> None:
        slots = [slot for slot in range(self._target) if slot not in self._open]
        self._open.update(slots)
        for datagram in wire.datagrams([self._records[slot] for slot in slots]):
            self.data.send(datagram)

    def _read(self) -> None:
        while True:
            try:
                datagram = self.data.recv(wire.MAX_DATAGRAM_BYTES)
            except BlockingIOError:
                break
            error, answers = wire.unpack_answers(datagram)
            assert error is None, error  # noqa: S101
            for answer in answers:
                self._open.discard(answer[2])
                self.sizes[answer[1]] += 1
                self.answered += 1
        self._send()


@dataclass(frozen=True, slots=True)
class Hop:
    """Of one run: frames in flight, frames a second, mean rows of a batch, CPU of the engine process a frame."""

    in_flight: int
    frames_per_s: float
    mean_batch: float
    cpu_us: float


async def measure(front_ends: Sequence[_FrontEnd], pid: int, in_flight: int, duration_s: float) -> Hop:
    """Keep frames in flight for some time."""
    for front_end in front_ends:
        front_end.keep(max(1, in_flight // len(front_ends)) if front_end.index < in_flight else 0)
    await asyncio.sleep(WARM_UP_S)
    for front_end in front_ends:
        front_end.answered = 0
        front_end.sizes.clear()
    cpu_clock = (~pid << 3) | 2  # clock_getcpuclockid(3)
    cpu_s, started_s = time.clock_gettime(cpu_clock), time.monotonic()
    await asyncio.sleep(duration_s)
    frames = sum(front_end.answered for front_end in front_ends)
    cpu_s, took_s = time.clock_gettime(cpu_clock) - cpu_s, time.monotonic() - started_s
    batches = sum(count / size for front_end in front_ends for size, count in front_end.sizes.items())
    return Hop(in_flight, frames / took_s, frames / batches, 1e6 * cpu_s / frames)


@contextlib.contextmanager
def engine_process(repository: Path) -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    """Run an engine process for the duration of a with-block."""
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [
        sys.executable,
        "-m",
        "forebay_server.bench.group_hop",
        "--engine",
        str(theirs.fileno()),
        str(repository),
    ]
    with control, subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=subprocess.DEVNULL) as process:  # noqa: S603
        theirs.close()
        try:
            yield control, process
        finally:
            process.terminate()


async def run(repository: Path, duration_s: float) -> list[Hop]:
    """Measure all numbers of frames in flight."""
    with engine_process(repository) as (control, process):
        front_ends = []
        for index in range(FRONT_ENDS):
            data, their_data = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            talk, their_talk = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            with their_data, their_talk:
                fds = [their_data.fileno(), their_talk.fileno()]
                socket.send_fds(control, [json.dumps({"front_end": index}).encode()], fds)
            front_ends.append(_FrontEnd(index, data, talk))
        for front_end in front_ends:
            await asyncio.wait_for(front_end.serving.wait(), START_TIMEOUT_S)
        hops = [await measure(front_ends, process.pid, in_flight, duration_s) for in_flight in IN_FLIGHT]
        for front_end in front_ends:
            front_end.talk.close()
            asyncio.get_running_loop().remove_reader(front_end.data)
            front_end.data.close()
        return hops


def main() -> None:
    """Print a table."""
    if sys.argv[1:2] == ["--engine"]:
        sys.exit(run_engine(int(sys.argv[2]), sys.argv[3]))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run")
    parser.add_argument("--output", choices=("checksum", "copy"), default="checksum", help="8 bytes, or as the input")
    options = parser.parse_args()
    config = simulated_config(
        max_batch_size=64, input_bytes=INPUT_BYTES, output=options.output, alpha_ms=ALPHA_MS, beta_ms=BETA_MS
    )
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as folder:
        (Path(folder) / "model").mkdir()
        (Path(folder) / "model" / "config.pbtxt").write_text(config)
        hops = asyncio.run(run(Path(folder), options.seconds))
    print("in flight   frames/s   mean batch   engine process, CPU us a frame")
    for hop in hops:
        print(f"{hop.in_flight:9d} {hop.frames_per_s:10.0f} {hop.mean_batch:12.1f} {hop.cpu_us:10.1f}")


if __name__ == "__main__":
    main()
