"""What the results of a stream should hold: settled once, when the stream opens."""

from dataclasses import dataclass

from forebay_server.service.results.options import ResultOptions


@dataclass(frozen=True, slots=True)
class Wants:
    """What the results of a stream hold.

    Attributes:
        options: for typed results; None if only tensors are wanted.
        tensor_indices: outputs to send raw, in this order.
    """

    options: ResultOptions | None
    tensor_indices: tuple[int, ...]
