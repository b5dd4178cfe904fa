"""A lock, and a way to wait for a change of what it guards, that an interrupt cannot leave locked.

Theory of operation
    `threading.Condition` takes its lock in Python code. A KeyboardInterrupt between the taking and the `with` block
    leaves it taken for ever, and the next thread that needs it never comes back. A `with` statement on a lock that is
    written in C has no such instant. A waiter guards nothing, so an interrupt while it is acquired does no harm.
"""

import threading


class Monitor:
    """See the module's theory of operation.

    Attributes:
        lock: take it in a `with` statement. A thread may take it several times.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._waiters: set[threading.Lock] = set()

    def subscribe(self) -> threading.Lock:
        """Return a taken lock, which the next change releases. Call with `lock` held; acquire it without.

        Who stops waiting earlier says so by `unsubscribe`; an interrupted one is forgotten at the next change.
        """
        waiter = threading.Lock()
        waiter.acquire()
        self._waiters.add(waiter)
        return waiter

    def unsubscribe(self, waiter: threading.Lock) -> None:
        """Forget a waiter, if the change has not come. Thread: any."""
        with self.lock:
            self._waiters.discard(waiter)

    def notify_all(self) -> None:
        """Wake all who wait for a change. Call with `lock` held.

        A waiter is released before it is forgotten, so that an interrupt in between loses nobody's wake-up.
        """
        for waiter in self._waiters:
            if waiter.locked():  # otherwise released by a call that was interrupted
                waiter.release()
        self._waiters.clear()
