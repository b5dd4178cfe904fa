"""How a model is served where its file does not say: one trial run, before anything is allocated for it.

The shapes that a file declares are claims. A first dimension may count something other than rows, and outputs may have
sizes that depend on values. So the engine runs the example (`service.models.example`) once, unbound:

- every output has the declared shape, and its first dimension is the number of rows: the model is served as declared.
- first dimensions are right, others differ: it is served unbound, with its batch dimension.
- a first dimension is not the number of rows: it is not a batch. The model is served unbound, without a batch.
- the model takes pictures, only its outputs have open dimensions, and a second run on noise has outputs of the same
  shapes: it is served with these (`service.models.observed_shapes`). Where they may count objects nevertheless, the
  number of rows of the run is noted for the question that asks for it.
- the run fails with several rows and succeeds with one: a batch is one row.
- the run needs more memory than there is: the model is refused.
- the run fails with one row too: nothing is known. The model is served unbound, as it declares its batch.

A `max_batch_size` of the configuration that the trial contradicts is an error. Engines that cannot run unbound serve
what they declare.

Thread: the one that opens the version.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog
from numpy.typing import NDArray

from forebay_server.engines.engine import Engine, EngineSpecs, TensorSpec, UnboundEngine
from forebay_server.engines.errors import ExecutionError, RunMemoryError
from forebay_server.service.models.completion import complete
from forebay_server.service.models.config_text import ConfigError
from forebay_server.service.models.description import ModelDescription
from forebay_server.service.models.example import example_of, repeated
from forebay_server.service.models.observed_shapes import most_open_rows, observed_shapes
from forebay_server.service.models.parameters import read_parameters
from forebay_server.service.pipeline.unbound import Inputs

log = structlog.get_logger(__name__)

UNBOUND_ROWS = 2
"""Rows of the trial of a model that runs unbound anyway: enough to tell rows from a constant."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a model is served.

    Attributes:
        max_batch_size: as `engines.open_engine` takes it.
        is_bound: of `EngineSpecs`.
        reason: why not as declared; empty: as declared.
        output_shapes: as `UnboundEngine.settle` takes them.
        observed_rows: as of `ModelDescription`.
    """

    max_batch_size: int | None
    is_bound: bool
    reason: str
    output_shapes: tuple[tuple[int, ...], ...] | None = None
    observed_rows: int = 0


def settle(engines: Sequence[Engine], description: ModelDescription) -> ModelDescription:
    """Run the first engine and settle all of them; return the description with the findings of the run.

    Blocks: for two runs at most.

    Args:
        engines: the instances of one version, open, without slots.
        description: of the model, not completed.

    Raises:
        ConfigError: the configuration contradicts the model; the message says what to write.
        EngineError: as `UnboundEngine.settle` does.
    """
    first = engines[0]
    if not isinstance(first, UnboundEngine):
        return description
    settlement = _settlement(first, description)
    if settlement is None:
        return description
    if not settlement.reason:
        return replace(description, observed_rows=settlement.observed_rows)
    log.info("model runs otherwise than it declares", model=description.name, reason=settlement.reason)
    for engine in engines:
        assert isinstance(engine, UnboundEngine)  # noqa: S101 - for mypy: instances are of one class
        engine.settle(settlement.max_batch_size, is_bound=settlement.is_bound, output_shapes=settlement.output_shapes)
    return description


def _settlement(engine: UnboundEngine, description: ModelDescription) -> Settlement | None:
    """Return how the model is served, None if as it declares."""
    specs = engine.specs
    # Zeros need no configuration, and one with a task may fit the model only as it is settled.
    config = complete(description, specs).config if description.warmup else description.config
    example = example_of(description.warmup, config, specs)
    rows = specs.max_batch_size if specs.is_fixed else min(UNBOUND_ROWS, specs.max_batch_size)
    written = description.max_batch_size
    try:
        outputs = _run(engine, example, rows, specs)
    except RunMemoryError:
        raise
    except ExecutionError as error:
        if rows > 1 and _takes_one_row(engine, example, specs):
            if written:
                remedy = f"the model takes one row: write max_batch_size: 1 ({error})"
                raise _contradiction(description, remedy) from error
            return Settlement(1, specs.is_bound, f"it takes one row, not {rows}: {error}")
        if not specs.is_fixed:
            return None
        # Without a batch of several rows the dimension of 1 is as well one of the model's own.
        return Settlement(
            0 if specs.max_batch_size == 1 and not written else written, is_bound=False, reason=str(error)
        )
    misfit = _not_rows(outputs, rows, specs)
    if misfit is not None:
        if written:
            found = f"the first dimension of output {misfit!r} is not the number of rows"
            raise _contradiction(description, f"{found}: write max_batch_size: 0, and whole shapes in dims")
        return Settlement(0, is_bound=False, reason=f"the first dimension of output {misfit!r} is not the rows")
    return _by_inner_shapes(engine, description, outputs, rows)


def _by_inner_shapes(
    engine: UnboundEngine, description: ModelDescription, outputs: Sequence[NDArray[Any]], rows: int
) -> Settlement | None:
    """Return how a model is served whose first dimensions are right, None if as it declares."""
    specs, written = engine.specs, description.max_batch_size
    misfit = _not_declared(outputs, specs)
    if misfit is not None:
        reason = f"output {misfit!r} has another shape than it declares"
        return Settlement(written, is_bound=False, reason=reason) if specs.is_fixed else None
    takes_pictures = read_parameters(description.config, description.config_name).picture.written
    # Of any other model, an open dimension is part of the contract with clients of its tensors.
    shapes = observed_shapes(engine, outputs, rows) if takes_pictures else None
    if shapes is None:
        rows_seen = most_open_rows(specs, outputs)
        return Settlement(written, is_bound=True, reason="", observed_rows=rows_seen) if rows_seen else None
    return Settlement(written, is_bound=True, reason=f"outputs have the shapes {list(shapes)}", output_shapes=shapes)


def _contradiction(description: ModelDescription, remedy: str) -> ConfigError:
    return ConfigError(f"{description.config_name}: max_batch_size is {description.max_batch_size}, but {remedy}")


def _run(engine: UnboundEngine, example: Inputs, rows: int, specs: EngineSpecs) -> tuple[NDArray[Any], ...]:
    return engine.run(repeated(example, rows, specs))


def _takes_one_row(engine: UnboundEngine, example: Inputs, specs: EngineSpecs) -> bool:
    try:
        outputs = _run(engine, example, 1, specs)
    except ExecutionError:
        return False
    return _not_rows(outputs, 1, specs) is None


def _not_rows(outputs: Sequence[NDArray[Any]], rows: int, specs: EngineSpecs) -> str | None:
    """Return the name of the first output whose first dimension is not the number of rows."""
    if not specs.has_batch_dimension:
        return None
    pairs = zip(specs.outputs, outputs, strict=True)
    return next((spec.name for spec, array in pairs if array.shape[:1] != (rows,)), None)


def _not_declared(outputs: Sequence[NDArray[Any]], specs: EngineSpecs) -> str | None:
    """Return the name of the first output that has another shape than the model declares."""
    start = 1 if specs.has_batch_dimension else 0
    pairs = zip(specs.outputs, outputs, strict=True)
    return next((spec.name for spec, array in pairs if not _fits(array.shape[start:], spec)), None)


def _fits(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    return len(shape) == len(spec.shape) and all(
        known in (-1, dim) for dim, known in zip(shape, spec.shape, strict=True)
    )
