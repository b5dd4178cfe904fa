"""Fills memory that a program allocates without writing it, as by `torch.empty`, before the program goes on.

Every operator of a program, exported or TorchScript, passes torch's dispatcher. Not seen: memory that `resize_` adds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class MadeMemoryFilled(TorchDispatchMode):  # type: ignore[misc]  # Any without torch
    """While it is entered, memory that operators allocate without writing it is full of one byte.

    Thread: its own only.
    """

    def __init__(self, pattern: int) -> None:
        super().__init__()
        self._pattern = pattern

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - torch's OpOverload
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - the result of any operator
        """Run an operator."""
        del types
        result = func(*args, **(kwargs or {}))
        if "empty" in func.name() and isinstance(result, torch.Tensor) and result.layout is torch.strided:
            result.untyped_storage().fill_(self._pattern)
        return result
