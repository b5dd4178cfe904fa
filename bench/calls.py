"""One request's way through our own code: Python calls, the modules that they are in, and moves between modules.

A server runs in this process, and one client sends it requests one after the other, each when the one before has left
nothing to do. A profile function on every thread counts the calls of code in `service` and `engines` (those of
libraries and of the client are not counted); a *move* is a call whose nearest caller of our own is in another module,
or that has none: then a library or a hand-over between threads came between. Threads that serve no request
(`BACKGROUND`) are left out, and the median over many requests is taken, since work that comes from time to time falls
into some of them. The profile function makes everything slower, so that a batch which runs through at once otherwise
goes from thread to thread here: the way that is counted is the longer one.

`python -m forebay_server.bench.calls` prints them; `--list CASE` prints every call of one request.
"""

import argparse
import asyncio
import dataclasses
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import grpc

from forebay.wire import frames_pb2 as pb
from forebay_server.bench.dialects import DIALECTS
from forebay_server.bench.rows import Row, Spread
from forebay_server.bench.server_process import simulated_config
from forebay_server.loadtest.frames import FramesSpec, pictures
from forebay_server.loadtest.target import Encoding
from forebay_server.service.event_loop import ServingLoop
from forebay_server.service.log import configure_logs
from forebay_server.service.server import Server
from forebay_server.service.settings import ServeSettings

OURS = ("forebay_server.service.", "forebay_server.engines.")
FRONT_END = "forebay_server.service.frontend."
BACKGROUND = frozenset(("upkeep", "watchdog", "observer", "exit guard"))
WARM_UP, REQUESTS = 40, 61
QUIET_S = 0.02  # after an answer: the rest of its request's work is done by then
INPUT_BYTES = 150_528
CASES = {
    "jpeg": "JPEG frame to detections",
    "forebay": "tensor frame",
    "oip": "Open Inference, stream",
    "oip-unary": "Open Inference, unary",
}
Send = Callable[[], None]


class Tracer:
    """Counts the calls of our code on all threads that were started after `install`. Thread: any."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str]] = []  # thread, module, function; since `start`
        self.moves = 0
        self._is_on = False

    def install(self) -> None:
        """Trace this thread and those that it starts."""
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    def start(self) -> None:
        """Count from now on, from nothing."""
        self.calls, self.moves, self._is_on = [], 0, True

    def stop(self) -> None:
        """Count no more."""
        self._is_on = False

    def _profile(self, frame: FrameType, event: str, _: object) -> None:
        if event != "call" or not self._is_on:
            return
        module: str = frame.f_globals.get("__name__", "")
        thread = threading.current_thread().name
        if not module.startswith(OURS) or thread in BACKGROUND:
            return
        caller = frame.f_back
        while caller is not None and not caller.f_globals.get("__name__", "").startswith(OURS):
            caller = caller.f_back
        self.calls.append((thread, module, frame.f_code.co_qualname))
        self.moves += caller is None or caller.f_globals["__name__"] != module


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """The calls and moves of one request; `front_end` is the part of `calls` that is in service.frontend."""

    calls: int
    modules: int
    moves: int
    front_end: int


COUNTS = tuple(field.name for field in dataclasses.fields(Way))


def _ways(tracer: Tracer, send: Send) -> Iterator[Way]:
    for number in range(WARM_UP + REQUESTS):
        tracer.start()
        send()
        time.sleep(QUIET_S)  # noqa: TID251 - nothing says when the other threads have nothing more to do
        tracer.stop()
        if number >= WARM_UP:
            modules = [module for _, module, _ in tracer.calls]
            front_end = sum(module.startswith(FRONT_END) for module in modules)
            yield Way(len(modules), len(set(modules)), tracer.moves, front_end)


def _frame_sender(channel: Any, case: str) -> Send:  # noqa: ANN401 - the stubs want serializers
    """Open a stream of frames and return what sends one and waits for its result."""
    if case == "jpeg":
        payload = pictures(FramesSpec(), Encoding.JPEG).payload(0)
        opening = pb.Open(model="detector", stream_id="bench", encoding=pb.ENCODING_JPEG)
    else:
        payload = bytes(INPUT_BYTES)
        opening = pb.Open(
            model="identity",
            stream_id="bench",
            encoding=pb.ENCODING_TENSOR,
            delivery=pb.DELIVERY_EVERY,
            max_in_flight=1,
        )
    seqs = itertools.count(1)
    permits = threading.Semaphore(0)

    def requests() -> Iterator[bytes]:
        yield pb.ClientMessage(open=opening).SerializeToString()
        for seq in seqs:
            permits.acquire()
            yield pb.ClientMessage(frame=pb.Frame(seq=seq, payload=payload)).SerializeToString()

    answers = channel.stream_stream("/forebay.v1.FrameInference/Stream")(requests())
    next(answers)  # opened

    def send() -> None:
        permits.release()
        while (message := pb.ServerMessage.FromString(next(answers))).WhichOneof("message") != "result":
            pass
        if message.result.status.code != pb.STATUS_OK:
            raise RuntimeError(f"the frame ended as {message.result.status}")

    return send


def _request_sender(channel: Any, case: str) -> Send:  # noqa: ANN401 - as above
    """Return what sends an Open Inference request and waits for its response."""
    dialect = DIALECTS[case]("identity", bytes(INPUT_BYTES))
    if case == "oip-unary":
        call = channel.unary_unary(dialect.method)

        def send_one() -> None:
            call(dialect.frame(1))

        return send_one
    permits = threading.Semaphore(0)

    def requests() -> Iterator[bytes]:
        while permits.acquire():
            yield dialect.frame(1)

    answers = channel.stream_stream(dialect.method)(requests())

    def send() -> None:
        permits.release()
        if dialect.rows(next(answers)) is None:
            raise RuntimeError("the request failed")

    return send


def _drive(tracer: Tracer, address: str, case: str) -> list[Way]:
    sender = _frame_sender if case in ("jpeg", "forebay") else _request_sender
    with grpc.insecure_channel(address) as channel:
        return list(_ways(tracer, sender(channel, case)))


async def _measured(tracer: Tracer, settings: ServeSettings, case: str) -> list[Way]:
    server = Server(settings)
    try:
        ready = await server.start()
        if ready is None:
            raise RuntimeError("the server was asked to stop")
        return await asyncio.to_thread(_drive, tracer, ready.address, case)
    finally:
        await server.close()


def trace(case: str) -> tuple[Tracer, list[Way]]:
    """Run a server and return the tracer, which still has the last request's calls, and every request's way.

    Traces every thread that this process starts from now on.
    """
    configure_logs(level="error")
    tracer = Tracer()
    tracer.install()
    given: dict[str, object] = {"address": "127.0.0.1:0"}
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as folder:
        if case != "jpeg":
            model = Path(folder) / "identity"
            model.mkdir()
            (model / "config.pbtxt").write_text(simulated_config(alpha_ms=0, beta_ms=0, input_bytes=INPUT_BYTES))
            given["model_repository"] = [folder]
        with asyncio.Runner(loop_factory=ServingLoop) as runner:
            return tracer, runner.run(_measured(tracer, ServeSettings.model_validate(given), case))


def _measure(case: str) -> dict[str, Spread]:
    """Measure in a process of its own: a profile function stays with the threads that have it."""
    command = [sys.executable, "-m", "forebay_server.bench.calls", "--case", case]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout  # noqa: S603 - ours
    return {name: Spread(**numbers) for name, numbers in json.loads(printed).items()}


def rows(*, is_quick: bool) -> Iterator[Row]:
    """Count for every case, or for one. Without budgets: the numbers say where to look, not how fast it is."""
    for case, name in itertools.islice(CASES.items(), 1 if is_quick else None):
        for what, spread in _measure(case).items():
            yield Row(f"{name}: {what.replace('_', ' ')}", spread)


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(prog="python -m forebay_server.bench.calls", description=__doc__)
    parser.add_argument("--case", choices=CASES, help="one, as JSON")
    parser.add_argument("--list", choices=CASES, help="print every call of one request of this case")
    given = parser.parse_args()
    if given.list is not None:
        tracer, _ = trace(given.list)
        for thread, module, function in tracer.calls:
            print(f"{thread:24} {module.removeprefix('forebay_server.'):44} {function}")
    elif given.case is not None:
        _, ways = trace(given.case)
        spreads = {name: Spread.of([getattr(way, name) for way in ways]) for name in COUNTS}
        print(json.dumps({name: dataclasses.asdict(spread) for name, spread in spreads.items()}))
    else:
        for row in rows(is_quick=False):
            print(f"{row.what}: {row.value} {row.verdict}".rstrip())


if __name__ == "__main__":
    main()
