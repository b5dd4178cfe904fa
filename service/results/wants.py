"""The requested contents of a stream's results: fixed when the stream opens."""

from dataclasses import dataclass

from forebay_server.service.results.options import ResultOptions


@dataclass(frozen=True, slots=True)
class Wants:
    """The requested contents of a stream's results.

    Attributes:
        options: for typed results; None if only tensors are wanted.
        tensor_indices: outputs to send raw, in this order.
    """

    options: ResultOptions | None
    tensor_indices: tuple[int, ...]
