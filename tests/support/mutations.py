"""Picture files that almost are some: real and odd ones with a few bytes changed, cut, repeated or exchanged."""

import random
import struct
import zlib

from tests.support import jpegs, pngs

JPEGS = [
    *(odd for odd, _ in jpegs.UNTOUCHED.values()),
    *jpegs.LOST_STRIPS.values(),
    *jpegs.TRUNCATED.values(),
    *(file for file, _ in jpegs.REFUSED.values() if len(file) < 10_000),
    *jpegs.OTHER_KINDS.values(),
]
PNGS = [*pngs.KINDS.values(), *pngs.HARMLESS.values(), *(file for file in pngs.BROKEN.values() if len(file) > 20)]
MARKERS = bytes.fromhex("01 02 c0 c2 c4 d0 d3 d8 d9 da db dd e0 e2 ee fe")


def mutations(files, count, seed):
    """Yield so many files, the same for the same seed."""
    source = random.Random(seed)  # noqa: S311 - the same files each time
    for _ in range(count):
        data = bytearray(source.choice(files))
        for _ in range(source.randint(1, 5)):
            _change(data, files, source)
        yield bytes(data)


def _change(data, files, source):
    at = source.randrange(len(data) + 1)
    match source.randrange(6):
        case 0:
            data[at : at + 1] = source.randbytes(1)
        case 1:
            data[at:at] = source.randbytes(source.randint(1, 6))
        case 2:
            del data[at : at + source.randint(1, 60)]
        case 3:
            data[at : at + 2] = bytes((0xFF, source.choice(MARKERS)))
        case 4:
            other = source.choice(files)
            start = source.randrange(len(other))
            data[at:at] = other[start : start + source.randint(1, 400)]
        case _:
            data[at : at + 1] = bytes(byte ^ 1 << source.randrange(8) for byte in data[at : at + 1])


def with_right_checksums(data):
    """A PNG file whose chunks, as far as there are some, have the checksums that let them through."""
    data, start = bytearray(data), 8
    while start + 12 <= len(data):
        end = start + 8 + struct.unpack_from(">I", data, start)[0]
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[start + 4 : end]))
        start = end + 4
    return bytes(data)
