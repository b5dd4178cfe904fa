"""NVTX ranges, which Nsight Systems shows as named bars above the GPU's work. Off, and free, unless asked for.

On if FOREBAY_NVTX=1 is in the environment and the package nvtx is installed (`pip install nvtx`); `nsys profile
--trace=cuda,nvtx` then shows one range per stage and batch.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

VARIABLE = "FOREBAY_NVTX"

_nothing: AbstractContextManager[None] = nullcontext()


def _open_none(name: str) -> AbstractContextManager[object]:  # noqa: ARG001
    return _nothing


def open_ranges(environment: Mapping[str, str] = os.environ) -> Callable[[str], AbstractContextManager[object]]:
    """Return what opens a range by name: NVTX's, or one that does nothing."""
    if environment.get(VARIABLE) != "1":
        return _open_none
    try:
        import nvtx
    except ImportError:
        return _open_none

    def open_nvtx(name: str) -> AbstractContextManager[object]:
        opened: AbstractContextManager[object] = nvtx.annotate(name, domain="forebay")
        return opened

    return open_nvtx
