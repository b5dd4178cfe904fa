"""Whether the next access unit of a stream is decoded, passed by, or refused until a keyframe comes. Pure.

Theory of operation
    A picture can be decoded if all pictures that it needs were. That is so from a keyframe on, for as long as nothing
    is missing. Something is missing when the client skipped a `seq`, when frame_num of H.264 has a gap (a camera's
    packet got lost on its way to the client), when a unit was broken, or when this server gave up decoding because it
    fell behind. Then every unit is refused until the next keyframe: the pictures would be wrong without looking wrong.

    A unit that no other needs is passed by if its own picture is not wanted any more, or while decoding lags. While it
    lags, so are all units of H.265's highest temporal layer, which no lower layer needs. They may need each other, so
    that layer goes on at a unit that needs none before it in its layer, or at a keyframe.

    A keyframe that is not an IDR picture may have *leading* pictures: they are sent after it, shown before it, and may
    need pictures from before it. They are refused where the stream, or its present decoder, was joined there.

Owner: the worker that has the stream's turn.
"""

import enum

from forebay_server.service.frontend.frames.video.access_unit import AccessUnit


class Step(enum.Enum):
    """The treatment of a unit."""

    DECODE = "decode"
    PASS_BY = "pass by"  # noqa: S105
    REFUSE = "refuse"  # it needs a keyframe
    DECODE_AND_REFUSE = "decode and refuse"  # while a gradual refresh goes on


class DecodingOrder:
    """See the module.

    Attributes:
        needs_keyframe: whether units are refused until one comes.
        why: it is needed, or was the last time.
    """

    def __init__(self) -> None:
        self.needs_keyframe = True
        self.why = "the stream has not had a keyframe yet"
        self._is_joined_at_leading = False  # leading pictures of the keyframe that was joined at are refused
        self._refreshing = 0  # units of a gradual refresh that are still wrong
        self._is_without_layer = False  # the highest temporal layer is passed by
        self._step = Step.REFUSE  # of the latest unit
        self._frame_num: int | None = None  # of the latest reference picture of H.264

    def lose(self, why: str = "") -> None:
        """Note that a picture is missing."""
        self.needs_keyframe = True
        self.why = why or "a frame is missing or broken"
        self._refreshing = 0

    def changes_decoder(self, keyframe: AccessUnit) -> None:
        """Note that a new decoder begins at the latest unit: leading pictures of it lack pictures from before it."""
        self._is_joined_at_leading = keyframe.may_lead

    def second_field(self) -> Step:
        """Return the treatment of a unit that completes the picture of the latest one: the same."""
        return Step.REFUSE if self.needs_keyframe else self._step

    def judge(self, unit: AccessUnit, *, is_next: bool, is_wanted: bool, is_lagging: bool = False) -> Step:
        """Return the treatment of a unit.

        Args:
            unit: the next one in the order of the stream.
            is_next: whether the client left out none before it.
            is_wanted: whether the result of its picture is.
            is_lagging: whether units are passed by that no other needs.
        """
        self._look_for_gap(unit, is_next=is_next)
        self._step = self._judged(unit, is_wanted=is_wanted, is_lagging=is_lagging)
        return self._step

    def _look_for_gap(self, unit: AccessUnit, *, is_next: bool) -> None:
        if not unit.is_keyframe and not (is_next and self._has_no_gap(unit)):
            if not self.needs_keyframe:
                self.lose("frames are missing")
            self._refreshing = 0
        if unit.frame_num is not None and unit.is_reference:
            self._frame_num = unit.frame_num

    def _judged(self, unit: AccessUnit, *, is_wanted: bool, is_lagging: bool) -> Step:
        if unit.is_keyframe:
            return self._join(unit)
        if self.needs_keyframe:
            return self._refuse_or_refresh(unit)
        if self._is_joined_at_leading and unit.is_leading:
            return Step.REFUSE
        self._is_joined_at_leading = False
        if self._refreshing:
            self._refreshing -= 1
            return Step.DECODE_AND_REFUSE if self._refreshing else Step.DECODE
        if self._is_of_left_out_layer(unit, is_lagging=is_lagging):
            return Step.PASS_BY
        return Step.DECODE if unit.is_reference or (is_wanted and not is_lagging) else Step.PASS_BY

    def _is_of_left_out_layer(self, unit: AccessUnit, *, is_lagging: bool) -> bool:
        if not unit.is_highest_layer:
            return False
        if self._is_without_layer:
            self._is_without_layer = is_lagging or not unit.begins_layer
        elif is_lagging:
            self._is_without_layer = unit.is_reference
        return self._is_without_layer

    def _join(self, unit: AccessUnit) -> Step:
        self._is_joined_at_leading = self.needs_keyframe and unit.may_lead
        self._is_without_layer = False
        self.needs_keyframe = False
        self._refreshing = 0
        return Step.DECODE

    def _refuse_or_refresh(self, unit: AccessUnit) -> Step:
        if unit.recovery_units is None:
            return Step.REFUSE
        self.needs_keyframe = False
        self._refreshing = unit.recovery_units
        return Step.DECODE_AND_REFUSE if self._refreshing else Step.DECODE

    def _has_no_gap(self, unit: AccessUnit) -> bool:
        sequence = unit.sequence
        if unit.frame_num is None or self._frame_num is None or sequence is None or sequence.may_have_gaps:
            return True
        following = (self._frame_num + 1) % (1 << sequence.frame_num_bits)
        return unit.frame_num in {self._frame_num, following}
