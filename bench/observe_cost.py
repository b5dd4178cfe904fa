"""The cost of observing by itself, in CPU time of the thread that does it: a frame, a scrape, a page, a trace.

Its other effects on the process (the GIL, caches) are not here: `bench.observe` has that.
"""

import random
import time
from collections.abc import Callable, Iterator

from forebay_server.bench.rows import Row, Spread
from forebay_server.engines.clock import MonotonicClock
from forebay_server.service.journal.events import BatchEvent, FrameEvent, Journal
from forebay_server.service.observe.exposition import render
from forebay_server.service.observe.gauges import Gauges
from forebay_server.service.observe.live import LiveState
from forebay_server.service.observe.observer import Observer
from forebay_server.service.observe.timeline import trace_chunks
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.request import Timeline
from forebay_server.service.worker_pool import WorkerPool

CAMERAS = 20
MANY_CAMERAS = 200  # the most that the page lists
SIZE, FOUND = (1280, 720), 3
ROWS_PER_BATCH = 4
BUDGET_US = 2.0  # a frame, data path and observer together
MS = 1_000_000


def thread_us(work: Callable[[], object], repeats: int) -> float:
    """Return the CPU time of one call, in µs."""
    before_s = time.thread_time()
    for _ in range(repeats):
        work()
    return (time.thread_time() - before_s) * 1e6 / repeats


class ObservedServer:
    """A journal and its observer, with frames of cameras as a pipeline would tell them."""

    def __init__(self, frames_per_s: int, cameras: int = CAMERAS) -> None:
        self.clock = MonotonicClock()
        self.journal = Journal()
        self.observer = Observer(self.journal, self.clock)
        self.ticks_us: list[float] = []
        self._frames_per_s = frames_per_s
        self._records = [self.journal.open(f"camera-{index}", "detector", "1") for index in range(cameras)]
        self._chance = random.Random(1)  # noqa: S311 - the same frames each time

    def play(self, seconds: int, ticks_per_s: int) -> None:
        """Let `seconds` pass, that many before now, and tick."""
        begin_ns = self.clock.now_ns() - seconds * 1000 * MS
        per_tick = max(1, self._frames_per_s // ticks_per_s)
        for tick in range(seconds * ticks_per_s):
            for index in range(per_tick):
                self._frame(tick * per_tick + index, begin_ns + (tick * per_tick + index) * 10**9 // self._frames_per_s)
            self.ticks_us.append(thread_us(self.observer.tick, 1))

    def _frame(self, number: int, built_ns: int) -> None:
        waited_ns = self._chance.randrange(MS, 30 * MS)
        formed_ns = built_ns - 9 * MS
        received_ns = formed_ns - waited_ns
        timeline = Timeline(
            *(received_ns, received_ns + 10_000, received_ns + 20_000, formed_ns, built_ns - 200_000, built_ns),
            *(100_000, 8 * MS - waited_ns % 1000, 50_000, number // ROWS_PER_BATCH + 1),
        )
        record, deadline_ns = self._records[number % len(self._records)], built_ns + 100 * MS
        event = FrameEvent(record, timeline, None, deadline_ns, received_ns // 1000, None, SIZE, FOUND)
        self.journal.frames.append(event)
        if number % ROWS_PER_BATCH == 0:
            instants = (formed_ns, formed_ns, formed_ns + MS // 10, formed_ns + MS // 10, formed_ns + 8 * MS)
            end_ns = formed_ns + 8 * MS
            rows = (ROWS_PER_BATCH, ROWS_PER_BATCH)
            batch = BatchEvent(
                "detector.1", 0, number // ROWS_PER_BATCH + 1, *rows, *instants, end_ns, end_ns + MS // 20
            )
            self.journal.batches.append(batch)


def append_us(frames: int = 200_000) -> float:
    """Return what the data path spends on one frame: building the event and appending it."""
    journal = Journal()
    record = journal.open("camera", "detector", "1")
    timeline, append = Timeline(), journal.frames.append
    return thread_us(lambda: append(FrameEvent(record, timeline, None, 1, 2, None, SIZE, FOUND)), frames)


def fold_us(frames_per_s: int, ticks_per_s: int, seconds: int = 20) -> float:
    """Return what the observer spends on one frame, batches included."""
    server = ObservedServer(frames_per_s)
    server.play(seconds, ticks_per_s)
    return sum(server.ticks_us) / (seconds * frames_per_s)


def rows(*, is_quick: bool) -> Iterator[Row]:
    """Measure every part."""
    from forebay_server.service.observe.admin_thread import TICK_S

    ticks_per_s = round(1 / TICK_S)
    repeats = 3 if is_quick else 7
    append = [append_us() for _ in range(repeats)]
    yield Row("observing a frame, on the data path", Spread.of(append), "µs")
    for rate in (2000, 300, 30):
        fold = [fold_us(rate, ticks_per_s) for _ in range(repeats)]
        both = Spread.of([a + b for a, b in zip(append, fold, strict=True)])
        budget = BUDGET_US if rate >= 300 else None
        note = "" if budget else "a tick costs the same however few frames there are"
        yield Row(f"observing a frame in all, {rate} frames per second", both, "µs", budget, note=note)
    pool = WorkerPool(2, on_fatal=lambda _: None)
    pool.close()  # its numbers are read, and no worker works beside what is measured
    gauges = Gauges(list, pool, Permits(256), lambda: True)
    for cameras, frames_per_s in ((CAMERAS, 800), (MANY_CAMERAS, 3000)):
        server = ObservedServer(frames_per_s, cameras)
        server.play(12, ticks_per_s)
        case = f"{cameras} cameras, {frames_per_s} frames per second"
        for what, work in _answers(server, gauges):
            values = [thread_us(work, 5) / 1e3 for _ in range(repeats)]
            yield Row(f"{what}, {case}", Spread.of(values), "ms")


def _answers(server: ObservedServer, gauges: Gauges) -> Iterator[tuple[str, Callable[[], object]]]:
    live = LiveState(server.observer, gauges, server.clock)
    yield "a scrape", lambda: render(server.observer, gauges, server.clock.now_ns())
    yield "a message of the page", live.state
    yield "a trace of 5 s", lambda: sum(map(len, trace_chunks(server.observer, 5.0, server.clock.now_ns())))
