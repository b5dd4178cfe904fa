"""The treatment of each unit by all that decides on it: its fields, the lag of its stream, and the order. Pure.

Owner: the worker that has the stream's turn.
"""

from forebay_server.service.frontend.frames.video.access_unit import AccessUnit
from forebay_server.service.frontend.frames.video.fields import FieldPairs, Part
from forebay_server.service.frontend.frames.video.lag import Effort, Lag
from forebay_server.service.frontend.frames.video.order import DecodingOrder, Step

_BEHIND = "decoding fell behind"


class Treatment:
    """See the module.

    Args:
        order: of the stream's units.
        budget_ns: the latency budget of a LATEST stream, 0 without one; None for an EVERY stream, which decodes all.
    """

    def __init__(self, order: DecodingOrder, budget_ns: int | None) -> None:
        self._order = order
        self._fields = FieldPairs()
        self._lag = None if budget_ns is None else Lag(budget_ns)

    def judge(
        self, unit: AccessUnit, *, is_next: bool, is_wanted: bool, is_new: bool, waited_ns: int, now_ns: int
    ) -> tuple[Step, Part]:
        """Return the treatment of a unit, and its part of a picture.

        Args:
            unit: the next one in the order of the stream.
            is_next: whether the client left out none before it.
            is_wanted: whether the result of its picture is.
            is_new: it has other parameter sets than the one before: the decoder has to see them.
            waited_ns: for which it waited for a worker.
            now_ns: present time.
        """
        part = self._fields.take(unit)
        is_next = is_next and not self._fields.lacks_field
        if part is Part.SECOND_FIELD and is_next:
            return self._order.second_field(), part
        effort = Effort.ALL if is_new else self._effort(unit, waited_ns, now_ns)
        if effort is Effort.NONE:
            self._order.lose(_BEHIND)
            return Step.REFUSE, part
        is_wanted = is_wanted or part is Part.FIRST_FIELD
        is_lagging = effort is Effort.NEEDED
        return self._order.judge(unit, is_next=is_next, is_wanted=is_wanted, is_lagging=is_lagging), part

    def _effort(self, unit: AccessUnit, waited_ns: int, now_ns: int) -> Effort:
        """Return how much is decoded from a unit on. Units that need a keyframe do not count: they are not decoded."""
        if self._lag is None or (self._order.needs_keyframe and not unit.is_keyframe):
            return Effort.ALL
        return self._lag.effort(waited_ns, now_ns, is_keyframe=unit.is_keyframe)
