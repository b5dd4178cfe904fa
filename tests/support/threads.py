"""Which threads a test has left behind."""

import re
import threading

# Daemon threads inside gRPC that outlive the object they serve by design; each is named after its target function.
GRPC_INTERNALS = re.compile(r"\((?:_poll_wrapper|_poll_connectivity|channel_spin)\)$")


def leaked_threads(before: set[threading.Thread], grace_s: float = 2.0) -> list[threading.Thread]:
    """Return the threads that are alive now and were not in `before`, each joined for up to `grace_s` seconds.

    The grace is for threads that were asked to end and are ending; a leaked one costs it once.
    """
    left = [t for t in threading.enumerate() if t not in before and not GRPC_INTERNALS.search(t.name)]
    for thread in left:
        if thread is not threading.current_thread():
            thread.join(grace_s)
    return [thread for thread in left if thread.is_alive()]
