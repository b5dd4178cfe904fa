"""JPEG files as cameras, phones and bad lines make them: each is a real file with one change, always the same bytes."""

import base64
import struct

import cv2
import numpy as np
import simplejpeg

WIDTH, HEIGHT = 96, 64
END = b"\xff\xd9"
ADOBE = b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0"

ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxOUlNSMj5aYVpQ"
    "YEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT0//yQARCAAYACAD"
    "ASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD/AKHNCmmpcvkOtRM3eFuufbP2RzdrfKkhdK6Daix3Q7z+elke+gRLvFemn871K0Ba"
    "fe9a7NpaSXdYNHKF/9k="
)
"""32 x 24, by libjpeg-turbo's cjpeg -arithmetic; no decoder that the tests know writes such files."""

A_SCAN_FOR_EACH_COMPONENT = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxOUlNSMj5aYVpQ"
    "YEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT0//wAARCAAYACAD"
    "ASIAAhEBAxEB/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcICQoL/8QAtRAAAgEDAwIEAwUFBAQAAAF9AQIDAAQRBRIhMUEGE1FhByJxFDKB"
    "kaEII0KxwRVS0fAkM2JyggkKFhcYGRolJicoKSo0NTY3ODk6Q0RFRkdISUpTVFVWV1hZWmNkZWZnaGlqc3R1dnd4eXqDhIWGh4iJipKTlJWWl5iZ"
    "mqKjpKWmp6ipqrKztLW2t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi4+Tl5ufo6erx8vP09fb3+Pn6/9oACAEBAAA/AOHWz9qlWz9qlWz9qkWz9q0l"
    "s/apVs/apVs/apFs/atJbP2qVbP2qVbP2qRbP2r/xAAfAQADAQEBAQEBAQEBAAAAAAAAAQIDBAUGBwgJCgv/xAC1EQACAQIEBAMEBwUEBAABAncA"
    "AQIDEQQFITEGEkFRB2FxEyIygQgUQpGhscEJIzNS8BVictEKFiQ04SXxFxgZGiYnKCkqNTY3ODk6Q0RFRkdISUpTVFVWV1hZWmNkZWZnaGlqc3R1"
    "dnd4eXqCg4SFhoeIiYqSk5SVlpeYmZqio6Slpqeoqaqys7S1tre4ubrCw8TFxsfIycrS09TV1tfY2dri4+Tl5ufo6ery8/T19vf4+fr/2gAIAQIR"
    "AD8AnCYo+mwmKPz3CVJH0uEqSP/aAAgBAxEAPwDkljDGWMPBlVkYyqyP/9k="
)
"""32 x 24, sequential in three scans, by cjpeg -scans."""


def noisy_picture(width=WIDTH, height=HEIGHT):
    """A smooth BGR picture with some noise, so that its compressed data has substance everywhere."""
    y, x = np.mgrid[0:height, 0:width]
    channels = (x * 255 // (width - 1), y * 255 // (height - 1), 128 + 90 * np.sin(x / 9) * np.cos(y / 7))
    noise = np.random.default_rng(7).normal(0, 6, (height, width, 3))
    return np.clip(np.stack(channels, axis=-1) + noise, 0, 255).astype(np.uint8)


def encoded(pixels=None, *flags):
    return cv2.imencode(".jpg", noisy_picture() if pixels is None else pixels, list(flags))[1].tobytes()


BASELINE = encoded()
RESTARTS = encoded(None, cv2.IMWRITE_JPEG_RST_INTERVAL, WIDTH // 16)  # one interval for a row of 16 lines
PROGRESSIVE = encoded(None, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
OTHER_KINDS = {
    f"4:{kind}": simplejpeg.encode_jpeg(noisy_picture(), colorspace="BGR", colorsubsampling=name)
    for kind, name in {"4:4": "444", "2:2": "422", "2:0": "420", "4:0": "440", "1:1": "411"}.items()
} | {
    "grey": encoded(noisy_picture()[..., 0]),
    "CMYK": simplejpeg.encode_jpeg(np.dstack([noisy_picture(), noisy_picture()[..., :1] // 2]), colorspace="CMYK"),
    "progressive": PROGRESSIVE,
    "restart intervals": RESTARTS,
    "a scan for each component": A_SCAN_FOR_EACH_COMPONENT,
    "arithmetic": ARITHMETIC,
}


def inserted(file, position, added):
    return file[:position] + added + file[position:]


def replaced(file, position, new):
    return file[:position] + new + file[position + len(new) :]


def marker_at(file, marker):
    """The position of the first such marker of the header."""
    start = 2
    while file[start + 1] != marker:
        start += 2 + struct.unpack_from(">H", file, start + 2)[0]
    return start


def data_at(file):
    scan = marker_at(file, 0xDA)
    return scan + 2 + struct.unpack_from(">H", file, scan + 2)[0]


def without(file, marker):
    """The file without its segments of one kind."""
    parts, start = [file[:2]], 2
    while file[start + 1] != 0xDA:
        end = start + 2 + struct.unpack_from(">H", file, start + 2)[0]
        if file[start + 1] != marker:
            parts.append(file[start:end])
        start = end
    return b"".join(parts) + file[start:]


def with_sampling(file, sampling):
    """Sampling factors of the first component, as one byte."""
    return replaced(file, marker_at(file, 0xC0) + 11, bytes((sampling,)))


def restart_at(file, number):
    return file.index(bytes((0xFF, 0xD0 + number)), data_at(file))


def without_restart(file, number):
    start = restart_at(file, number)
    return file[:start] + file[start + 2 :]


PROGRESSIVE_RESTARTS = encoded(None, cv2.IMWRITE_JPEG_RST_INTERVAL, 6, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)


def _strays_before(file, marker):
    head = file[: data_at(file)]
    return head + file[len(head) :].replace(marker, STRAY + marker)


STRAY = b"\x12\x34\x00\x56"
TWENTY_RESTARTS = encoded(noisy_picture(160, 96), cv2.IMWRITE_JPEG_RST_INTERVAL, 3, cv2.IMWRITE_JPEG_QUALITY, 50)
PLAIN = without(BASELINE, 0xE0)  # no JFIF, so that Adobe's marker counts
CMYK = without(OTHER_KINDS["CMYK"], 0xEE)
UNTOUCHED = {
    "stray bytes after SOI": (inserted(BASELINE, 2, STRAY), BASELINE),
    "stray bytes before a table": (inserted(BASELINE, marker_at(BASELINE, 0xDB), STRAY), BASELINE),
    "stray bytes before the frame": (inserted(BASELINE, marker_at(BASELINE, 0xC0), STRAY), BASELINE),
    "stray bytes before the scan": (inserted(BASELINE, marker_at(BASELINE, 0xDA), STRAY), BASELINE),
    "stray bytes before a restart": (inserted(RESTARTS, restart_at(RESTARTS, 1), STRAY), RESTARTS),
    "stray bytes before every restart": (
        inserted(
            inserted(
                inserted(RESTARTS, restart_at(RESTARTS, 2), STRAY),
                restart_at(RESTARTS, 1),
                STRAY,
            ),
            restart_at(RESTARTS, 0),
            STRAY,
        ),
        RESTARTS,
    ),
    "stray bytes that libjpeg tells of at the end": (
        inserted(TWENTY_RESTARTS, restart_at(TWENTY_RESTARTS, 0), STRAY[:3]),
        TWENTY_RESTARTS,
    ),
    "stray bytes before restarts of several scans": (
        _strays_before(PROGRESSIVE_RESTARTS, b"\xff\xd0"),
        PROGRESSIVE_RESTARTS,
    ),
    "stray bytes before EOI": (inserted(BASELINE, len(BASELINE) - 2, STRAY * 3), BASELINE),
    "zeros before EOI": (inserted(BASELINE, len(BASELINE) - 2, bytes(500)), BASELINE),
    "stray bytes before a comment at the end": (
        inserted(BASELINE, len(BASELINE) - 2, STRAY * 3 + b"\xff\xfe\x00\x04xy"),
        BASELINE,
    ),
    "fill bytes before a marker": (inserted(BASELINE, 2, b"\xff\xff\xff"), BASELINE),
    "SOS parameters 0, 0, 0": (replaced(BASELINE, data_at(BASELINE) - 3, b"\0\0\0"), BASELINE),
    "JFIF 2.01": (replaced(BASELINE, BASELINE.index(b"JFIF\0") + 5, b"\x02"), BASELINE),
    "Adobe transform 5": (inserted(PLAIN, 2, ADOBE + b"\x05"), PLAIN),
    "Adobe transform 1 for CMYK": (inserted(CMYK, 2, ADOBE + b"\x01"), inserted(CMYK, 2, ADOBE + b"\x02")),
    "half a colour profile": (inserted(BASELINE, 2, b"\xff\xe2\x00\x12ICC_PROFILE\0\x02\x0312"), BASELINE),
    "no Huffman tables": (without(BASELINE, 0xC4), BASELINE),
    "no EOI": (BASELINE[:-2], BASELINE),
    "half an EOI": (BASELINE[:-1], BASELINE),
    "zeros after EOI": (BASELINE + bytes(512), BASELINE),
    "a second picture after EOI": (BASELINE + encoded(255 - noisy_picture()), BASELINE),
    "a video with 100 scan markers after EOI": (BASELINE + b"ftypmp42\xff\xda\0\x08" * 100, BASELINE),
    "the same in several scans": (PROGRESSIVE + b"ftypmp42\xff\xda\0\x08" * 100, PROGRESSIVE),
    "a thumbnail of 100 scans": (
        inserted(BASELINE, 2, b"\xff\xe1\x05\x02" + b"Exif\0\0" + b"\xff\xda" * 637),
        BASELINE,
    ),
    "a comment with an end marker": (inserted(PROGRESSIVE, 2, b"\xff\xfe\x00\x06\xff\xd9\xff\xd9"), PROGRESSIVE),
    "several oddities at once": (
        replaced(
            inserted(BASELINE, marker_at(BASELINE, 0xDB), STRAY) + b"padding", BASELINE.index(b"JFIF\0") + 5, b"\x02"
        ),
        BASELINE,
    ),
}
"""Name: the file, and a file that follows the standard and has the same pixels."""

WEBCAM = UNTOUCHED["stray bytes before every restart"][0]

LOST_STRIPS = {
    "a lost restart marker": without_restart(RESTARTS, 1),
    "the last restart marker lost": without_restart(RESTARTS, 2),
    "two lost restart markers of nineteen": without_restart(without_restart(TWENTY_RESTARTS, 7), 5),
    "a lost interval": RESTARTS[: restart_at(RESTARTS, 0)] + RESTARTS[restart_at(RESTARTS, 1) :],
    "a lost restart marker behind stray bytes": inserted(without_restart(RESTARTS, 1), restart_at(RESTARTS, 0), STRAY),
}
"""libjpeg finds its place again at the next marker, and the rows between are grey, in every viewer."""

_MIDDLE = (data_at(BASELINE) + len(BASELINE)) // 2
_LAST_SCAN = PROGRESSIVE.rindex(b"\xff\xda")
_SECOND_SCAN = A_SCAN_FOR_EACH_COMPONENT.index(b"\xff\xc4", data_at(A_SCAN_FOR_EACH_COMPONENT))
_ODD = UNTOUCHED["stray bytes before a restart"][0]
TRUNCATED = {
    "arithmetic without an end marker": ARITHMETIC[: ARITHMETIC.rindex(END)],
    "arithmetic in the middle": ARITHMETIC[: (data_at(ARITHMETIC) + len(ARITHMETIC)) // 2],
    "half the data": BASELINE[:_MIDDLE],
    "half the data and EOI": BASELINE[:_MIDDLE] + END,
    "half the data and a thumbnail's EOI": inserted(BASELINE[:_MIDDLE], 2, b"\xff\xe1\x00\x06\xff\xd9\xff\xd9"),
    "the last byte of the data missing": BASELINE[:-3],
    "the last bytes of the data missing, and EOI": BASELINE[:-6] + END,
    "cut at a restart": RESTARTS[: restart_at(RESTARTS, 1)],
    "cut at a restart, and EOI": RESTARTS[: restart_at(RESTARTS, 1)] + END,
    "cut behind a restart, and EOI": RESTARTS[: restart_at(RESTARTS, 1) + 2] + END,
    "cut in the stray bytes before a restart": _ODD[: restart_at(_ODD, 1) - 1],
    "cut in the stray bytes before the first restart, and EOI": WEBCAM[: restart_at(WEBCAM, 0) - 1] + END,
    "cut in the stray bytes before the last restart, and EOI": WEBCAM[: restart_at(WEBCAM, 2) - 2] + END,
    "a lost restart marker and eight intervals less": without_restart(TWENTY_RESTARTS, 1)[
        : without_restart(TWENTY_RESTARTS, 1).rindex(b"\xff\xd2")
    ]
    + END,
    "stray bytes, then cut": _ODD[: restart_at(_ODD, 2) - 9],
    "stray bytes, then cut, and EOI": _ODD[: restart_at(_ODD, 2) - 9] + END,
    "stray bytes, then cut at a restart, and EOI": _ODD[: restart_at(_ODD, 2)] + END,
    "stray bytes, then cut in the last interval, and EOI": _ODD[:-12] + END,
    "odd header, then cut": UNTOUCHED["JFIF 2.01"][0][:_MIDDLE],
    "progressive, cut in a scan": PROGRESSIVE[: _LAST_SCAN + 40],
    "progressive, cut in a scan, and EOI": PROGRESSIVE[: _LAST_SCAN + 40] + END,
    "progressive, cut between scans": PROGRESSIVE[:_LAST_SCAN],
    "a component without a scan": A_SCAN_FOR_EACH_COMPONENT[:_SECOND_SCAN] + END,
    "cut in the header": BASELINE[: marker_at(BASELINE, 0xC0) + 4],
    "cut before the scan": BASELINE[: marker_at(BASELINE, 0xDA)],
    "only SOI": BASELINE[:2],
    "EOI instead of a scan": BASELINE[: marker_at(BASELINE, 0xDA)] + END,
}

_FRAME = marker_at(BASELINE, 0xC0)
REFUSED = {
    "12 bits": (replaced(BASELINE, _FRAME + 4, b"\x0c"), "12 bits a sample"),
    "lossless": (replaced(BASELINE, _FRAME + 1, b"\xc3"), "cannot be decoded"),
    "two frames": (inserted(BASELINE, _FRAME, BASELINE[_FRAME : _FRAME + 19]), "one frame header"),
    "a frame header without components": (
        inserted(without(BASELINE, 0xC0), _FRAME, b"\xff\xc0\x00\x08\x08\x00\x40\x00\x60\x03"),
        "cannot be decoded",
    ),
    "no frame": (without(BASELINE, 0xC0), "one frame header"),
    "no quantisation tables": (without(BASELINE, 0xDB), "Quantization table"),
    "a segment of 1 byte": (inserted(BASELINE, 2, b"\xff\xe1\x00\x01"), "a segment says that it has 1 bytes"),
    "sampling factors of 3": (with_sampling(BASELINE, 0x31), "subsampling"),
    "bytes before SOI": (b"\0" + BASELINE, "not a JPEG file"),
    "5000 segments": (inserted(BASELINE, 2, b"\xff\xfe\x00\x02" * 5000), "more than 2000 segments"),
    "100 scans": (PROGRESSIVE[:-2] + PROGRESSIVE[_LAST_SCAN:-2] * 100 + END, "more than 64 scans"),
    "5000 segments between scans": (PROGRESSIVE[:-2] + b"\xff\xfe\x00\x02" * 5000 + END, "more than 2000 segments"),
    "a changed byte, after which the decoder has lost its place": (
        replaced(BASELINE, data_at(BASELINE) + 30, b"\x01"),
        "bytes of its compressed data have changed",
    ),
    "changed data": (replaced(BASELINE, _MIDDLE, b"\xff\0" * 12), "bytes of its compressed data have changed"),
}
"""Name: the file, and words of the message."""
