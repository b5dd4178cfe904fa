"""The rows that a model runs on before it serves: those of `model_warmup` if there are any, else zeros.

Many models take zeros; those that divide by an input, or reshape by one, do not. A sample of the configuration comes
first, because its author knows the model: then nothing runs on zeros.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from forebay.wire.model_config_pb2 import ModelConfig
from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.service.models.warmup_samples import WarmupSample, inputs_of
from forebay_server.service.pipeline.unbound import Inputs


def example_of(samples: Sequence[WarmupSample], config: ModelConfig, specs: EngineSpecs) -> Inputs:
    """Return the inputs of one row, in the engine's order: shapes (1, ...), or (...) without a batch dimension.

    Args:
        samples: of the configuration; the first row of the first one counts.
        config: completed.
        specs: of the engine.

    Raises:
        ConfigError: the sample does not fit the model.
    """
    if not samples:
        return smallest_inputs(specs, 1)
    arrays = inputs_of(samples[0], config, specs)
    return tuple(_first_row(array, specs) for array in arrays)


def repeated(example: Inputs, rows: int, specs: EngineSpecs) -> Inputs:
    """Return `rows` rows, all of them the example."""
    if not specs.has_batch_dimension or rows == 1:
        return example
    return tuple(None if array is None else np.repeat(array, rows, axis=0) for array in example)


def smallest_inputs(specs: EngineSpecs, rows: int) -> Inputs:
    """Return zeros of `rows` rows whose varying dimensions are 1, without optional inputs."""
    leading = (rows,) if specs.has_batch_dimension else ()
    return tuple(None if spec.is_optional else _smallest(spec, leading) for spec in specs.inputs)


def _smallest(spec: TensorSpec, leading: tuple[int, ...]) -> "NDArray[np.generic]":
    shape = (*leading, *(1 if dim < 0 else dim for dim in spec.shape))
    return np.full(shape, "") if spec.dtype == np.dtype(object) else np.zeros(shape, spec.dtype)


def _first_row(array: "NDArray[np.generic] | None", specs: EngineSpecs) -> "NDArray[np.generic] | None":
    return array[:1] if array is not None and specs.has_batch_dimension else array
