"""Whether results hold memory that the program made and never wrote, as `torch.empty` gives it: anybody's bytes.

torch can fill such memory with NaN, or with the largest integer, as long as its deterministic algorithms are switched
on. A program is run so; what shows the fill value, and does not without the switch, was never written. Booleans, of
which every second one has the fill value, are not told apart. The switch is the process's: for the moment other models
run deterministic algorithms too, which is slower and as right.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from engines.pytorch.program import Tensors

_ROUNDS = 4
"""After which a random integer that equals the fill value by chance is told from one that always does."""


def uninitialized_output(run: Callable[[], Tensors]) -> int | None:
    """Run a program once, more often if its results look odd; return the index of a result that it does not fill."""
    suspects: dict[int, torch.Tensor] = {}
    for number in range(_ROUNDS):
        with _filled():
            found = {index: _is_fill(result) for index, result in enumerate(run())}
        if number:
            found = {index: found[index] & mask for index, mask in suspects.items()}
        suspects = {index: mask for index, mask in found.items() if bool(mask.any())}
        if not suspects:
            return None
        _overwrite(run())  # else the next results may lie where the fill value is left
        for index, result in enumerate(run()):
            if index in suspects:
                suspects[index] &= ~_is_fill(result)
    return next((index for index, mask in suspects.items() if bool(mask.any())), None)


@contextmanager
def _filled() -> Iterator[None]:
    """Let torch fill memory that it hands out; warn, and do not fail, where an operator has no deterministic form."""
    was_on, warned_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    filled = torch.utils.deterministic.fill_uninitialized_memory
    try:
        torch.utils.deterministic.fill_uninitialized_memory = True
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.use_deterministic_algorithms(was_on, warn_only=warned_only)
        torch.utils.deterministic.fill_uninitialized_memory = filled


def _is_fill(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dtype.is_floating_point:
        return torch.isnan(tensor)
    if tensor.dtype is torch.bool:
        return torch.zeros_like(tensor)
    return tensor == torch.iinfo(tensor.dtype).max


def _overwrite(results: Tensors) -> None:
    """Leave ones in the memory that results of these sizes are likely to get next."""
    ballast = [torch.ones_like(result) for result in results for _ in range(2)]
    del ballast
