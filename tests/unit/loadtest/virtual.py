"""Virtual time and a fake server for the generator: a run of a minute takes milliseconds and is exact."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from forebay_server.loadtest.arrivals import plan
from forebay_server.loadtest.errors import CannotConnectError, GarbageError, StreamBrokenError
from forebay_server.loadtest.frames import FrameSource
from forebay_server.loadtest.generator import Generator, GeneratorResult
from forebay_server.loadtest.pacer import Schedule
from forebay_server.loadtest.scenario import Scenario
from forebay_server.loadtest.summary import Merged, merge
from forebay_server.loadtest.target import Answer, Encoding, Moved, Outcome, TargetInfo

SOURCE = FrameSource((b"frame",), Encoding.JPEG, 1, 1, "test frames")
INFO = TargetInfo("m", "1", "DELIVERY_LATEST", 8, 0.0, 0)


class LoopPacer:
    """Paces by the event loop's own timers, which are exact in virtual time."""

    def __init__(self, clock):
        self._clock = clock
        self._stopped = asyncio.Event()

    async def run(self, schedule, start_ns, fire):
        pending = Schedule(schedule, start_ns, fire)
        while not self._stopped.is_set():
            next_ns = pending.fire_due(self._clock)
            if next_ns is None:
                return
            try:
                async with asyncio.timeout((next_ns - self._clock.now_ns()) / 1e9):
                    await self._stopped.wait()
            except TimeoutError:
                continue

    def stop(self):
        self._stopped.set()


class _JumpingSelector(selectors.SelectSelector):
    """Never waits: when nothing is ready, time jumps to the next timer."""

    now_s = 1.0

    def select(self, timeout=None):
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("the loop would wait for ever: nothing is scheduled")
            self.now_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        self.selector = _JumpingSelector()
        super().__init__(self.selector)
        self._clock_resolution = 1e-9

    def time(self):
        return self.selector.now_s


class LoopClock:
    """The virtual loop's time, plus the delay of a busy generator."""

    def now_ns(self):
        return round(asyncio.get_running_loop().time() * 1e9)


def run_virtually(coroutine: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)


@dataclass
class FakeServer:
    """A target in the same loop. `answer(frame number)` gives (delay in seconds, outcomes) for each frame."""

    answer: Callable[[int], tuple[float, list[Outcome]]] = lambda number: (0.005, [Outcome.OK])
    garbage: set[int] = field(default_factory=set)  # frames answered by something unreadable
    break_at: set[int] = field(default_factory=set)  # the connection breaks when this frame arrives
    move_at: set[int] = field(default_factory=set)  # the server asks for a new stream after this frame
    is_down: Callable[[], bool] = lambda: False
    stages_us: tuple[int, ...] = ()
    frames: int = 0
    opened: list[int | None] = field(default_factory=list)

    async def open(self, stream_id, resume_from=None):
        if self.is_down():
            raise CannotConnectError("connection refused")
        self.opened.append(resume_from)
        return FakeStream(self)

    async def close(self):
        return


class FakeStream:
    info = INFO

    def __init__(self, server):
        self._server = server
        self._inbox = asyncio.Queue()
        self._open_answers = 0
        self._is_half_closed = False
        self._is_broken = False
        self.sent_at_s = []

    async def send(self, seq, capture_time_us, payload):
        server = self._server
        if self._is_broken or server.is_down():
            self._break()
            raise StreamBrokenError("the connection is gone")
        server.frames += 1
        if server.frames in server.break_at:
            self._break()
            raise StreamBrokenError("broken on purpose")
        delay_s, outcomes = server.answer(server.frames)
        self._open_answers += 1
        answers = [Answer(seq, outcome, capture_time_us, server.stages_us, 0, 1) for outcome in outcomes]
        if server.frames in server.garbage:
            answers = [GarbageError("nonsense")]
        if server.frames in server.move_at:
            answers.append(Moved("REASON_DRAIN"))
        asyncio.get_running_loop().call_later(delay_s, self._deliver, answers)

    def _deliver(self, answers):
        for answer in answers:
            self._inbox.put_nowait(answer)
        self._open_answers -= 1
        self._end_if_done()

    def _end_if_done(self):
        if self._is_half_closed and self._open_answers == 0:
            self._inbox.put_nowait(None)

    def _break(self):
        self._is_broken = True
        self._inbox.put_nowait(StreamBrokenError("the connection is gone"))

    async def receive(self):
        item = await self._inbox.get()
        if isinstance(item, Exception):
            raise item
        return item

    async def finish(self):
        self._is_half_closed = True
        self._end_if_done()

    def cancel(self):
        return


async def generate(scenario: Scenario, server: FakeServer, clock: Any = None, pacer: Any = None) -> GeneratorResult:
    clock = clock or LoopClock()
    generator = Generator(
        scenario=scenario,
        plans=plan(scenario),
        target=server,
        source=SOURCE,
        clock=clock,
        pacer=pacer or LoopPacer(clock),
    )
    await generator.prepare()
    return await generator.run(clock.now_ns() + 100_000_000)


def offer(scenario: Scenario, server: FakeServer) -> Merged:
    """Run a scenario against a fake server in virtual time."""
    return merge([run_virtually(generate(scenario, server))])
