"""Clients in a process that was forked: gRPC has lost its threads there, so each use raises instead of hanging.

Theory of operation
    A fork copies the memory of gRPC and of the client's loop, and none of their threads. Calls of the child would wait
    for ever, or end it by a signal. So a child of a process that has ever opened a channel refuses to send, receive and
    connect, and closing does nothing: connections belong to the parent. That all channels are closed at the fork is not
    enough: gRPC's own threads end later than they do, and some children waited for ever.

Thread: any.
"""

import os
import weakref

from forebay.client.errors import ForkedClientError

_open: "weakref.WeakSet[object]" = weakref.WeakSet()
_kept: list[object] = []  # in a child: destructors of gRPC's objects must not run there
_was_used = False
_is_unusable = False


def opened(holder: object) -> None:
    """Register a holder of open channels."""
    global _was_used  # noqa: PLW0603  # a property of the process
    _was_used = True
    _open.add(holder)


def is_child() -> bool:
    """Whether this process was forked after its parent had used a client."""
    return _is_unusable


def refuse_in_child() -> None:
    """Raise ForkedClientError if this process was forked after its parent had used a client."""
    if _is_unusable:
        raise ForkedClientError(
            "this process was forked after its parent had used a forebay client, and gRPC does not work in such a "
            'child: start it with multiprocessing.get_context("spawn"), or use clients in the children only'
        )


def _after_fork() -> None:
    global _is_unusable  # noqa: PLW0603  # a property of the process
    _kept.extend(_open)
    _is_unusable = _is_unusable or _was_used


os.register_at_fork(after_in_child=_after_fork)
