"""Places of any size in a fixed area: blocks of powers of two, which are split and joined again. Pure.

A block of 2^k units lies at a multiple of 2^k, so that the other half of a block that was split is at the same place
with one bit changed. A free block is joined with its other half as soon as that is free too.

Owner: the calling thread, one at a time.
"""


class Blocks:
    """See the module.

    Args:
        units: size of the area.
    """

    def __init__(self, units: int) -> None:
        self.units = units
        self._free: list[dict[int, None]] = [{} for _ in range(units.bit_length())]  # places by order, newest last
        place = 0
        for order in reversed(range(units.bit_length())):  # largest first: each lies at a multiple of its size
            if units >> order & 1:
                self._free[order][place] = None
                place += 1 << order

    @property
    def largest(self) -> int:
        """The largest block that there can be."""
        return 1 << (self.units.bit_length() - 1) if self.units else 0

    def take(self, units: int) -> int | None:
        """Return the place of a free block of at least `units` units, at least 1; None if there is none now."""
        order = (units - 1).bit_length()
        for larger in range(order, len(self._free)):
            if self._free[larger]:
                place, _ = self._free[larger].popitem()
                for half in reversed(range(order, larger)):
                    self._free[half][place + (1 << half)] = None
                return place
        return None

    def give_back(self, place: int, units: int) -> None:
        """Free a block that `take(units)` returned."""
        order = (units - 1).bit_length()
        while (other := place ^ (1 << order)) in self._free[order]:
            del self._free[order][other]
            place &= other
            order += 1
        self._free[order][place] = None
