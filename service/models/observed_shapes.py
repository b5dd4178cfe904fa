"""Finds the shapes of outputs that a model's file leaves open, by a second run.

Exporters leave the shapes of outputs open together with the size of the picture (the number of anchors), or where they
cannot compute them. Once the inputs have fixed shapes, so have these outputs, and fixed buffers can hold them. Other
outputs depend on the picture (the number of objects): their shapes differ between zeros and noise. Where these two have
the same number of objects, the file tells: without a batch, only a number of objects is an open first dimension.

Blocks: for one run. Thread: the one that opens the version.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.engine import EngineSpecs, TensorSpec, UnboundEngine
from forebay_server.engines.errors import ExecutionError
from forebay_server.service.pipeline.unbound import Inputs

SEED = 0
MOST_OF_UINT8 = 255


def observed_shapes(
    engine: UnboundEngine, outputs: Sequence[NDArray[Any]], rows: int
) -> tuple[tuple[int, ...], ...] | None:
    """Return the shapes of one row of every output; None if they are fixed already, or differ between two runs.

    Args:
        engine: open, without slots.
        outputs: of a run on the example.
        rows: of that run.
    """
    specs = engine.specs
    if specs.is_fixed or not all(spec.is_fixed and not spec.is_optional for spec in specs.inputs):
        return None
    if has_open_rows(specs):
        return None
    try:
        others = engine.run(_noise(specs, rows))
    except ExecutionError:
        return None
    if any(one.shape != other.shape or one.size == 0 for one, other in zip(outputs, others, strict=True)):
        return None
    start = 1 if specs.has_batch_dimension else 0
    return tuple(array.shape[start:] for array in outputs)


def has_open_rows(specs: EngineSpecs) -> bool:
    """Return whether an output has a row for each object, as its only open dimension."""
    return not specs.has_batch_dimension and any(
        spec.shape[:1] == (-1,) and -1 not in spec.shape[1:] for spec in specs.outputs
    )


def _noise(specs: EngineSpecs, rows: int) -> Inputs:
    random = np.random.default_rng(SEED)
    leading = (rows,) if specs.has_batch_dimension else ()
    return tuple(_values(random, (*leading, *spec.shape), spec) for spec in specs.inputs)


def _values(random: np.random.Generator, shape: tuple[int, ...], spec: TensorSpec) -> NDArray[Any]:
    """Return pixels of 0 to 255 for UINT8, numbers of 0 to 1 for floats, ones for other numbers (sizes)."""
    if spec.dtype == np.uint8:
        return random.integers(0, MOST_OF_UINT8 + 1, shape, np.uint8)
    return random.random(shape).astype(spec.dtype) if spec.dtype.kind == "f" else np.ones(shape, spec.dtype)
