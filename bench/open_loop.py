"""An open loop for benchmarks: frames leave at their instants, independent of the answers.

A frame's time counts from the instant at which it was due, so that a server that stands still makes every frame late
that was due meanwhile. Frames are spaced evenly and dealt to the streams in turn. `bench.frame_load` runs it.
"""

import asyncio
import selectors
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from forebay_server.bench.dialects import Dialect, UnaryDialect

LAST_ANSWERS_S = 5.0
"""A frame that is not answered this long after the last one was due counts as lost."""
FIRST_SHARE = 0.2
"""Frames at the beginning whose times do not count: connections open, caches fill."""


@dataclass(frozen=True, slots=True)
class OpenLoadResult:
    """The measurements of one open loop.

    Attributes:
        frames: that were due.
        answered: of them, with any answer.
        lost: of those after the beginning, not answered, or not OK; their time counts as infinite.
        client_cpu_s: CPU of this process in the whole run.
        p50_ms: median from due to answered.
        p99_ms: 99th percentile.
        send_lag_p99_ms: how late frames were handed to gRPC: the lateness of the client itself.
    """

    frames: int
    answered: int
    lost: int
    client_cpu_s: float
    p50_ms: float
    p99_ms: float
    send_lag_p99_ms: float


class _Run:
    """The frames of one run: when each was due, sent and answered. Owner: the event loop's thread."""

    def __init__(self, dialect: Dialect, rate: float, count: int, tick_s: float = 0.0) -> None:
        self.dialect = dialect
        self.tick_s = tick_s
        self.count = count
        self.spacing_s = 1.0 / rate
        self.start_s = 0.0
        self.lag_s = [0.0] * count
        self.took_s = [float("inf")] * count
        self.unanswered = count
        self.finished = asyncio.Event()

    def due_s(self, number: int) -> float:
        """Return the instant of a frame."""
        return self.start_s + number * self.spacing_s

    def sent(self, number: int) -> None:
        """Note that a frame is handed to gRPC."""
        self.lag_s[number] = time.perf_counter() - self.due_s(number)

    def answered(self, number: int, *, is_ok: bool) -> None:
        """Note an answer."""
        if is_ok:
            self.took_s[number] = time.perf_counter() - self.due_s(number)
        self.unanswered -= 1
        if not self.unanswered:
            self.finished.set()

    async def pace(self, send: Any) -> None:  # noqa: ANN401 - a callable of one number
        """Call `send` with the number of each frame at its instant."""
        self.start_s = time.perf_counter() + 0.01
        for number in range(self.count):
            delay_s = self.due_s(number) - time.perf_counter()
            if delay_s > 0.0 or not self.tick_s:
                await asyncio.sleep(max(self.tick_s, delay_s))
            send(number)

    def result(self, cpu_s: float) -> OpenLoadResult:
        """Summarise."""
        first = int(self.count * FIRST_SHARE)
        took_s = np.asarray(self.took_s[first:])
        p50_s, p99_s = np.quantile(took_s, [0.5, 0.99], method="higher")
        lost = int(np.isinf(took_s).sum())
        lag_s = float(np.quantile(self.lag_s[first:], 0.99))
        answered = self.count - self.unanswered
        return OpenLoadResult(self.count, answered, lost, cpu_s, float(p50_s) * 1e3, float(p99_s) * 1e3, lag_s * 1e3)


class _Stream:
    """One stream: frames that are due wait for the write before them."""

    def __init__(self, run: _Run, call: Any) -> None:  # noqa: ANN401 - grpc.aio's
        self._run = run
        self._call = call
        self._due: deque[int] = deque()
        self._unanswered: deque[int] = deque()
        self._changed = asyncio.Event()

    def send(self, number: int) -> None:
        self._due.append(number)
        self._changed.set()

    async def open(self, index: int, window: int) -> None:
        opening = self._run.dialect.opening(index, window)
        if opening is not None:
            await self._call.write(opening)
            await self._call.read()

    async def write(self) -> None:
        while True:
            while self._due:
                number = self._due.popleft()
                self._unanswered.append(number)
                self._run.sent(number)
                await self._call.write(self._run.dialect.frame(number + 1))
            self._changed.clear()
            await self._changed.wait()

    async def read(self) -> None:
        while isinstance(data := await self._call.read(), bytes):
            is_ok = self._run.dialect.rows(data) is not None
            self._run.answered(self._unanswered.popleft(), is_ok=is_ok)


async def _run_streams(run: _Run, channels: list[Any], window: int, wait_s: float) -> None:
    calls = [channel.stream_stream(run.dialect.method)() for channel in channels]
    opened = [_Stream(run, call) for call in calls]
    await asyncio.gather(*(stream.open(index, window) for index, stream in enumerate(opened)))
    tasks = [asyncio.create_task(work) for stream in opened for work in (stream.write(), stream.read())]
    await run.pace(lambda number: opened[number % len(opened)].send(number))
    await _last_answers(run, wait_s)
    for task in tasks:
        task.cancel()
    for call in calls:
        call.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _run_unary(run: _Run, channels: list[Any], wait_s: float) -> None:
    import grpc

    calls = [channel.unary_unary(run.dialect.method) for channel in channels]
    tasks: set[asyncio.Task[None]] = set()

    async def one(number: int) -> None:
        run.sent(number)
        try:
            await calls[number % len(calls)](run.dialect.frame(number + 1), timeout=LAST_ANSWERS_S)
        except grpc.RpcError:
            run.answered(number, is_ok=False)
        else:
            run.answered(number, is_ok=True)

    def send(number: int) -> None:
        task = asyncio.create_task(one(number))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    await run.pace(send)
    await _last_answers(run, wait_s)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _last_answers(run: _Run, wait_s: float) -> None:
    try:
        async with asyncio.timeout(wait_s):
            await run.finished.wait()
    except TimeoutError:
        return


async def run_at_rate(
    dialect: Dialect,
    channels: list[Any],
    window: int,
    rate: float,
    seconds: float,
    *,
    tick_s: float = 0.0,
    wait_s: float = LAST_ANSWERS_S,
) -> OpenLoadResult:
    """Offer `rate` frames per second for `seconds`, on one stream, or with unary calls, of each channel; close them.

    Args:
        dialect: makes the frames.
        channels: of grpc.aio.
        window: to ask for on each stream.
        rate: of all channels together.
        seconds: of sending.
        tick_s: frames that are due leave together, so often; 0: each at its instant.
        wait_s: for answers to the last frames.
    """
    run = _Run(dialect, rate, int(rate * seconds), tick_s)
    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    started_cpu_s = time.process_time()
    if isinstance(dialect, UnaryDialect):
        await _run_unary(run, channels, wait_s)
    else:
        await _run_streams(run, channels, window, wait_s)
    result = run.result(time.process_time() - started_cpu_s)
    for channel in channels:
        await channel.close(None)
    return result


def precise_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop whose timers are good to microseconds: epoll's are to a millisecond."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())
