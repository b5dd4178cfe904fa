"""One measurement from job to document: run, calibrate, summarise, judge. Called by the commands and benchmarks."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from forebay_server.loadtest.calibrate import null_server_ceiling
from forebay_server.loadtest.job import Job
from forebay_server.loadtest.live import LiveView
from forebay_server.loadtest.recorder import ROW, Counters
from forebay_server.loadtest.report import Circumstances, Document, build, metrics_of
from forebay_server.loadtest.runner import run_load
from forebay_server.loadtest.scenario import Scenario
from forebay_server.loadtest.summary import Merged, summarise
from forebay_server.loadtest.verdict import Assertion, parse_assertion


async def measure(
    job: Job,
    *,
    agents: tuple[str, ...] = (),
    assertions: tuple[Assertion, ...] = (),
    good_within_ms: float = 100.0,
    calibrate: bool = True,
    live: bool = False,
    stop: asyncio.Event | None = None,
) -> Document:
    """Run a job and return its report.

    `stop` ends the run early (`stopped_by_signals` sets it on Ctrl-C); the results so far are reported.

    Raises:
        LoadTestError: there is nothing to report: no server, or the generator could not start.
    """
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    with LiveView(job.scenario, f"forebay load {job.spec.address}", is_wanted=live) as view:
        outcome = await run_load(job, agents=agents, on_progress=view.update, stop=stop)
    ceiling = None
    if calibrate and not agents and not outcome.run.ended_early:
        ceiling = await null_server_ceiling(_as_sent(job, outcome.info.input_bytes if outcome.info else 0))
    circumstances = Circumstances(
        started_at=started_at,
        spec=replace(job.spec, width=outcome.size[0], height=outcome.size[1]),
        info=outcome.info,
        frames=outcome.frames,
        processes=len(outcome.cpu_shares),
        hosts=max(1, len(set(agents))),
        cpu_shares=outcome.cpu_shares,
        ceiling_per_s=ceiling,
        good_within_ms=good_within_ms,
    )
    return build(job.scenario, summarise(job.scenario, outcome.run, good_within_ms), circumstances, list(assertions))


def parse_assertions(texts: list[str]) -> tuple[Assertion, ...]:
    """Read --assert options. Raises UsageError."""
    nothing = Merged(
        rows=np.zeros(0, ROW), counters=Counters(), loop_lag_ms=np.zeros(0), ended_early="", offered_for_s=0.0
    )
    metrics = metrics_of(summarise(Scenario(), nothing, 0.0))
    return tuple(parse_assertion(text, metrics) for text in texts)


def _as_sent(job: Job, input_bytes: int) -> Job:
    """Return the job with the size of its tensors, which the null server does not know."""
    if job.frames.tensor_bytes or not input_bytes:
        return job
    return replace(job, frames=replace(job.frames, tensor_bytes=input_bytes))


@contextmanager
def stopped_by_signals() -> Iterator[asyncio.Event]:
    """Give an event that SIGINT, SIGTERM and SIGHUP set, on the running loop of the main thread; elsewhere none do."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    installed: list[signal.Signals] = []
    with suppress(ValueError, RuntimeError, NotImplementedError):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop.set)
            installed.append(number)
    try:
        yield stop
    finally:
        for number in installed:
            loop.remove_signal_handler(number)
