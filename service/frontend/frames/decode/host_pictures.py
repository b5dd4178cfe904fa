"""The CPU's way for pictures that a device refuses, as the pipeline knows it (`service.pipeline.batch_pictures`)."""

from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from forebay.wire import frames_pb2 as pb
from forebay_server.service.frontend.frames.decode.pictures import decode_into
from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.pipeline.batch_pictures import HostPictures

_QUALITY = 85  # as of most cameras


class CpuPictures:
    """Implements HostPictures. Thread: any.

    Args:
        max_image_pixels: larger pictures are refused.
    """

    def __init__(self, max_image_pixels: int) -> None:
        self._max_image_pixels = max_image_pixels

    def decode(self, target: NDArray[Any], file: memoryview, picture: PictureInput) -> None:
        """Write a JPEG file as the model takes it. Raises InvalidRequestError."""
        decode_into(target, file, pb.ENCODING_JPEG, (0, 0), picture, self._max_image_pixels)

    def example(self, size: tuple[int, int]) -> bytes:
        """Return a file of noise upon a slope: 100 KB for 640x480."""
        width, height = size
        noise = np.random.default_rng(0).integers(0, 40, (height, width, 3), np.uint8)
        slope = np.linspace(0, 200, width, dtype=np.uint8)[None, :, None]
        encoded: bytes = simplejpeg.encode_jpeg(noise + slope, _QUALITY, "RGB", "420")
        return encoded


def _conforms(pictures: CpuPictures) -> HostPictures:
    return pictures
