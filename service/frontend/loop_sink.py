"""The way back to the event loop: completions from any thread, one wake-up for all that wait."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import structlog

from forebay_server.service.event_loop import ServingLoop
from forebay_server.service.request import Completion

log = structlog.get_logger(__name__)

GATHERED_STEPS = 8
"""A busy loop gathers requests for this multiple of a step's duration: steps take a ninth of its time at most."""
LEAST_GATHERING_S, LONGEST_GATHERING_S = 2e-4, 2e-3
"""Limits for any measured duration of steps: a few frames at 1,500 a second, and a delay that is invisible in a frame's
time."""
STEP_AVERAGE = 8  # steps: follows a change within tens of milliseconds


class LoopSink:
    """Implements service.request.CompletionSink for one event loop.

    One `call_soon_threadsafe` per batch, not per frame: 1 to 3 µs against 13 to 33 (docs/benchmarks.md). The flag is
    lowered before the deque is emptied, so a completion posted meanwhile either is taken or wakes the loop again.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._completions: deque[Completion] = deque()
        self._is_scheduled = False
        self._steps: dict[Callable[[], None], None] = {}  # in the order of registration
        self._step_s = 0.0  # moving average of a step's duration, including its completions

    def step_when_idle(self, step: Callable[[], None]) -> None:
        """Call `step` once the loop has read the available messages; see `StepWhenIdle`. Thread: the loop's.

        On a loop that does not report idle moments: at the end of its iteration.
        """
        if not self._steps:
            if isinstance(self._loop, ServingLoop):
                gathering_s = min(max(GATHERED_STEPS * self._step_s, LEAST_GATHERING_S), LONGEST_GATHERING_S)
                self._loop.call_when_idle(self._run_steps, gathering_s)
            else:
                self._loop.call_soon(self._run_steps)
        self._steps[step] = None

    def _run_steps(self) -> None:
        steps, self._steps = self._steps, {}
        started_s = self._loop.time()
        self.gather(lambda: [step() for step in steps])
        took_s = min(self._loop.time() - started_s, LONGEST_GATHERING_S)
        self._step_s += (took_s - self._step_s) / STEP_AVERAGE

    def gather(self, step: Callable[[], object]) -> None:
        """Call `step`, then hand out the completions that it posts: the loop needs no wake-up. Thread: the loop's."""
        self._is_scheduled = True
        try:
            step()
        finally:
            self.drain()

    def post(self, completions: Sequence[Completion]) -> None:
        """Hand over completions. Thread: any. Blocks: no."""
        self._completions.extend(completions)
        if not self._is_scheduled:
            self._is_scheduled = True
            try:
                self._loop.call_soon_threadsafe(self.drain)
            except RuntimeError:
                if not self._loop.is_closed():  # closed: the server has gone, and no receiver is left
                    raise

    def drain(self) -> None:
        """Deliver all completions that have been posted. Thread: the loop's."""
        self._is_scheduled = False
        while self._completions:
            completion = self._completions.popleft()
            try:
                completion.request.on_completion(completion)
            except Exception:  # a bug in one completion must not stop the completions behind it
                log.exception("completion failed")
