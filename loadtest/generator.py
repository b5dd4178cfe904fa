"""Offers the frames of a plan to a target, on one event loop: the core of the load generator.

Theory of operation. The pacer calls `_fire` for every frame at its due time; the server cannot delay that. `_fire`
records the frame and puts it into its stream's queue, where the client's policy applies. One sender task per stream
takes frames from the queue and writes them, waiting only when flow control holds it back; one receiver task per
connection reads answers. A stream that breaks loses its unanswered frames and is opened again; when no stream could be
opened for GIVE_UP_S the run ends early and keeps its results.

Owner: one event loop. Guarantee: when `run` returns no task and no stream is left.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from forebay_server.loadtest.arrivals import StreamPlan, merged
from forebay_server.loadtest.clock import Clock
from forebay_server.loadtest.errors import CannotConnectError, StreamBrokenError
from forebay_server.loadtest.frames import FrameSource
from forebay_server.loadtest.pacer import Pacer
from forebay_server.loadtest.recorder import Counters, Recorder, Rows
from forebay_server.loadtest.scenario import Scenario
from forebay_server.loadtest.stream import StreamDriver
from forebay_server.loadtest.target import Target, TargetInfo

INTERRUPTED = "interrupted"
GIVE_UP_S = 5.0  # without any open stream
_LOOP_PROBE_S = 0.05


@dataclass(slots=True)
class GeneratorResult:
    """The results of one process.

    `loop_lag_ns`: how late the event loop woke up for its own timers, beyond their millisecond's rounding.
    `ended_early`: the reason if the run stopped before its end; empty otherwise. `offered_for_ns`: duration of the
    offering.
    """

    rows: Rows
    counters: Counters
    loop_lag_ns: list[int]
    ended_early: str
    offered_for_ns: int


class Generator:
    """Runs the plans of one process against one target."""

    def __init__(
        self,
        *,
        scenario: Scenario,
        plans: list[StreamPlan],
        target: Target,
        source: FrameSource,
        clock: Clock,
        pacer: Pacer,
    ) -> None:
        self._scenario = scenario
        self._plans = plans
        self._target = target
        self._source = source
        self._clock = clock
        self._pacer = pacer
        self._drivers: list[StreamDriver] = []
        self._loop_lag_ns: list[int] = []
        self._ended_early = ""

    async def prepare(self) -> TargetInfo | None:
        """Open all streams that are connected from the start; return the server's grant for the first of them.

        Raises CannotConnectError.
        """
        self._drivers = [
            StreamDriver(stream_plan, self._scenario, self._target, self._source, self._clock)
            for stream_plan in self._plans
        ]
        try:
            async with asyncio.TaskGroup() as group:
                for driver in self._drivers:
                    if driver.connect_ns == 0:
                        group.create_task(driver.connect())
        except* CannotConnectError as failures:
            raise CannotConnectError(str(failures.exceptions[0])) from failures
        return next((driver.info for driver in self._drivers if driver.info), None)

    async def run(self, start_ns: int, progress: Callable[[Rows, Counters], None] | None = None) -> GeneratorResult:
        """Offer all frames from the time `start_ns` on; return when all are answered or the drain time is over.

        Args:
            start_ns: absolute time, the same in all processes.
            progress: called about twice a second with the rows and counters so far.
        """
        scenario = self._scenario
        planned = sum(len(stream_plan.intended_ns) for stream_plan in self._plans)
        recorder = Recorder(start_ns, planned)
        tasks = [asyncio.create_task(driver.run(recorder, start_ns)) for driver in self._drivers]
        watchers = [asyncio.create_task(self._watch_loop()), asyncio.create_task(self._watch_streams(start_ns))]
        if progress is not None:
            watchers.append(asyncio.create_task(self._report(recorder, progress)))
        try:
            if scenario.is_open_loop:
                await self._pacer.run(merged(self._plans), start_ns, self._fire)
            await self._sleep_until(start_ns + int(scenario.duration_s * 1e9))
            offered_for_ns = self._clock.now_ns() - start_ns
            for driver in self._drivers:
                driver.end_offering()
            _, late = await asyncio.wait(tasks, timeout=0.0 if self._ended_early else scenario.drain_s)
            await _cancel(late)
            for task in tasks:
                if not task.cancelled():
                    task.result()  # a bug in a driver must not look like a quiet server
        finally:
            await _cancel([*watchers, *tasks])
            for driver in self._drivers:
                driver.cancel()
        return self._result(recorder, offered_for_ns)

    def _result(self, recorder: Recorder, offered_for_ns: int) -> GeneratorResult:
        return GeneratorResult(
            rows=recorder.close(),
            counters=recorder.counters,
            loop_lag_ns=self._loop_lag_ns,
            ended_early=self._ended_early,
            offered_for_ns=min(offered_for_ns, int(self._scenario.duration_s * 1e9)),
        )

    def stop(self, reason: str) -> None:
        """End the run now; `run` returns with its results so far."""
        self._ended_early = self._ended_early or reason
        self._pacer.stop()

    def _fire(self, intended_ns: int, driver: int, frame: int) -> None:
        self._drivers[driver].offer(intended_ns, frame)

    async def _sleep_until(self, until_ns: int) -> None:
        while not self._ended_early and (remaining_ns := until_ns - self._clock.now_ns()) > 0:
            await asyncio.sleep(min(remaining_ns / 1e9, 0.2))

    async def _watch_streams(self, start_ns: int) -> None:
        """End the run when streams have been tried in vain for GIVE_UP_S and no other stream works."""
        last_well_ns = start_ns
        while True:
            await asyncio.sleep(0.1)
            now_ns = self._clock.now_ns()
            is_well = any(driver.is_well for driver in self._drivers)
            if is_well or now_ns < start_ns or not any(driver.is_reconnecting for driver in self._drivers):
                last_well_ns = now_ns
            elif now_ns - last_well_ns > GIVE_UP_S * 1e9:
                errors = [driver.last_error for driver in self._drivers if driver.last_error]
                self.stop(f"no stream could be reopened for {GIVE_UP_S:g} s: {errors[-1] if errors else '?'}")
                return

    async def _watch_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + _LOOP_PROBE_S
            await asyncio.sleep(_LOOP_PROBE_S)
            self._loop_lag_ns.append(max(0, int((loop.time() - due_s - 0.001) * 1e9)))

    async def _report(self, recorder: Recorder, progress: Callable[[Rows, Counters], None]) -> None:
        while True:
            await asyncio.sleep(0.5)
            progress(recorder.rows, recorder.counters)


async def _cancel(tasks: "set[asyncio.Task[None]] | list[asyncio.Task[None]]") -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError, StreamBrokenError):
            await task
