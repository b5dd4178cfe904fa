"""Detects results that contain memory which the program allocated and never wrote, as from `torch.empty`.

Such memory is filled with a pattern; elements that show the patterns of several runs were never written. Not detected:
constants that TorchScript's optimizer makes of it later than in the first runs.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from forebay_server.engines.proof import shows, unwritten
from forebay_server.engines.pytorch.made_memory import MadeMemoryFilled
from forebay_server.engines.pytorch.program import Tensors


def uninitialized_outputs(run: Callable[[], Tensors]) -> dict[int, int]:
    """Run a program at least twice.

    Return the number of elements that it never writes, by result, of those that have any.
    """
    with MadeMemoryFilled(0):
        run()  # the first run makes constants, which should hold zeros if unwritten

    def run_over(pattern: int) -> dict[int, NDArray[np.bool_]]:
        with MadeMemoryFilled(pattern):
            results = run()
        return {index: shows(_bytes_of(each), pattern, each.element_size()) for index, each in enumerate(results)}

    return unwritten(run_over)


def _bytes_of(tensor: torch.Tensor) -> NDArray[np.uint8]:
    flat: NDArray[np.uint8] = tensor.reshape(-1).contiguous().view(torch.uint8).cpu().numpy()
    return flat
