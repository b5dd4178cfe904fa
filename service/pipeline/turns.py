"""Whose turn it is to execute, where the models of a machine compete for its cores: the more urgent model goes first.

Theory of operation
    Every lane on the CPU holds a `Turn`. While all lanes have one priority, which is so unless a configuration says
    otherwise, turns are not taken: a batch costs one attribute read here. As soon as there are two priorities, an
    execution needs as many cores as its engine has threads. Whoever gives cores back hands them on; a lane that has to
    wait is woken by that.

    First goes the most urgent lane that waits, then the one that has waited longest. A lane whose next batch is ready
    when an execution ends asks again in the same step, or it would always come too late for its own turn. What needs
    more cores than are free holds up all behind it, or a model of many threads would starve. A lane that has waited for
    MAX_WAIT_NS goes ahead of more urgent ones, but never twice in a row: the urgent keep every second turn, however
    many others there are. An execution that runs is never interrupted: an urgent batch waits for what runs when it gets
    ready, and for at most one that has waited too long.

    On a GPU the device itself arbitrates, by the priority of its streams (`ModelPriority.of_device_stream`).

`TurnQueue` decides and knows no thread; `Turns` is its lock. Thread: any; the lock is held for microseconds, and
nothing blocks while it is held but the wait for a turn, which lets go of it.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from forebay_server.engines.device import StreamPriority
from forebay_server.service.claim import Claim
from forebay_server.service.clock import Clock
from forebay_server.service.errors import InvariantError

MAX_WAIT_NS = 100_000_000
"""After so long a lane goes ahead once: the least latency budget that a stream has by default."""


@dataclass(frozen=True, slots=True, order=True)
class ModelPriority:
    """Which of the models that share a device goes first: the smaller one.

    Attributes:
        level: -1 for `optimization { priority: PRIORITY_MAX }`, 1 for PRIORITY_MIN, else 0.
        number: of `instance_group { rate_limiter { priority } }`, from 1; decides within a level.
    """

    level: int = 0
    number: int = 1

    @property
    def of_device_stream(self) -> StreamPriority:
        """The same for a device that arbitrates itself, which knows three."""
        if self.level < 0:
            return StreamPriority.HIGH
        return StreamPriority.NORMAL if self == ModelPriority() else StreamPriority.LOW


class Waiting:
    """One lane as the queue sees it.

    Attributes:
        priority: of its model.
        cores: what one execution needs, at least 1.
        since_ns: when it asked; means nothing unless it waits.
    """

    __slots__ = ("cores", "priority", "since_ns")

    def __init__(self, priority: ModelPriority, cores: int) -> None:
        self.priority = priority
        self.cores = cores
        self.since_ns = 0


class TurnQueue:
    """Decides. Never blocks, never reads a clock. Owner: one thread at a time.

    Args:
        cores: of the machine, as far as this process may use them.
    """

    def __init__(self, cores: int) -> None:
        self.cores = cores
        self.free_cores = cores
        self.waiting: list[Waiting] = []
        self._may_go_ahead = True  # nobody just did

    def ask(self, lane: Waiting, now_ns: int, since_ns: int | None = None) -> list[Waiting]:
        """Let a lane wait for its turn, from `since_ns` if that was before; return those whose turn it is now."""
        lane.since_ns = now_ns if since_ns is None else since_ns
        self.waiting.append(lane)
        return self._hand_out(now_ns)

    def give_back(self, lane: Waiting, now_ns: int, *, asks_again: bool = False) -> list[Waiting]:
        """End a lane's turn; return those whose turn it is now."""
        self.free_cores += self.needed(lane)
        if asks_again:
            lane.since_ns = now_ns
            self.waiting.append(lane)
        return self._hand_out(now_ns)

    def give_up(self, lane: Waiting, now_ns: int) -> list[Waiting]:
        """Take a lane out that waits; return those whose turn it is now."""
        self.waiting.remove(lane)
        return self._hand_out(now_ns)

    def needed(self, lane: Waiting) -> int:
        """Return what an execution takes: no more than there is."""
        return min(lane.cores, self.cores)

    def _hand_out(self, now_ns: int) -> list[Waiting]:
        granted: list[Waiting] = []
        while self.waiting:
            urgent = min(self.waiting, key=lambda lane: (lane.priority, lane.since_ns))
            oldest = min(self.waiting, key=lambda lane: lane.since_ns)
            is_ahead = self._may_go_ahead and now_ns - oldest.since_ns >= MAX_WAIT_NS and oldest is not urgent
            first = oldest if is_ahead else urgent
            if self.needed(first) > self.free_cores:
                break
            self._may_go_ahead = not is_ahead
            self.waiting.remove(first)
            self.free_cores -= self.needed(first)
            granted.append(first)
        return granted


class Turn(Waiting):
    """A lane's place among the others. Thread: the lane's execute stage's, but for `grant`, `_wake` and `close`."""

    __slots__ = ("_condition", "_is_asked", "_is_granted", "_turns", "_unserved_since_ns")

    def __init__(self, turns: "Turns", priority: ModelPriority, cores: int, condition: threading.Condition) -> None:
        super().__init__(priority, cores)
        self._turns = turns
        self._condition = condition
        self._is_asked = False
        self._is_granted = False  # and not taken yet
        self._unserved_since_ns: int | None = None  # a wait began then, and ended without an execution

    @property
    def is_needed(self) -> bool:
        """Whether there are lanes of different priority now."""
        return self._turns.are_needed

    @property
    def is_asked(self) -> bool:
        """Whether this lane has asked already, for the batch that comes next. Thread: the lane's."""
        return self._is_asked

    def take(self, claim: Claim) -> bool:
        """Wait until it is this lane's turn. Blocks: until then. Call `give_back` after it.

        Returns:
            False if the former takes the batch back before. The lane still asks: call `give_up` unless it has another.
        """
        queue, clock = self._turns.queue, self._turns.clock
        claim.wake = self._wake
        with self._condition:
            if not self._is_asked:
                self._is_asked = True
                self._turns.tell(queue.ask(self, clock.now_ns(), self._unserved_since_ns))
            while not (claim.is_withdrawn or self._is_granted):
                clock.wait(self._condition, None)
            if claim.is_withdrawn:
                return False
            self._is_asked = self._is_granted = False
            self._unserved_since_ns = None
            return True

    def _wake(self) -> None:
        """Have `take` look at its claim. Thread: the former's. Blocks: while turns are handed out, microseconds."""
        with self._condition:
            self._condition.notify_all()

    def give_back(self, *, has_next: bool) -> None:
        """End the turn, hand the cores on, and ask again if the lane has its next batch ready. Blocks: no."""
        with self._condition:
            self._is_asked = has_next
            now_ns = self._turns.clock.now_ns()
            self._turns.tell(self._turns.queue.give_back(self, now_ns, asks_again=has_next))

    def give_up(self) -> None:
        """Ask no longer, if it did: there is nothing to execute after all. Blocks: no."""
        if not self._is_asked:
            return
        queue = self._turns.queue
        with self._condition:
            end = queue.give_back if self._is_granted else queue.give_up
            self._is_asked = self._is_granted = False
            self._unserved_since_ns = self.since_ns
            self._turns.tell(end(self, self._turns.clock.now_ns()))

    def close(self) -> None:
        """Leave the others, and ask no longer. Idempotent; the lane executes no more. Thread: any, after the lane's."""
        self.give_up()
        self._turns.leave(self)

    def grant(self) -> None:
        """Note that it is this lane's turn. The lock is held."""
        self._is_granted = True
        self._condition.notify_all()


class Turns:
    """All lanes of the machine's cores.

    Args:
        cores: that this process may use.
        clock: time.

    Attributes:
        are_needed: whether there are lanes of different priority. Thread: any reads it.
    """

    def __init__(self, cores: int, clock: Clock) -> None:
        if cores < 1:
            raise InvariantError("a machine without cores")
        self.clock = clock
        self.queue = TurnQueue(cores)
        self.are_needed = False
        self._lock = threading.Lock()
        self._lanes: set[Turn] = set()

    def join(self, priority: ModelPriority, cores: int) -> Turn:
        """Return the turn of a new lane.

        Args:
            priority: of its model.
            cores: that one execution keeps busy; 0 for all.
        """
        turn = Turn(self, priority, cores or self.queue.cores, threading.Condition(self._lock))
        with self._lock:
            self._lanes.add(turn)
            self._compare()
        return turn

    def leave(self, turn: Turn) -> None:
        """Forget a lane."""
        with self._lock:
            self._lanes.discard(turn)
            self._compare()

    def tell(self, granted: Iterable[Waiting]) -> None:
        """Wake the lanes whose turn it is. The lock is held."""
        for turn in granted:
            assert isinstance(turn, Turn)  # noqa: S101 - for mypy: only turns ask here
            turn.grant()

    def _compare(self) -> None:
        self.are_needed = len({turn.priority for turn in self._lanes}) > 1
