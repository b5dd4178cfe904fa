"""A clock for a single thread on which waiting takes no time: it jumps to the awaited time."""

import threading


class VirtualClock:
    """See engines.clock.Clock. A wait for a notification is an error, because no other thread could give one."""

    def __init__(self, start_ns: int = 1_000_000_000) -> None:
        self._now_ns = start_ns

    def now_ns(self) -> int:
        return self._now_ns

    def wait(self, condition: threading.Condition, until_ns: int | None) -> None:
        if until_ns is None:
            raise RuntimeError("deadlock: the only thread waits for another one")
        self.sleep_until(until_ns)

    def sleep_until(self, until_ns: int) -> None:
        self._now_ns = max(self._now_ns, until_ns)

    def advance(self, ns: int) -> None:
        self._now_ns += ns
