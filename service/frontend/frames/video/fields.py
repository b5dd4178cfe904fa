"""Pairs the fields of interlaced H.264 where each field is a unit of its own. Pure.

Two fields make one picture. A source may send both in one unit, or each in its own: standards call both an access
unit. The first field gives no picture; the second one completes it, and the result belongs to the frame with it.

Owner: the worker that has the stream's turn.
"""

import enum

from forebay_server.service.frontend.frames.video.access_unit import AccessUnit


class Part(enum.Enum):
    """The part of a picture that a unit has."""

    WHOLE = "whole"
    FIRST_FIELD = "first field"
    SECOND_FIELD = "second field"


class FieldPairs:
    """See the module.

    Attributes:
        lacks_field: whether the latest unit came where the second field of a picture was due.
    """

    def __init__(self) -> None:
        self.lacks_field = False
        self._first: AccessUnit | None = None

    def take(self, unit: AccessUnit) -> Part:
        """Return the part of the next unit, in the order of the stream."""
        first, self._first = self._first, None
        if first is not None and _are_pair(first, unit):
            self.lacks_field = False
            return Part.SECOND_FIELD
        self.lacks_field = first is not None
        if not unit.parity:
            return Part.WHOLE
        self._first = unit
        return Part.FIRST_FIELD


def _are_pair(first: AccessUnit, second: AccessUnit) -> bool:
    return (
        first.parity + second.parity == 3  # one is the top field, 1, the other the bottom field, 2
        and first.frame_num == second.frame_num
        and first.is_reference == second.is_reference
    )
