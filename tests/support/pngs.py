"""PNG files: every kind of pixel, and about fifty that libpng has something to say about."""

import struct
import zlib

import cv2
import numpy as np

WIDTH, HEIGHT = 21, 13
SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def chunk(kind, content=b""):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def header(colour=2, depth=8, interlace=0, size=(WIDTH, HEIGHT), methods=(0, 0)):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, *methods, interlace))


def rows(colour=2, depth=8, interlace=0, size=(WIDTH, HEIGHT), filters=5):
    """The rows of a random picture before compression, with every filter in turn."""
    random = np.random.default_rng(colour * 100 + depth)
    out = []
    for x, y, dx, dy in ADAM7 if interlace else ((0, 0, 1, 1),):
        columns, lines = -(-(size[0] - x) // dx), -(-(size[1] - y) // dy)
        nbytes = (columns * CHANNELS[colour] * depth + 7) // 8
        if columns > 0:
            out += [bytes((line % filters,)) + random.bytes(nbytes) for line in range(lines)]
    return b"".join(out)


def palette(entries):
    return chunk(b"PLTE", np.random.default_rng(3).bytes(3 * entries))


def file(*chunks):
    return b"".join((SIGNATURE, *chunks, chunk(b"IEND")))


def png(colour=2, depth=8, interlace=0, *extra):
    parts = [header(colour, depth, interlace), *extra]
    if colour == 3:
        parts.append(palette(1 << depth))
    data = zlib.compress(rows(colour, depth, interlace))
    return file(*parts, chunk(b"IDAT", data[:50]), chunk(b"IDAT", data[50:]))


KINDS = {
    f"colour type {colour}, {depth} bits{', interlaced' * interlace}": png(colour, depth, interlace)
    for colour, depths in DEPTHS.items()
    for depth in depths
    for interlace in (0, 1)
}

_HEAD, _DATA, _IDAT = header(), zlib.compress(rows()), chunk(b"IDAT", zlib.compress(rows()))
_GREY_HEAD, _GREY = header(0), chunk(b"IDAT", zlib.compress(rows(0)))
_INDEXED_HEAD, _INDEXED = header(3), chunk(b"IDAT", zlib.compress(rows(3)))
_CONTROL = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, WIDTH, HEIGHT, 0, 0, 1, 10, 0, 0))

HARMLESS = {
    "gAMA of 0": file(_HEAD, chunk(b"gAMA", bytes(4)), _IDAT),
    "gAMA of 3 bytes": file(_HEAD, chunk(b"gAMA", bytes(3)), _IDAT),
    "gAMA twice": file(_HEAD, *[chunk(b"gAMA", struct.pack(">I", 45455))] * 2, _IDAT),
    "cHRM of zeros": file(_HEAD, chunk(b"cHRM", bytes(32)), _IDAT),
    "sRGB of 9": file(_HEAD, chunk(b"sRGB", b"\x09"), _IDAT),
    "sBIT of 99": file(_HEAD, chunk(b"sBIT", b"\x63\x63\x63"), _IDAT),
    "sBIT too long": file(_HEAD, chunk(b"sBIT", bytes(9)), _IDAT),
    "iCCP without a profile": file(_HEAD, chunk(b"iCCP", b"name\0\0"), _IDAT),
    "iCCP with a broken profile": file(_HEAD, chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(200))), _IDAT),
    "iCCP that cannot be inflated": file(_HEAD, chunk(b"iCCP", b"name\0\0garbage"), _IDAT),
    "iCCP without a name": file(_HEAD, chunk(b"iCCP", b"\0\0" + zlib.compress(bytes(200))), _IDAT),
    "tEXt without a keyword": file(_HEAD, chunk(b"tEXt", b"\0text"), _IDAT),
    "zTXt that cannot be inflated": file(_HEAD, chunk(b"zTXt", b"key\0\0garbage"), _IDAT),
    "iTXt cut": file(_HEAD, chunk(b"iTXt", b"key\0\1"), _IDAT),
    "text that would forge a line of a log": file(_HEAD, chunk(b"tEXt", b'\n{"level": "error"}\n\x1b[31m'), _IDAT),
    "tIME of month 99": file(_HEAD, chunk(b"tIME", struct.pack(">HBBBBB", 2026, 99, 99, 99, 99, 99)), _IDAT),
    "tIME too short": file(_HEAD, chunk(b"tIME", b"\0"), _IDAT),
    "pHYs too short": file(_HEAD, chunk(b"pHYs", b"\0"), _IDAT),
    "oFFs too short": file(_HEAD, chunk(b"oFFs", b"\0"), _IDAT),
    "sCAL of nonsense": file(_HEAD, chunk(b"sCAL", b"\1-1\0-1"), _IDAT),
    "pCAL of nonsense": file(_HEAD, chunk(b"pCAL", b"x" * 20), _IDAT),
    "bKGD too long": file(_HEAD, chunk(b"bKGD", bytes(9)), _IDAT),
    "hIST without a palette": file(_HEAD, chunk(b"hIST", bytes(4)), _IDAT),
    "tRNS too long": file(_HEAD, chunk(b"tRNS", bytes(40)), _IDAT),
    "tRNS beside alpha": png(6, 8, 0, chunk(b"tRNS", bytes(6))),
    "tRNS before the palette": png(3, 8, 0, chunk(b"tRNS", bytes(6))),
    "eXIf of nonsense": file(_HEAD, chunk(b"eXIf", b"nonsense"), _IDAT),
    "sPLT of nonsense": file(_HEAD, chunk(b"sPLT", b"x\0\7y"), _IDAT),
    "cICP too short": file(_HEAD, chunk(b"cICP", b"\1"), _IDAT),
    "acTL of nonsense": file(_HEAD, chunk(b"acTL", b"\0"), _IDAT),
    "acTL without frames": file(_HEAD, chunk(b"acTL", struct.pack(">II", 5, 0)), _IDAT),
    "fdAT that cannot be inflated": file(
        _HEAD, chunk(b"acTL", struct.pack(">II", 2, 0)), _CONTROL, _IDAT, _CONTROL, chunk(b"fdAT", bytes(9))
    ),
    "a palette beside true colour": file(_HEAD, chunk(b"PLTE", bytes(10)), _IDAT),
    "a palette beside grey": file(_GREY_HEAD, chunk(b"PLTE", bytes(9)), _GREY),
    "a palette shorter than its indices": file(_INDEXED_HEAD, palette(9), _INDEXED),
    "more data than pixels": file(_HEAD, chunk(b"IDAT", zlib.compress(rows() + bytes(500)))),
    "bytes after the end of the data": file(_HEAD, chunk(b"IDAT", _DATA + b"garbage")),
    "a chunk after the data": file(_HEAD, _IDAT, chunk(b"gAMA", bytes(4))),
    "an unknown chunk": file(_HEAD, chunk(b"abCd", b"x"), _IDAT),
    "bytes after IEND": png() + b"garbage",
}
"""Files with all of their pixels, and something that libpng prints about or might."""

BROKEN = {
    "no palette": file(_INDEXED_HEAD, _INDEXED),
    "an empty palette": file(_INDEXED_HEAD, chunk(b"PLTE"), _INDEXED),
    "a palette of 10 bytes": file(_INDEXED_HEAD, chunk(b"PLTE", bytes(10)), _INDEXED),
    "a palette of 300 entries": file(_INDEXED_HEAD, palette(300), _INDEXED),
    "two palettes": file(_INDEXED_HEAD, palette(256), palette(256), _INDEXED),
    "no data": file(_HEAD),
    "data that cannot be inflated": file(_HEAD, chunk(b"IDAT", b"garbage")),
    "data cut": file(_HEAD, chunk(b"IDAT", _DATA[: len(_DATA) // 2])),
    "data with a wrong checksum": file(_HEAD, chunk(b"IDAT", _DATA[:-4] + b"abcd")),
    "fewer rows than the header says": file(_HEAD, chunk(b"IDAT", zlib.compress(rows()[:-70]))),
    "data with a preset dictionary": file(_HEAD, chunk(b"IDAT", b"\x78\xbb" + bytes(20))),
    "a filter of 5": file(_HEAD, chunk(b"IDAT", zlib.compress(b"\5" + rows()[1:]))),
    "a filter of 255 in the last row": file(
        _HEAD, chunk(b"IDAT", zlib.compress(rows(filters=256)[:-64] + b"\xff" * 64))
    ),
    "a filter of 5 in a late pass": file(
        header(interlace=1), chunk(b"IDAT", zlib.compress(rows(interlace=1)[:-64] + b"\5" * 64))
    ),
    "colour type 5": file(header(2), _IDAT).replace(header(2), header(2)[:17] + b"\5" + header(2)[18:]),
    "3 bits": file(header(2, 3), _IDAT),
    "a palette of 16 bits": file(header(3, 16), palette(256), _INDEXED),
    "compression method 1": file(header(methods=(1, 0)), _IDAT),
    "filter method 64": file(header(methods=(0, 64)), _IDAT),
    "interlace method 2": file(header(interlace=2), _IDAT),
    "wider than libpng reads": file(header(0, 1, size=(1_000_001, 1)), chunk(b"IDAT", zlib.compress(bytes(125_002)))),
    "a header of 14 bytes": SIGNATURE + chunk(b"IHDR", header()[8:21] + b"\0") + _IDAT + chunk(b"IEND"),
    "a wrong checksum": png()[:60] + b"\0\0" + png()[62:],
    "no IEND": png()[:-12],
    "cut in a chunk": png()[:-30],
    "a chunk of 90 MB": SIGNATURE + _HEAD + b"\x05\x5f\xff\xffIDAT",
    "only a signature": SIGNATURE,
    "nothing": b"",
}


def by_opencv(data):
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
