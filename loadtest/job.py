"""One process's share of a run, as a value that travels to it, and how that process carries it out.

The same conversation works over a pipe (loadtest.worker) and over gRPC (loadtest.client.agents):

    coordinator: prepare(job)        process: ready(info) or failed(exit_code, text)
    coordinator: start(start_ns)     process: progress ... progress, result + rows
    coordinator: stop(reason)        (at any time: end early, report what there is)
"""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from forebay_server.loadtest import histograms
from forebay_server.loadtest.arrivals import plan
from forebay_server.loadtest.clock import MonotonicClock
from forebay_server.loadtest.errors import LoadTestError, UsageError
from forebay_server.loadtest.frames import FrameSource, FramesSpec, pictures, tensors
from forebay_server.loadtest.generator import Generator, GeneratorResult
from forebay_server.loadtest.pacer import TimerfdPacer
from forebay_server.loadtest.recorder import ROW, Counters, Rows, pack
from forebay_server.loadtest.scenario import Scenario
from forebay_server.loadtest.summary import schedule_lag_ms
from forebay_server.loadtest.target import Delivery, Encoding, Outcome, Protocols, Target, TargetSpec

Message = dict[str, Any]
Send = Callable[[Message, bytes], None]
Receive = Callable[[], Awaitable[Message | None]]

_PROGRESS_ROWS = 100_000  # the newest ones; older frames are answered already or will not be


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The part of one of `processes` processes: the streams whose number modulo `processes` is `index`."""

    scenario: Scenario
    spec: TargetSpec
    frames: FramesSpec
    index: int = 0
    processes: int = 1

    def to_message(self) -> Message:
        """Return the job as a message."""
        return {
            "type": "prepare",
            "scenario": self.scenario.to_dict(),
            "spec": asdict(self.spec),
            "frames": asdict(self.frames),
            "index": self.index,
            "processes": self.processes,
        }

    @classmethod
    def from_message(cls, message: Message) -> "Job":
        """Read a message of `to_message`. Raises UsageError."""
        try:
            spec = message["spec"] | {
                "protocol": Protocols(message["spec"]["protocol"]),
                "encoding": Encoding(message["spec"]["encoding"]),
                "delivery": Delivery(message["spec"]["delivery"]),
                "shape": tuple(message["spec"]["shape"]),
            }
            frames = message["frames"]
            frames = frames | {"size": tuple(frames["size"]) if frames["size"] else None}
            return cls(
                scenario=Scenario.from_dict(message["scenario"]),
                spec=TargetSpec(**spec),
                frames=FramesSpec(**frames),
                index=int(message["index"]),
                processes=int(message["processes"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"this is no job of this version: {error}") from error


async def carry_out(receive: Receive, send: Send) -> None:
    """Hold one conversation: prepare, start, run, answer with the result."""
    try:
        message = await receive()
        if message is None:
            return
        job = Job.from_message(message)
        await _Conversation(job, receive, send).hold()
    except LoadTestError as error:
        send({"type": "failed", "exit_code": int(error.exit_code), "text": str(error)}, b"")


class _Conversation:
    def __init__(self, job: Job, receive: Receive, send: Send) -> None:
        self._job = job
        self._receive = receive
        self._send = send
        self._clock = MonotonicClock()
        self._start_ns = 0
        self._reported_ns = -1

    async def hold(self) -> None:
        from forebay_server.loadtest.client import open_target  # imports gRPC: after process_tuning

        job = self._job
        plans = plan(job.scenario)[job.index :: job.processes]
        spec, source = await self._source()
        target: Target = open_target(spec, len(plans))
        try:
            generator = Generator(
                scenario=job.scenario,
                plans=plans,
                target=target,
                source=source,
                clock=self._clock,
                pacer=TimerfdPacer(self._clock),
            )
            info = await generator.prepare()
            ready = {"info": asdict(info) if info else None, "frames": source.note, "size": [spec.width, spec.height]}
            self._send({"type": "ready", **ready}, b"")
            message = await self._receive()
            if message is None or message["type"] != "start":
                return
            await self._run(generator, message)
        finally:
            await target.close()

    async def _run(self, generator: Generator, message: Message) -> None:
        now_ns = self._clock.now_ns()
        self._start_ns = int(message.get("start_ns") or now_ns + int(message["start_in_ns"]))
        stopper = asyncio.create_task(self._stop_when_told(generator))
        self._settle()
        cpu_s = time.process_time()
        try:
            result = await generator.run(self._start_ns, self._report)
        finally:
            stopper.cancel()
        spent_s = (self._clock.now_ns() - self._start_ns) / 1e9
        self._send(_result_message(result, (time.process_time() - cpu_s) / spent_s), pack(result.rows))

    def _settle(self) -> None:
        """Do work that would otherwise delay a frame now: the first report's imports, and a long garbage collection."""
        self._progress(np.zeros(1, ROW), Counters())
        self._reported_ns = -1
        gc.collect()
        gc.freeze()

    async def _stop_when_told(self, generator: Generator) -> None:
        message = await self._receive()
        generator.stop(str(message["reason"]) if message else "the coordinator went away")

    async def _source(self) -> tuple[TargetSpec, FrameSource]:
        """Return the frames, and the spec completed with their properties."""
        from forebay_server.loadtest.client import open_target

        spec, frames, seed = self._job.spec, self._job.frames, self._job.scenario.seed
        if spec.encoding is not Encoding.TENSOR:
            source = pictures(frames, spec.encoding)
            return replace(spec, width=source.width, height=source.height), source
        if frames.tensor_bytes:
            return spec, tensors(frames.tensor_bytes, seed)
        target = open_target(spec, 1)
        try:
            probe = await target.open("load-probe")
            await probe.finish()
            return spec, tensors(probe.info.input_bytes, seed)
        finally:
            await target.close()

    def _report(self, rows: Rows, counters: Counters) -> None:
        self._send(self._progress(rows, counters), b"")

    def _progress(self, rows: Rows, counters: Counters) -> Message:
        newest = rows[-_PROGRESS_ROWS:]
        fresh = newest[(newest["outcome"] == Outcome.OK) & (newest["done_ns"] > self._reported_ns)]
        self._reported_ns = int(fresh["done_ns"].max(initial=self._reported_ns))
        latency_ms = (fresh["done_ns"] - fresh["intended_ns"]) / 1e6
        lag_ms = schedule_lag_ms(newest[-2000:])
        return {
            "type": "progress",
            "elapsed_s": (self._clock.now_ns() - self._start_ns) / 1e9,
            "counters": counters.to_dict(),
            "hdr": histograms.encode(latency_ms),
            "lag_p99_ms": float(np.quantile(lag_ms, 0.99)) if len(lag_ms) else 0.0,
        }


def _result_message(result: GeneratorResult, cpu_share: float) -> Message:
    return {
        "type": "result",
        "counters": result.counters.to_dict(),
        "loop_lag_ns": result.loop_lag_ns,
        "ended_early": result.ended_early,
        "offered_for_ns": result.offered_for_ns,
        "cpu_share": cpu_share,
    }
