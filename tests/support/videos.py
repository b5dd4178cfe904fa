"""Video as access units in Annex B form, made by PyAV, small and always the same; and damaged.

A clip of `levels` shows one grey level in each picture, so that a test can tell which picture a result belongs to.
"""

import random
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from forebay_server.service.frontend.frames.video.bits import without_escapes

ENCODERS = {"h264": "libx264", "hevc": "libx265"}
FASTEST = {"preset": "ultrafast", "tune": "zerolatency"}
SIDE = 64


@dataclass(frozen=True)
class Unit:
    """One access unit: its bytes, the index of its picture in the order of showing, and whether it is a keyframe."""

    data: bytes
    shown: int
    is_keyframe: bool


def level(index):
    """The grey level of a picture."""
    return 40 + index * 9 % 180


def levels(count, size=(SIDE, SIDE)):
    """Pictures of one grey level each, with a little texture so that an encoder has work."""
    width, height = size
    texture = np.random.default_rng(0).integers(-3, 4, (height, width, 1))
    return [np.clip(level(index) + np.repeat(texture, 3, 2), 0, 255).astype(np.uint8) for index in range(count)]


def encode(pictures, codec="h264", *, gop=10, pixel_format="yuv420p", bframes=0, params="", options=None):
    """Encode pictures, shape (height, width, 3), RGB."""
    height, width = pictures[0].shape[:2]
    encoder = av.CodecContext.create(ENCODERS[codec], "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, pixel_format
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25, 1)
    encoder.gop_size, encoder.max_b_frames, encoder.thread_count = gop, bframes, 1
    extra = f"keyint={gop}:min-keyint={gop}:scenecut=0:b-adapt=0:bframes={bframes}:{params}".rstrip(":")
    fastest = {"preset": "ultrafast"} if bframes else FASTEST
    own = {"x264-params": extra} if codec == "h264" else {"x265-params": f"log-level=none:{extra}:pools=none"}
    encoder.options = {**fastest, **own, **(options or {})}
    units = []
    for index, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pixel_format)
        frame.pts = index
        units += encoder.encode(frame)
    units += encoder.encode(None)
    return [Unit(bytes(packet), packet.pts, packet.is_keyframe) for packet in units]


def clip(count=12, codec="h264", size=(SIDE, SIDE), **options):
    """A clip of `levels`."""
    return encode(levels(count, size), codec, **options)


def parameter_sets(unit, codec="h264"):
    """The parameter sets at the head of a keyframe, in Annex B form."""
    parts = unit.data.split(b"\0\0\1")
    kinds = {7, 8} if codec == "h264" else {32, 33, 34}
    kind = (lambda part: part[0] & 31) if codec == "h264" else (lambda part: part[0] >> 1 & 63)
    return b"".join(b"\0\0\1" + part.rstrip(b"\0") for part in parts[1:] if part and kind(part) in kinds)


def without_vui(unit):
    """A unit of H.264 whose sequence parameter set says nothing beyond what it must, as those of many cameras."""
    parts = unit.data.split(b"\0\0\1")
    for index, part in enumerate(parts):
        if part[:1] and part[0] & 31 == 7:
            parts[index] = part[:4] + _cut_before_vui(part[4:])
    return Unit(b"\0\0\1".join(parts), unit.shown, unit.is_keyframe)


def _cut_before_vui(payload):
    """The fields of a set of the Baseline profile after its level, up to vui_parameters_present_flag, which is 0."""
    bits = "".join(f"{byte:08b}" for byte in without_escapes(payload))
    position = 0

    def unsigned():
        nonlocal position
        zeros = bits.index("1", position) - position
        position += 2 * zeros + 1
        return int(bits[position - zeros - 1 : position], 2) - 1

    unsigned()  # number
    unsigned()  # frame_num
    if unsigned() == 0:  # the kind of picture order count
        unsigned()
    unsigned()  # references
    position += 1
    unsigned()  # width
    unsigned()  # height
    assert bits[position] == "1", "fields"
    position += 2
    position += 1
    if bits[position - 1] == "1":
        for _ in range(4):
            unsigned()
    kept = bits[:position] + "01"
    kept += "0" * (-len(kept) % 8)
    return bytes(int(kept[start : start + 8], 2) for start in range(0, len(kept), 8))


def mutated(data, seed):
    """The same bytes with a few of them changed, left out or doubled."""
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    changed = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(changed))
        match rng.randrange(4):
            case 0:
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                changed[at] = rng.randrange(256)
            case 2:
                del changed[at : at + rng.randint(1, 40)]
            case _:
                changed[at:at] = changed[at : at + rng.randint(1, 40)]
        changed = changed or bytearray(1)
    return bytes(changed)
