"""The memory that requests of one version may hold, where their number alone does not bound it. Values only."""

from forebay_server.service.models.unbound import FRAMES_LIMIT_BYTES
from forebay_server.service.pipeline.multi_row_frames import DEFAULT_LIMIT_BYTES

SLACK_BYTES = 16 << 20  # overhead of a message beside its data: alignment, and Python's memory for strings


def rows_bytes(message_bytes: int) -> int:
    """Return the limit for requests of several rows together: each is in a buffer of up to twice its size.

    Args:
        message_bytes: size of the largest message; one always has room, if no other is there.
    """
    return max(DEFAULT_LIMIT_BYTES, 2 * message_bytes + SLACK_BYTES)


def unbound_bytes(message_bytes: int, processes: int = 1) -> int:
    """Return the limit for requests of varying shapes together, in each of some processes that take them.

    Args:
        message_bytes: size of the largest message; one always has room, if no other is there.
        processes: that share the limit.
    """
    return max(FRAMES_LIMIT_BYTES // processes, message_bytes + SLACK_BYTES)
