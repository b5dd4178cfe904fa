"""A small picture of a frame, for the operator's page."""

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Preview:
    """The picture of a frame of video, whose payload alone shows nothing. The worker that decodes the frame fills it.

    Attributes:
        pixels: shape (height, width, 3), RGB; empty until the frame is decoded.
        size: (width, height) of `pixels`.
    """

    pixels: bytes = b""
    size: tuple[int, int] = (0, 0)
