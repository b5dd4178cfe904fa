"""What a result of a stream should hold: settled once, when the stream opens."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ResultOptions:
    """How typed results are made.

    Attributes:
        score_threshold: 0..1; results below it are left out; None keeps all.
        iou_threshold: 0..1, for non-maximum suppression; None where there is none.
        max_results: most detections or classes of a frame.
    """

    score_threshold: float | None
    iou_threshold: float | None
    max_results: int


@dataclass(frozen=True, slots=True)
class Wants:
    """What the results of a stream hold.

    Attributes:
        options: for typed results; None if only tensors are wanted.
        tensor_indices: outputs to send raw, in this order.
    """

    options: ResultOptions | None
    tensor_indices: tuple[int, ...]
