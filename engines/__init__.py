"""Devices and engines, which execute batches. This package knows nothing of the service above it.

Concrete devices and engines are reached through `open_device()` and `open_engine()` only, so that a vendor library is
imported no earlier than it is needed. Nor is numpy: a quick command such as `forebay health` takes only `clock`.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forebay_server.engines.opening import (
        DEVICE_KINDS,
        import_engine,
        open_device,
        open_engine,
        open_foreign_memory,
    )

# ONNX Runtime's own wheels report usage to their makers, with an identifier kept on disk, unless this is set before the
# library is imported (tests/meta/test_privacy.py). Set it to 0 to allow that.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["DEVICE_KINDS", "import_engine", "open_device", "open_engine", "open_foreign_memory"]


def __getattr__(name: str) -> Any:  # noqa: ANN401  # the type of the name's value
    """Import `opening` for the names above."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("forebay_server.engines.opening"), name)
