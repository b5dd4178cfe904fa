"""The cost of a frame in our own code: session, former and stages on one thread, no gRPC, no hand-over.

`python -m forebay_server.bench.hot_path` prints CPU microseconds per frame by step, for batches of several sizes. The
model is that of `bench.identity`: the engine reads its input once, so that copies and checksum are in the figures.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from forebay.wire import frames_pb2 as pb
from forebay_server.bench.server_process import simulated_config
from forebay_server.engines.clock import MonotonicClock
from forebay_server.service.batching.former import BatchFormer
from forebay_server.service.frontend.admission import Admission
from forebay_server.service.frontend.frames.codec import parse_client_message
from forebay_server.service.frontend.frames.opening import accept_open
from forebay_server.service.frontend.frames.session import Session
from forebay_server.service.models.config import describe
from forebay_server.service.models.opening import _build
from forebay_server.service.models.placement import open_device_of_kind
from forebay_server.service.models.repository import Repository
from forebay_server.service.models.version import ModelVersion
from forebay_server.service.models.version_context import VersionContext
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.request import Completion
from forebay_server.service.settings import ServeSettings
from forebay_server.service.worker_pool import WorkerPool

STEPS = ("parse", "admit", "batch and execute", "answer", "encode")
WARM_UP_ROUNDS = 100
WINDOW = 32


class _Sink:
    """Completions wait here for their turn, as they do for the event loop."""

    def __init__(self) -> None:
        self.waiting: list[Completion] = []

    def post(self, completions: Sequence[Completion]) -> None:
        self.waiting.extend(completions)

    def drain(self) -> None:
        for completion in self.waiting:
            completion.request.on_completion(completion)
        self.waiting.clear()


class _OneThread:
    """A version whose threads are never started: the caller takes every step."""

    def __init__(self, version: ModelVersion, former: BatchFormer) -> None:
        self._former = former
        self._lanes = version.lanes
        for lane in version.lanes:
            lane.d2h.listener = former

    def step(self) -> None:
        """Let the former do what it can, and the lanes what it gave them."""
        self._former._step_all()  # noqa: SLF001 - as its thread does, or the event loop
        for lane in self._lanes:
            while lane.channels[0].depth:
                batch = lane.channels[0].receive()
                for stage in lane.stages:
                    stage.process(batch)


@contextmanager
def _opened(payload_bytes: int, sink: _Sink, pool: WorkerPool, clock: MonotonicClock) -> Iterator[ModelVersion]:
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as folder:
        model = Path(folder) / "identity"
        model.mkdir()
        (model / "config.pbtxt").write_text(simulated_config(alpha_ms=0, beta_ms=0, input_bytes=payload_bytes))
        (entry,) = Repository([Path(folder)]).models()
        context = VersionContext(clock, pool, sink, Permits(2 * WINDOW), print, {}, open_device_of_kind)
        with ExitStack() as undo:
            yield _build(describe(entry), "1", None, context, undo)


def measure(payload_bytes: int, batch: int, rounds: int) -> dict[str, float]:
    """Return CPU microseconds per frame by step."""
    clock, sink, pool = MonotonicClock(), _Sink(), WorkerPool(1, print)
    payload = np.random.default_rng(1).integers(0, 255, payload_bytes, np.uint8).tobytes()
    spent_ns = dict.fromkeys(STEPS, 0)
    with _opened(payload_bytes, sink, pool, clock) as version:
        opening = pb.Open(
            model="identity",
            stream_id="bench",
            encoding=pb.ENCODING_TENSOR,
            delivery=pb.DELIVERY_EVERY,
            max_in_flight=WINDOW,
        )
        config = accept_open(opening, lambda *_: version, ServeSettings.model_validate({}))
        session = Session(
            config,
            pool,
            sink,
            clock,
            Admission(clock),
            max_image_pixels=1,
            on_output=lambda: None,
            on_room=lambda: None,
        )
        former = _OneThread(version, version.former)
        sequence = itertools.count(1)
        for number in range(WARM_UP_ROUNDS + rounds):
            received = [
                pb.ClientMessage(frame=pb.Frame(seq=next(sequence), payload=payload)).SerializeToString()
                for _ in range(batch)
            ]
            instants = [time.thread_time_ns()]
            frames = [parse_client_message(data) for data in received]
            instants.append(time.thread_time_ns())
            for frame in frames:
                session.on_frame(frame, clock.now_ns())  # type: ignore[arg-type]
            instants.append(time.thread_time_ns())
            while len(sink.waiting) < batch:
                former.step()
            former.step()  # the notices of the last batch
            instants.append(time.thread_time_ns())
            sink.drain()
            instants.append(time.thread_time_ns())
            answers = list(iter(session.next_message, None))
            instants.append(time.thread_time_ns())
            if len(answers) != batch:
                raise RuntimeError(f"{len(answers)} answers to {batch} frames")
            if number >= WARM_UP_ROUNDS:
                for step, (before_ns, after_ns) in zip(STEPS, itertools.pairwise(instants), strict=True):
                    spent_ns[step] += after_ns - before_ns
    pool.close()
    return {step: ns / 1000 / batch / rounds for step, ns in spent_ns.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, default=150_528, help="of a frame")
    parser.add_argument("--frames", type=int, default=8000, help="per batch size")
    arguments = parser.parse_args()
    print(f"frames of {arguments.bytes} bytes; CPU us per frame")
    print("batch  " + "  ".join(f"{step:>17}" for step in (*STEPS, "together")))
    for batch in (1, 4, 8, WINDOW):
        spent_us = measure(arguments.bytes, batch, arguments.frames // batch)
        print(f"{batch:5}  " + "  ".join(f"{us:17.1f}" for us in (*spent_us.values(), sum(spent_us.values()))))


if __name__ == "__main__":
    from forebay_server.service.tuning import tune_process

    tune_process()
    main()
