"""Finds the shapes of outputs that a model's file leaves open, by a second run.

Exporters leave the shapes of outputs open together with the size of the picture (the number of anchors), or where they
cannot compute them. Once the inputs have fixed shapes, so have these outputs, and fixed buffers can hold them. Other
outputs depend on the picture (the number of objects): their shapes differ between zeros and noise. These two may have
the same number of objects by chance. So an open first dimension without a batch, which may count objects, is taken from
the runs only if the nodes of the model's file leave no size to the picture (`engines.onnx_sizes`).

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
    if has_open_rows(specs) and not engine.sizes_follow_inputs():
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
    """Return whether an output may have a row for each object: its first dimension alone is open, without a batch."""
    return not specs.has_batch_dimension and any(map(_has_open_rows, specs.outputs))


def most_open_rows(specs: EngineSpecs, outputs: Sequence[NDArray[Any]]) -> int:
    """Return the most rows that a run gave of outputs that leave their number open; 0 if there are none."""
    if specs.has_batch_dimension:
        return 0
    pairs = zip(specs.outputs, outputs, strict=True)
    return max((array.shape[0] for spec, array in pairs if _has_open_rows(spec)), default=0)


def _has_open_rows(spec: TensorSpec) -> bool:
    return spec.shape[:1] == (-1,) and -1 not in spec.shape[1:]


def _noise(specs: EngineSpecs, rows: int) -> Inputs:
    random = np.random.default_rng(SEED)
    leading = (rows,) if specs.has_batch_dimension else ()
    return tuple(_values(random, (*leading, *spec.shape), spec) for spec in specs.inputs)


def _values(random: np.random.Generator, shape: tuple[int, ...], spec: TensorSpec) -> NDArray[Any]:
    """Return pixels of 0 to 255 for UINT8, numbers of 0 to 1 for floats, ones for other numbers (sizes)."""
    if spec.dtype == np.uint8:
        return random.integers(0, MOST_OF_UINT8 + 1, shape, np.uint8)
    return random.random(shape).astype(spec.dtype) if spec.dtype.kind == "f" else np.ones(shape, spec.dtype)
