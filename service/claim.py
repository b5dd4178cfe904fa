"""The right to a bound batch's requests: either its lane has it, or the former that takes them back.

One test-and-set decides.

Theory of operation
    A batch that is bound waits in its lane until the batches in front of it are done, which may take longer than
    predicted. Until its execution starts the former may take it back (`withdraw`): then its requests belong to the
    former again, and the lane passes the empty batch on to free its slot.

        free -> held -> free        the upload reads the requests' frames, on the host and to its end
        free -> started             execution starts, or an upload that reads the frames after the call has returned
        free -> withdrawn           the former has the requests back

    Each move is one non-blocking acquisition of one lock, so exactly one side gets the batch. `started` and `withdrawn`
    are final. The former's attempt fails while the claim is held; it looks again later. The lane's attempts fail only
    if the batch was withdrawn: its stages work on a batch one after the other.

Thread: `withdraw` by the former, all else by the stage that has the batch. Blocks: never.
"""

import threading


class Claim:
    """See the module's theory of operation.

    Attributes:
        is_started: the lane has the requests for good. Written by the lane alone; a lane whose batch is not started at
            its end has lost it to the former. The former reads it as a hint.
    """

    __slots__ = ("_lock", "is_started")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.is_started = False

    def hold(self) -> bool:
        """Keep the former from the requests until `let_go`; return False if it has taken them back."""
        return self.is_started or self._lock.acquire(blocking=False)

    def let_go(self) -> None:
        """End `hold`."""
        if not self.is_started:
            self._lock.release()

    def start(self) -> bool:
        """Take the requests for good; False if the former has taken them back. Idempotent."""
        if not self.is_started:
            self.is_started = self._lock.acquire(blocking=False)
        return self.is_started

    def withdraw(self) -> bool:
        """Take the requests back; False while they are held and once execution has started."""
        return self._lock.acquire(blocking=False)
