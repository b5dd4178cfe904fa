"""The number of every pixel value: the whole normalisation of a model, computed once in double precision. Pure."""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.pictures.picture_input import Values


@functools.lru_cache(maxsize=64)
def table_of(values: Values, channels: int) -> NDArray[Any]:
    """Return the number of every pixel value.

    Args:
        values: of a model.
        channels: 1 or 3.

    Returns:
        shape (channels, 256), of the type of `values`; shared, so never written.
    """
    pixels = np.arange(256, dtype=np.float64) * values.scale
    mean, std = (np.broadcast_to(np.array(each, np.float64), channels)[:, None] for each in (values.mean, values.std))
    table = ((pixels - mean) / std).astype(values.dtype)
    table.setflags(write=False)
    return table
