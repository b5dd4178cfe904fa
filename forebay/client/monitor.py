"""A lock with a wait for changes of the guarded data; an interrupt cannot leave it locked.

Theory of operation
    `threading.Condition` takes its lock in Python code. A KeyboardInterrupt between the acquisition and the `with`
    block leaves the lock taken for ever, and the next thread that needs it waits for ever. A `with` statement on a lock
    that is written in C has no such gap. A waiter guards no data, so an interrupt while it is acquired does no harm.
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
        """Return a taken lock, which the next change releases. Call with `lock` held; acquire the result without it.

        A caller that stops waiting earlier calls `unsubscribe`; the waiter of an interrupted caller is removed at the
        next change.
        """
        waiter = threading.Lock()
        waiter.acquire()
        self._waiters.add(waiter)
        return waiter

    def unsubscribe(self, waiter: threading.Lock) -> None:
        """Remove a waiter, if the change has not come. Thread: any."""
        with self.lock:
            self._waiters.discard(waiter)

    def notify_all(self) -> None:
        """Wake all waiters. Call with `lock` held.

        A waiter is released before it is removed, so an interrupt in between loses no wake-up.
        """
        for waiter in self._waiters:
            if waiter.locked():  # otherwise an interrupted call has released it
                waiter.release()
        self._waiters.clear()
