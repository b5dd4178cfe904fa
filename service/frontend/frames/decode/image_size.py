"""Checks the size in a picture's header before a pixel of it is decoded."""

from forebay_server.service.errors import InvalidRequestError


def check_size(kind: str, size: tuple[int, int], max_pixels: int) -> None:
    """Refuse a picture by the size in its header.

    Raises:
        InvalidRequestError: the picture has no pixels, or more than `max_pixels`.
    """
    width, height = size
    if width < 1 or height < 1:
        raise InvalidRequestError(f"{kind} of {width}x{height} pixels is empty; send a picture with pixels in it")
    if width * height > max_pixels:
        raise InvalidRequestError(
            f"{kind} of {width}x{height} pixels exceeds the limit of {max_pixels}; send it smaller"
        )
