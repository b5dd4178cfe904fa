"""Converts the class scores of one frame to typed classifications. Pure; runs in the worker pool."""

from typing import Any, NamedTuple, assert_never

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.request import OutputArrays
from forebay_server.service.results.arrays import check_finite, frame_row, labels_of, quiet
from forebay_server.service.results.options import ResultOptions
from forebay_server.service.results.task import Activation, ClassificationTask


class Classification(NamedTuple):
    """One class and its score.

    Attributes:
        label: name of the class.
        class_id: number of the class.
        score: the model's own value, or the task's activation of it.
    """

    label: str
    class_id: int
    score: float


def decode_classes(
    outputs: OutputArrays, task: ClassificationTask, options: ResultOptions
) -> tuple[Classification, ...]:
    """Return the best classes of one frame, by falling score; equal scores by rising class.

    Args:
        outputs: the model's outputs for this frame, in the model's order.
        task: the output that holds the scores, the names, and whether scores are still logits.
        options: the stream's limits.

    Raises:
        CorruptResultError: the shape is not a row of scores, or a number is not finite.
    """
    threshold, max_results = options.for_classes(task)
    scores = frame_row(outputs, task.scores_output, 1, "scores")
    check_finite(scores, "scores")
    scores = _activated(scores, task.activation)
    chosen = np.arange(len(scores)) if threshold is None else np.flatnonzero(scores >= threshold)
    best = chosen[np.argsort(-scores[chosen].astype(np.float64), kind="stable")][:max_results]
    numbers = best.tolist()
    return tuple(map(Classification, labels_of(task.labels, numbers), numbers, scores[best].tolist()))


@quiet
def _activated(values: NDArray[Any], activation: Activation) -> NDArray[Any]:
    """Return scores; logits are computed as float32 at least."""
    match activation:
        case "none":
            return values
        case "softmax":
            logits = values.astype(np.result_type(values, np.float32), copy=False)
            shares = np.exp(logits - logits.max(initial=-np.inf))
            return np.asarray(shares / shares.sum())
        case "sigmoid":
            return np.asarray(1 / (1 + np.exp(-values.astype(np.result_type(values, np.float32), copy=False))))
        case _:
            assert_never(activation)
