"""JPEG to pixels, as libjpeg-turbo decodes it: a whole picture is accepted with any warning.

An incomplete one is refused.

libjpeg fills missing data with grey and only warns, so its warnings must be distinguished. simplejpeg raises for the
first one, after it has written the pixels, and does not report later ones. ADR 0088 has the rules and their reasons.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.frames.decode.image_size import check_size
from forebay_server.service.frontend.frames.decode.jpeg_layout import (
    END,
    Buffer,
    Head,
    end_of_data,
    has_end,
    mend,
    read_head,
    restarts_missing_at_end,
)
from forebay_server.service.pictures.geometry import placement_of
from forebay_server.service.pictures.picture_input import PictureInput

Pixels = NDArray[np.uint8]

_TRUNCATED = re.compile(r"[Pp]remature end|found marker 0xd9 instead of RST")
_CORRUPT = re.compile(r"bad (Huffman|arithmetic) code")
_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_HARMLESS = re.compile(r"extraneous bytes before marker|instead of RST|Invalid SOS parameters")
_REASON = re.compile(r"^(?:tj\w+\(\): |Corrupt JPEG data: )?")  # libjpeg's own message comes after it

_MAX_STRAY_BYTES = 16
"""Cameras leave up to ten stray bytes before a marker; a decoder that lost its place leaves dozens at the end."""

_NOISE = hashlib.shake_128(b"any").digest(512).replace(b"\xff", b"\xfe")
_MORE_DATA = b"".join(_NOISE[64 * number : 64 * number + 64] + bytes((0xFF, 0xD0 + number)) for number in range(8))
"""Data with which a decoder continues that lacks some: all restart numbers, so that one of them is the awaited one.

Noise, because the picture must change: of 7,000 cuts in the last intervals of 7 pictures it showed all, while regular
bytes left up to 12 undetected.
"""

TRUNCATED = "JPEG is truncated: its data ends before the picture does; send the whole file"
CORRUPT = "JPEG is broken: bytes of its compressed data have changed; send the file again"


@dataclass(frozen=True, slots=True)
class _Form:
    """The wanted pixels.

    Attributes:
        order: of the channels.
        least: (width, height) that the decoded picture must cover if the file does; (0, 0) decodes it whole.
    """

    order: Literal["RGB", "BGR"]
    least: tuple[int, int] = (0, 0)


def decode_jpeg(file: Buffer, picture: PictureInput, max_pixels: int) -> tuple[Pixels, tuple[int, int]]:
    """Decode a JPEG file whole, or, where the model allows it, at the smallest of libjpeg's scales that is enough.

    Args:
        file: the whole file; borrowed.
        picture: of the model; one that is grey gets BGR.
        max_pixels: larger pictures are refused before they are decoded.

    Returns:
        shape (height, width, 3), uint8, a fresh array; and (width, height) of the picture as sent.

    Raises:
        InvalidRequestError: the file is not a decodable JPEG, or does not contain a whole picture.
    """
    head = read_head(file)
    check_size("JPEG", head.size, max_pixels)
    if head.precision != 8:
        raise InvalidRequestError(f"JPEG has {head.precision} bits a sample; send it with 8")
    if head.is_odd:
        file = mend(file, head)
        head = read_head(file)
    if not head.is_single_scan and end_of_data(file, head) is None:
        raise InvalidRequestError(TRUNCATED)
    if not has_end(file, head):
        file = bytes(file) + END
    least = placement_of(picture, head.size).resized if picture.jpeg_scale == "fast" else (0, 0)
    form = _Form("RGB" if picture.color_order == "RGB" else "BGR", least)
    return _decode(file, head, form), head.size


def _decode(file: Buffer, head: Head, form: _Form) -> Pixels:
    pixels = np.empty((*_scaled(head.size, form), 3), np.uint8)
    try:
        return _simplejpeg(file, form, strict=True, buffer=pixels)
    except ValueError as error:
        warning = str(error)
    if not _HARMLESS.search(warning) or _TRUNCATED.search(warning):
        raise _refusal(warning)
    if head.components == 4:  # simplejpeg converts CMYK after the place where it raises
        pixels = _decode_with_warnings(file, form)
    found = _LEFT_OVER.search(warning)
    if not _has_its_end(file, head, int(found[1]) if found else 0) and _wants_more(file, head, form, pixels):
        raise InvalidRequestError(TRUNCATED)
    return pixels


def _has_its_end(file: Buffer, head: Head, left_over: int) -> bool:
    """Whether the data surely reaches the end of the picture; False if only decoding more data can show it.

    Args:
        file: for which libjpeg had a harmless warning.
        head: of the file.
        left_over: bytes that libjpeg skipped before the end marker.

    Raises:
        InvalidRequestError: intervals are missing at the end, or the decoder has lost its place.
    """
    if not head.restart_interval and _has_lost_its_place(file, head, left_over):
        raise InvalidRequestError(CORRUPT)
    if not (head.restart_interval and head.is_single_scan):
        return False
    missing = restarts_missing_at_end(file, head)
    if missing > 1 or (missing == 1 and left_over <= _MAX_STRAY_BYTES):
        raise InvalidRequestError(TRUNCATED)
    return missing == 1  # the last interval is there, behind a marker that was lost


def _scaled(size: tuple[int, int], form: _Form) -> tuple[int, int]:
    """(height, width) that simplejpeg decodes to: all of it, or the smallest eighths that cover the wanted size."""
    if form.least == (0, 0):
        return size[1], size[0]
    least_width, least_height = min(size[0], form.least[0]), min(size[1], form.least[1])
    for eighths in range(1, 8):
        width, height = -(-size[0] * eighths // 8), -(-size[1] * eighths // 8)
        if width >= least_width and height >= least_height:
            return height, width
    return size[1], size[0]


def _simplejpeg(file: Buffer, form: _Form, *, strict: bool, buffer: Pixels | None = None) -> Pixels:
    least_width, least_height = form.least
    pixels = simplejpeg.decode_jpeg(
        file,
        form.order,
        min_height=least_height,
        min_width=least_width,
        min_factor=1,
        buffer=buffer,
        strict=strict,
    )
    return cast("Pixels", pixels)


def _wants_more(file: Buffer, head: Head, form: _Form, pixels: Pixels) -> bool:
    """Whether data added at the end changes the picture: then libjpeg has invented its last part.

    This costs a second decoding, only for files with a warning inside their data.
    """
    end = end_of_data(file, head)
    data = bytes(file[:end]).rstrip(b"\xff")  # these are no data, and would form a marker with the added bytes
    longer = b"".join((data, _MORE_DATA, END))
    return not np.array_equal(pixels, _decode_with_warnings(longer, form))


def _has_lost_its_place(file: Buffer, head: Head, left_over: int) -> bool:
    """Whether the bytes left over at the end are data of the picture: too many for stray ones, and no padding."""
    end = end_of_data(file, head) or len(file)
    rest = bytes(file[max(head.data, end - left_over) : end])
    return left_over > _MAX_STRAY_BYTES and len(set(rest)) > 1


def _decode_with_warnings(file: Buffer, form: _Form) -> Pixels:
    try:
        return _simplejpeg(file, form, strict=False)
    except ValueError as error:
        raise _refusal(str(error)) from None


def _refusal(warning: str) -> InvalidRequestError:
    if _TRUNCATED.search(warning):
        return InvalidRequestError(TRUNCATED)
    if _CORRUPT.search(warning):
        return InvalidRequestError(CORRUPT)
    reason = _REASON.sub("", warning, count=1)
    return InvalidRequestError(
        f"JPEG cannot be decoded ({reason}); send baseline or progressive, 8 bits, 4:4:4 to 4:2:0"
    )
