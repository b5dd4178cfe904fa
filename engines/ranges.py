"""NVTX ranges, which Nsight Systems shows as named bars above the GPU's work. Off, and free, unless asked for.

On if FOREBAY_NVTX=1 is in the environment and the package nvtx is installed (`pip install nvtx`); `nsys profile
--trace=cuda,nvtx` then shows one range per stage and batch.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

VARIABLE = "FOREBAY_NVTX"

OpenRange = Callable[[str], AbstractContextManager[object]]


def open_ranges(environment: Mapping[str, str] = os.environ) -> OpenRange | None:
    """Return a function that opens an NVTX range by name; None if ranges are off."""
    if environment.get(VARIABLE) != "1":
        return None
    try:
        import nvtx
    except ImportError:
        return None

    def open_nvtx(name: str) -> AbstractContextManager[object]:
        opened: AbstractContextManager[object] = nvtx.annotate(name, domain="forebay")
        return opened

    return open_nvtx
