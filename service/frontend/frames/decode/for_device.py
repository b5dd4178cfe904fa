"""Which JPEG files a device decodes: those that it surely decodes as the CPU would. Pure.

A JPEG engine shows a picture for almost anything: a file that is cut, or whose header breaks the standard, becomes a
grey or wrong one without an error. So only a plain file goes there, one that ends with the end marker of its picture.
Every other one takes the CPU's way, which has words for every fault.

Costs about 80 us for a file of 100 KB. Its data is walked: a cut file may end with the end marker of another picture.
"""

from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.frames.decode.jpeg_layout import (
    APP0,
    APP14,
    END,
    Head,
    end_of_data,
    read_head,
    restarts_missing_at_end,
)
from forebay_server.service.pictures.device_picture import DecodedBy, FilePicture, FilePlace

_BASELINE = 0xC0
_FACTORS = {b"\x11", b"\x21", b"\x22", b"\x12"}
"""Sampling factors of luma, with chroma once: 4:4:4, 4:2:2, 4:2:0 and 4:4:0."""
_RGB_NAMES = b"RGB"  # components with these numbers, in a file without JFIF or Adobe's marker, are no YCbCr
_YCBCR = 1  # Adobe's colour transform


def file_for_device(file: memoryview, place: FilePlace, most_pixels: int) -> FilePicture | DecodedBy:
    """Return the part of a file that a device decodes, or why the CPU has to.

    Args:
        file: as sent; borrowed.
        place: of the version's frame buffers.
        most_pixels: larger pictures are refused, by the CPU's way.

    Returns:
        the file up to its end marker, at `place`, or one of the HOST reasons.
    """
    try:
        head = read_head(file)
        end = _end_of_picture(file, head) if _is_plain(file, head) else None
    except InvalidRequestError:  # the CPU's way finds it again, and ends the frame with it
        return DecodedBy.HOST_HEADER
    if end is None:
        return DecodedBy.HOST_HEADER
    if not 0 < head.size[0] * head.size[1] <= min(place.most_pixels, most_pixels):
        return DecodedBy.HOST_PIXELS
    if not end:
        return DecodedBy.HOST_END
    return FilePicture(place.offset, end, head.size) if end <= place.nbytes else DecodedBy.HOST_BYTES


def _end_of_picture(file: memoryview, head: Head) -> int:
    """Return the end of the marker that ends the picture; 0 if it is not where the data ends."""
    end = (end_of_data(file, head) or len(file)) + len(END)
    if bytes(file[end - len(END) : end]) != END:
        return 0
    return 0 if head.restart_interval and restarts_missing_at_end(file, head) else end


def _is_plain(file: memoryview, head: Head) -> bool:
    is_baseline = head.frame == _BASELINE and head.precision == 8 and head.is_single_scan and not head.is_odd
    if not is_baseline or head.components not in {1, 3}:
        return False
    if head.components == 1:
        return True
    frame = next(segment for segment in head.segments if segment.marker == head.frame)
    parts = bytes(file[frame.start + 10 : frame.end])  # of each component: its name, its factors, its table
    names, factors = parts[0::3], parts[1::3]
    return factors[:1] in _FACTORS and factors[1:] == b"\x11\x11" and _is_ycbcr(file, head, names)


def _is_ycbcr(file: memoryview, head: Head, names: bytes) -> bool:
    """Whether libjpeg takes three components for luma and chroma, as a device always does."""
    markers = {segment.marker: segment for segment in head.segments}
    app0 = markers.get(APP0)
    if app0 is not None and bytes(file[app0.start + 4 : app0.start + 9]) == b"JFIF\0":  # not "AVI1", of MJPEG cameras
        return APP14 not in markers
    adobe = markers.get(APP14)
    if adobe is None:
        return names != _RGB_NAMES
    return bytes(file[adobe.start + 4 : adobe.start + 9]) == b"Adobe" and file[adobe.start + 15] == _YCBCR
