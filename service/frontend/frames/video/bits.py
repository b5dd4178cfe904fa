"""Reads the bits of a NAL unit's header fields: fixed lengths and Exp-Golomb codes. Pure.

Thread: one at a time.
"""

_LONGEST_ZEROS = 31  # leading zero bits of the longest Exp-Golomb code that a field of 32 bits can need


class BitsEndError(Exception):
    """The unit ends before the field does, or a code is longer than any field."""


def without_escapes(data: bytes) -> bytes:
    """Return the payload of a NAL unit: every 00 00 03 becomes 00 00."""
    return data.replace(b"\0\0\3", b"\0\0")


class Bits:
    """A position in bytes, most significant bit first.

    Args:
        data: without escapes.
    """

    __slots__ = ("_end", "_position", "_value")

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._end = 8 * len(data)
        self._position = 0

    def read(self, count: int) -> int:
        """Return the next `count` bits. Raises BitsEndError."""
        position = self._position + count
        if position > self._end:
            raise BitsEndError
        self._position = position
        return self._value >> (self._end - position) & ((1 << count) - 1)

    def flag(self) -> bool:
        """Return the next bit. Raises BitsEndError."""
        return bool(self.read(1))

    def skip(self, count: int) -> None:
        """Go on by `count` bits. Raises BitsEndError."""
        self.read(count)

    def unsigned(self) -> int:
        """Return the next unsigned Exp-Golomb code. Raises BitsEndError."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > _LONGEST_ZEROS:
                raise BitsEndError
        return (1 << zeros) - 1 + self.read(zeros)

    def signed(self) -> int:
        """Return the next signed Exp-Golomb code. Raises BitsEndError."""
        code = self.unsigned()
        return (code + 1) // 2 if code % 2 else -(code // 2)
