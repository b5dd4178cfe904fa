"""Which streams a server asks to go to others. Pure.

The heaviest that is not more than the load that is too much, again and again; where every stream is more than that, one
of the lightest. A heavier one would have its next server ask in turn. Those with tracks or video come last, since
another server has to be given their state, or waits for a keyframe.
"""

import math
from collections.abc import Sequence

Weight = tuple[bool, float]
"""Whether a stream has such state, and its load: share of one instance's time."""
ROUNDING = 1e-9


def chosen(weights: Sequence[Weight], count: int, surplus: float = math.inf) -> list[int]:
    """Return the places of the streams to ask, in the order of asking: at least one, where there is one.

    Args:
        weights: of the streams that can be asked.
        count: of streams, at most.
        surplus: load that they should have together; without it the heaviest are asked.
    """
    left = sorted(range(len(weights)), key=lambda place: (weights[place][0], -weights[place][1]))
    if math.isinf(surplus):
        return left[:count]
    found: list[int] = []
    while left and len(found) < count:
        place = next((each for each in left if weights[each][1] <= surplus + ROUNDING), None)
        if place is None or (found and surplus <= ROUNDING):
            break
        left.remove(place)
        found.append(place)
        surplus -= weights[place][1]
    return found or [_lightest(weights, left)] if left and count else found


def _lightest(weights: Sequence[Weight], places: Sequence[int]) -> int:
    return min(places, key=lambda place: weights[place])
