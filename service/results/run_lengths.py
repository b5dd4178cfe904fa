"""Run lengths of a mask as COCO writes them. Pure."""

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.results.detection import RunLengths


def run_lengths_of(region: NDArray[np.bool_], left: int, top: int, width: int, height: int) -> RunLengths:
    """Return the run lengths of a picture that is empty outside one region.

    Args:
        region: [rows, columns]; borrowed.
        left: column of the region's first column in the picture.
        top: row of the region's first row in the picture.
        width: of the picture.
        height: of the picture.
    """
    rows, columns = region.shape
    edged = np.zeros((columns, rows + 2), np.int8)  # a border above and below, so that runs begin and end in a column
    edged[:, 1:-1] = region.T
    steps = np.diff(edged, axis=1)
    column, row = np.nonzero(steps)  # begins and ends in turn, column by column
    edges = (column + left) * height + row + top
    # a run that ends with its column goes on where one begins with the next
    is_seam = np.zeros(len(edges) + 1, np.bool_)
    is_seam[2:-1:2] = edges[1:-1:2] == edges[2::2]
    edges = edges[~(is_seam[:-1] | is_seam[1:])]
    bounds = np.concatenate([[0], edges, [width * height]])
    counts = np.diff(bounds).tolist()
    return RunLengths(width, height, tuple(counts if counts[-1] else counts[:-1]))
