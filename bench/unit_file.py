"""Access units of video in a file: before each its length, 4 bytes, the highest first. For load in other processes."""

from collections.abc import Iterable
from pathlib import Path

_LENGTH_BYTES = 4


def write_units(path: Path, units: Iterable[bytes]) -> None:
    """Write access units to a new file."""
    path.write_bytes(b"".join(len(unit).to_bytes(_LENGTH_BYTES, "big") + unit for unit in units))


def read_units(path: Path) -> list[bytes]:
    """Return the access units of a file."""
    data = path.read_bytes()
    units, position = [], 0
    while position < len(data):
        begin = position + _LENGTH_BYTES
        position = begin + int.from_bytes(data[position:begin], "big")
        units.append(data[begin:position])
    return units
