"""Whether the event loop may step a former itself: as long as its steps are short. Pure.

`service.pipeline.inline_runner` tells why the loop steps formers. Long steps in a row send the former's work back to
its thread for a while. Then one step is tried again: the steps may have been long because the machine was busy.

Owner: the event loop's thread.
"""

from forebay_server.service.batching.constants import LONG_STEP_NS, LONG_STEPS, REST_NS


class LoopSteps:
    """See the module."""

    def __init__(self) -> None:
        self._long_steps = 0
        self._rests_until_ns = 0

    def may_step(self, now_ns: int) -> bool:
        """Whether the loop may take the next step."""
        return now_ns >= self._rests_until_ns

    def observe(self, started_ns: int, ended_ns: int) -> None:
        """Learn from one step."""
        if ended_ns - started_ns < LONG_STEP_NS:
            self._long_steps = 0
            return
        self._long_steps += 1
        if self._long_steps == LONG_STEPS:
            self._long_steps = LONG_STEPS - 1  # another long one and it rests again
            self._rests_until_ns = ended_ns + REST_NS
