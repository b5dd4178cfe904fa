"""A picture of video as small pixels for the operator's page, made only when a reader asks. Thread: a worker's."""

from collections.abc import Callable

import numpy as np

from forebay_server.service.frontend.frames.preview import preview_size
from forebay_server.service.frontend.frames.video.codec import DecodedPicture
from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.pictures.preview import Preview


def fill_preview(preview: Preview, found: DecodedPicture, settle: Callable[[], None]) -> None:
    """Write a decoded picture, which is borrowed, into a preview; see `VideoCodec.settle`. Raises ServiceError."""
    width, height = preview_size(found.size)
    pixels = np.empty((height, width, 3), np.uint8)
    found.place(pixels, PictureInput(width, height, "RGB"), found.size[0] * found.size[1])
    settle()
    preview.size, preview.pixels = (width, height), pixels.tobytes()
