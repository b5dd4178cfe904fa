"""The requested contents of a stream's results: fixed when the stream opens."""

from collections.abc import Callable
from dataclasses import dataclass

from forebay_server.service.results.options import ResultOptions
from forebay_server.service.results.result import Result


def _in_no_form(_: Result) -> None:
    """Encode nothing: the default."""


@dataclass(frozen=True, slots=True)
class Wants:
    """The requested contents of a stream's results.

    Attributes:
        options: for typed results; None if only tensors are wanted.
        tensor_indices: outputs to send raw, in this order.
        encode: returns a typed result in the form of its protocol, or None if the event loop shall encode it; called by
            a worker.
    """

    options: ResultOptions | None
    tensor_indices: tuple[int, ...]
    encode: Callable[[Result], bytes | None] = _in_no_form
