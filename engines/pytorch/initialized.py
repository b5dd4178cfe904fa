"""Whether results hold memory that the program made and never wrote, as `torch.empty` gives it: anybody's bytes.

Such memory is filled with a pattern; what shows the patterns of several runs was never written. Not seen: constants
that TorchScript's optimizer makes of it later than in the first runs.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from forebay_server.engines.proof import shows, unwritten
from forebay_server.engines.pytorch.made_memory import MadeMemoryFilled
from forebay_server.engines.pytorch.program import Tensors


def uninitialized_outputs(run: Callable[[], Tensors]) -> dict[int, int]:
    """Run a program at least twice; return how many elements it never writes, by result, of those that have any."""
    with MadeMemoryFilled(0):
        run()  # the first run makes constants, which are to hold zeros if anything

    def run_over(pattern: int) -> dict[int, NDArray[np.bool_]]:
        with MadeMemoryFilled(pattern):
            results = run()
        return {index: shows(_bytes_of(each), pattern, each.element_size()) for index, each in enumerate(results)}

    return unwritten(run_over)


def _bytes_of(tensor: torch.Tensor) -> NDArray[np.uint8]:
    flat: NDArray[np.uint8] = tensor.reshape(-1).contiguous().view(torch.uint8).cpu().numpy()
    return flat
