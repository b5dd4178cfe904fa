"""Notices a missing slice of H.265 by the slices of the pictures before. Pure, except that it remembers them.

A picture may be coded in several slices, each of which says at which block it begins and not where it ends. libavcodec
decodes a picture without one of them, and says nothing. Encoders that divide pictures by rows divide all alike, so a
picture that lacks some of the places at which slices began in the pictures before it has lost these slices. Encoders
that divide by bytes begin slices elsewhere in each picture: there nothing is known.

Owner: the worker that has the stream's turn.
"""

ALIKE = 2  # pictures with slices at the same places before this means anything


class SliceLayout:
    """See the module."""

    __slots__ = ("_alike", "_places")

    def __init__(self) -> None:
        self._places: tuple[int, ...] = ()
        self._alike = 0

    def lacks_slices(self, places: tuple[int, ...]) -> bool:
        """Whether a picture lacks slices; `places` are the blocks at which its slices begin.

        A second picture with the same places is believed: the encoder has changed.
        """
        if places == self._places:
            self._alike += 1
            return False
        is_part = self._alike >= ALIKE and set(places) < set(self._places)
        self._places, self._alike = places, 1
        return is_part
