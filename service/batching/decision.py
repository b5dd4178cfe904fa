"""The decisions of a policy. Decisions carry request ids, never counts or positions: their meaning cannot shift."""

from typing import NamedTuple


class Form(NamedTuple):
    """Send a batch now.

    Attributes:
        ids: requests in the order of their rows.
        rows: sum of their sizes.
        executed_rows: rows that the engine runs, padding included.
        lane_index: the lane that takes it.
        shed_ids: requests given up for it: they cannot be served in time any more.
    """

    ids: tuple[int, ...]
    rows: int
    executed_rows: int
    lane_index: int
    shed_ids: tuple[int, ...] = ()


class Shed(NamedTuple):
    """Give up requests that cannot be served in time any more, and ask again."""

    ids: tuple[int, ...]


class WaitUntil(NamedTuple):
    """Nothing to do before `instant_ns` unless something happens; `is_binding` if a batch is due then."""

    instant_ns: int
    is_binding: bool = False


class Idle(NamedTuple):
    """Nothing to do until something happens."""


Decision = Form | Shed | WaitUntil | Idle
IDLE = Idle()
