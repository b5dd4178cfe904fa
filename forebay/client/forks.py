"""Clients in a process that was forked: gRPC has lost its threads there, so each use raises instead of hanging.

Theory of operation
    A fork copies the memory of gRPC and of the client's loop, and none of their threads. Calls of the child would wait
    for ever, or end it by a signal. So each holder of a channel is registered while it has one. If there is any at a
    fork, the child refuses to send, receive and connect, and closing does nothing: connections belong to the parent.
    Without an open channel at the fork the child may make clients of its own.

Thread: any.
"""

import os
import weakref

from forebay.client.errors import ForkedClientError

_open: "weakref.WeakSet[object]" = weakref.WeakSet()
_kept: list[object] = []  # in a child: destructors of gRPC's objects must not run there
_is_unusable = False


def opened(holder: object) -> None:
    """Register a holder of open channels."""
    _open.add(holder)


def closed(holder: object) -> None:
    """Forget a holder, whose channels are closed."""
    _open.discard(holder)


def is_child() -> bool:
    """Whether this process was forked while a client was open."""
    return _is_unusable


def refuse_in_child() -> None:
    """Raise ForkedClientError if this process was forked while a client was open."""
    if _is_unusable:
        raise ForkedClientError(
            "this process was forked while its parent had an open forebay client, and gRPC does not work in such a "
            'child: start it with multiprocessing.get_context("spawn"), or close the client before the fork and make '
            "one in the child"
        )


def _after_fork() -> None:
    global _is_unusable  # noqa: PLW0603  # a property of the process
    _kept.extend(_open)
    _is_unusable = _is_unusable or bool(_kept)


os.register_at_fork(after_in_child=_after_fork)
