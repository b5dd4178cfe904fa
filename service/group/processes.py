"""`forebay serve --front-ends N`: engine processes and N front-end processes. Decides when they start and end.

Theory of operation
    The engine process starts first, the front-end processes beside it, as soon as the fork server can make them: they
    listen when the engine process serves. All are ready when each has written its ready line.

    A front-end process that ends by itself is started anew, the first time at once and then after pauses (`restarts`);
    its clients have gone to the others or come back. One that cannot even start, because the port is taken or a
    certificate is wrong, ends the group. So does one that ends again and again. Once the group has served, one that
    cannot be started because the machine lacks something is tried again later. Without the engine process nothing is
    served: if it ends, all end, and the exit code is its own, or 70 if a signal ended it, so that a supervisor starts
    all anew. The front-end processes find its end before the kernel reports it: one that ends while the engine process
    is about to end is not started anew, and its exit code means nothing.

    With several engine processes the others serve on: once the group has served, one that ends is started anew as a
    front-end process is.

    A request to stop goes to all at once. The front-end processes drain. The engine process gives up loads, is not
    ready any more, and ends when the last front-end process has ended.

Owner: the main thread. Starts and reads no process itself (`service.group.parent`).
"""

import json
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from forebay_server.service.child import exit_code_of, how_it_ended
from forebay_server.service.clock import Clock
from forebay_server.service.group.restarts import MOST_RESTARTS, Restarts
from forebay_server.service.parent import END_LIMIT_NS, Parent, Signalled

ENGINE = -1  # where a front-end process has its number; -2 is the second engine process, and so on
EXIT_FATAL = 70  # EX_SOFTWARE: a supervisor should start the process anew
EVENT_READY = "ready"
KILLED = "; the kernel does this where memory has run out: give it more, or use fewer permits"


@dataclass(slots=True)
class _Member:
    """One front-end process or engine process.

    Attributes:
        restarts: when it is started anew.
        process: None while it does not run.
        ready: its latest ready line; None before the first.
        is_over: it is not started anew: the only engine process ends, or has ended.
        was_asked: whether it ran when the group was asked to end.
    """

    restarts: Restarts
    process: Signalled | None = None
    ready: dict[str, Any] | None = None
    is_over: bool = False
    was_asked: bool = False

    @property
    def is_wanted(self) -> bool:
        """Whether it is to be started, now or later."""
        return self.process is None and not self.is_over


class ProcessGroup(Parent):
    """See the module's theory of operation.

    Args:
        size: number of front-end processes.
        on_ready: called once, when all are ready, with the ready lines of the engine processes and of the others.
        pass_on: called with every other line of their standard output.
        say: writes one line for the operator.
        clock: source of monotonic nanoseconds.
        is_engine_ending: whether the only engine process is about to end.
        engines: number of engine processes.
    """

    def __init__(
        self,
        size: int,
        on_ready: Callable[[list[dict[str, Any]], list[dict[str, Any]]], None],
        pass_on: Callable[[str], None],
        say: Callable[[str], None],
        clock: Clock,
        is_engine_ending: Callable[[], bool] = lambda: False,
        engines: int = 1,
    ) -> None:
        super().__init__(clock, END_LIMIT_NS)
        self._on_ready = on_ready
        self._pass_on = pass_on
        self._say = say
        self._is_engine_ending = is_engine_ending
        self._engines = [_Member(Restarts(clock)) for _ in range(engines)]
        self._front_ends = [_Member(Restarts(clock)) for _ in range(size)]
        self._has_told = False
        self._code = 0

    @property
    def wanted(self) -> list[int]:
        """The processes to start now, in this order: ENGINE and so on, and numbers of front-end processes."""
        if self.is_stopping:
            return []
        return [index for index, each in self._members() if each.is_wanted and each.restarts.is_due()]

    def _members(self) -> list[tuple[int, _Member]]:
        return [*((ENGINE - index, each) for index, each in enumerate(self._engines)), *enumerate(self._front_ends)]

    def pause_s(self) -> float | None:
        """Return the time until a process that is not wanted yet will be; None: there is none."""
        pauses = [] if self.is_stopping else [each.restarts.pause_s() for _, each in self._members() if each.is_wanted]
        return min((pause_s for pause_s in pauses if pause_s is not None), default=None)

    def put_off(self) -> None:
        """No process can be started now: try again later."""
        for _, each in self._members():
            if each.is_wanted:
                each.restarts.put_off()

    @property
    def has_served(self) -> bool:
        """Whether all processes were ready once."""
        return self._has_told

    @property
    def exit_code(self) -> int:
        """Of this process, once all have ended."""
        return self._code

    def add(self, index: int, process: Signalled) -> None:
        """Add a started process."""
        self._member(index).process = process

    def _member(self, index: int) -> _Member:
        return self._front_ends[index] if index >= 0 else self._engines[ENGINE - index]

    def children(self) -> Iterable[Signalled]:
        """Return the running processes."""
        return [each.process for each in (*self._front_ends, *self._engines) if each.process is not None]

    def stop(self, number: int) -> None:
        """Have the front-end processes drain, and the engine process end after them. Idempotent."""
        if self._stop_signal is None:
            self._stop_signal = number
            for each in self._engines:
                each.was_asked = each.process is not None
            self._tell(number)

    def on_line(self, index: int, line: str) -> None:
        """Handle a line of a process's standard output."""
        ready = _ready_of(line)
        if ready is None:
            self._pass_on(line)
            return
        self._member(index).ready = ready
        engines, front_ends = (
            [each.ready for each in members if each.ready is not None] for members in (self._engines, self._front_ends)
        )
        if (len(engines), len(front_ends)) == (len(self._engines), len(self._front_ends)) and not self._has_told:
            self._has_told = True
            self._on_ready(engines, front_ends)

    def on_end(self, index: int, code: int) -> None:
        """Record that a process has ended, and decide what becomes of the others."""
        if index < 0:
            self._engine_ended(ENGINE - index, code)
            return
        front_end = self._front_ends[index]
        front_end.process = None
        if self.is_stopping:
            # One that was not ready had no client: where the engine process ended first, it says so by its code.
            counts = any(each.process is not None for each in self._engines) and front_end.ready is not None
            self._code = self._code or (exit_code_of(code) if counts else 0)
        elif self._is_engine_ending():
            front_end.is_over = True
        elif front_end.ready is None and code > 0:  # it cannot serve: it has said why
            self._code = exit_code_of(code)
            self.stop(signal.SIGTERM)
        elif not front_end.restarts.allow():
            self.give_up(f"front-end process {index} {how_it_ended(code)}")
        else:
            self._say(f"front-end process {index} {how_it_ended(code)}; starting it anew{_hint(code)}")

    def _engine_ended(self, index: int, code: int) -> None:
        engine = self._engines[index]
        engine.process = None
        if engine.was_asked:
            self._code = self._code or exit_code_of(code)
            return
        if len(self._engines) > 1 and self._has_told:
            if not engine.restarts.allow():
                self.give_up(f"engine process {index} {how_it_ended(code)}")
            else:
                self._say(f"engine process {index} {how_it_ended(code)}; starting it anew{_hint(code)}")
            return
        engine.is_over = True
        if code < 0 or code == 0:  # not asked to: nothing that it could mean is an order
            self._say(f"the engine process {how_it_ended(code)}; ending all{_hint(code)}")
        self._code = self._code or (code if code > 0 else EXIT_FATAL)
        self.stop(signal.SIGTERM)

    def give_up(self, what: str) -> None:
        """End all: a process has ended again and again."""
        self._say(f"{what}, {MOST_RESTARTS} times in a minute; ending all")
        self._code = self._code or EXIT_FATAL
        self.stop(signal.SIGTERM)


def _hint(code: int) -> str:
    return KILLED if code == -signal.SIGKILL else ""


def _ready_of(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("event") == EVENT_READY else None
