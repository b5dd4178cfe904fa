"""One run over all generator processes: prepare, common start, progress, merged results.

Every process offers its own share of the streams of one plan, so the load does not depend on their number. On one host
they share a clock and get the start time; processes on other hosts get the remaining time until the start, which is as
exact as one network delay.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from forebay_server.loadtest.clock import Clock, MonotonicClock
from forebay_server.loadtest.errors import CannotConnectError, ExitCode, InvalidRunError, LoadTestError, UsageError
from forebay_server.loadtest.generator import INTERRUPTED, GeneratorResult
from forebay_server.loadtest.job import Job
from forebay_server.loadtest.recorder import Counters, unpack
from forebay_server.loadtest.summary import Merged, merge
from forebay_server.loadtest.target import TargetInfo
from forebay_server.loadtest.workers import LocalWorker, Worker

START_IN_S = 0.3  # time for the start to reach every process
_ERRORS: dict[int, type[LoadTestError]] = {
    ExitCode.USAGE: UsageError,
    ExitCode.CANNOT_CONNECT: CannotConnectError,
    ExitCode.INVALID: InvalidRunError,
}
_T = TypeVar("_T")
Progress = Callable[[int, dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRun:
    """A run that took place. `size`: width and height of its pictures; zeros for tensors."""

    run: Merged
    info: TargetInfo | None
    frames: str
    size: tuple[int, int]
    cpu_shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Ready:
    info: TargetInfo | None
    frames: str
    size: tuple[int, int]


async def run_load(
    job: Job,
    *,
    agents: tuple[str, ...] = (),
    on_progress: Progress | None = None,
    stop: asyncio.Event | None = None,
    clock: Clock | None = None,
) -> FinishedRun:
    """Run a job on `job.processes` processes on this host, or on each of the agents.

    Args:
        job: its `index` is ignored.
        agents: HOST:PORT of agents; empty: this host.
        on_progress: called with a process's number and its progress message.
        stop: set it to end the run early and keep the results so far.
        clock: for the common start.

    Raises:
        LoadTestError: no process could start the run.
    """
    if agents and job.frames.source not in {"", "synthetic"}:
        raise UsageError("agents read no files that a coordinator names: use the bundled clip or synthetic frames")
    workers = await _launch(job.processes, agents)
    try:
        jobs = [replace(job, index=index, processes=len(workers)) for index in range(len(workers))]
        readies = await _gather([_prepare(worker, each) for worker, each in zip(workers, jobs, strict=True)])
        start_ns = (clock or MonotonicClock()).now_ns() + int(START_IN_S * 1e9)
        for worker in workers:
            start: dict[str, Any] = {"start_in_ns": int(START_IN_S * 1e9)}
            await worker.send({"type": "start"} | (start if worker.is_remote else {"start_ns": start_ns}))
        stopper = asyncio.create_task(_stop(workers, stop or asyncio.Event()))
        try:
            parts = await _gather([_collect(index, worker, on_progress) for index, worker in enumerate(workers)])
        finally:
            stopper.cancel()
    finally:
        await asyncio.gather(*(worker.close() for worker in workers))
    return _finished_run(parts, readies)


def _finished_run(parts: list[tuple[GeneratorResult, float] | None], readies: list[_Ready]) -> FinishedRun:
    results = [part for part in parts if part is not None]
    if not results:
        raise InvalidRunError("all generator processes ended before they had a result")
    run = merge([result for result, _ in results])
    if len(results) < len(parts):
        run.generator_fault = f"{len(parts) - len(results)} of {len(parts)} generator processes died during the run"
    return FinishedRun(
        run=run,
        info=next((ready.info for ready in readies if ready.info), None),
        frames=readies[0].frames,
        size=readies[0].size,
        cpu_shares=tuple(share for _, share in results),
    )


async def _launch(processes: int, agents: tuple[str, ...]) -> list[Worker]:
    if not agents:
        return [await LocalWorker.launch() for _ in range(processes)]
    from forebay_server.loadtest.client.agents import AgentWorker

    return [AgentWorker(address) for address in agents for _ in range(processes)]


async def _prepare(worker: Worker, job: Job) -> _Ready:
    await worker.send(job.to_message())
    received = await worker.receive()
    if received is None:
        raise InvalidRunError("a generator process ended before it was ready")
    message, _ = received
    if message["type"] == "failed":
        raise _ERRORS[message["exit_code"]](message["text"])
    width, height = message.get("size", (0, 0))  # an older agent does not tell it
    return _Ready(TargetInfo(**message["info"]) if message["info"] else None, message["frames"], (width, height))


async def _collect(index: int, worker: Worker, on_progress: Progress | None) -> tuple[GeneratorResult, float] | None:
    """Return a process's result and its CPU share; None if it died."""
    while (received := await worker.receive()) is not None:
        message, blob = received
        if message["type"] == "progress" and on_progress is not None:
            on_progress(index, message)
        elif message["type"] == "failed":
            raise _ERRORS[message["exit_code"]](message["text"])
        elif message["type"] == "result":
            result = GeneratorResult(
                rows=unpack(blob),
                counters=Counters(**message["counters"]),
                loop_lag_ns=message["loop_lag_ns"],
                ended_early=message["ended_early"],
                offered_for_ns=message["offered_for_ns"],
            )
            return result, message["cpu_share"]
    return None


async def _stop(workers: list[Worker], stop: asyncio.Event) -> None:
    await stop.wait()
    for worker in workers:
        await worker.send({"type": "stop", "reason": INTERRUPTED})


async def _gather(awaitables: list[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Wait for all; if one fails, cancel the others and raise its error."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
