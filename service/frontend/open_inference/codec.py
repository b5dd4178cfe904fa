"""Open Inference requests to calls, checked whole. Pure: no I/O, no state."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.messages import Bytes
from forebay_server.service.frontend.open_inference import tensors
from forebay_server.service.frontend.open_inference.region_range import RegionRange
from forebay_server.service.frontend.open_inference.template import CallTemplate, InputSource
from forebay_server.service.frontend.open_inference.typed import LongContents
from forebay_server.service.frontend.open_inference.wire import InferMessage

MAX_STRINGS_BYTES = 256 << 20  # of BYTES in shared memory, whose size neither a shape nor the limit of messages bounds


class RegionView(Protocol):
    """A range of shared memory that belongs to the client."""

    @property
    def byte_size(self) -> int:
        """Size in bytes."""
        ...

    def read(self) -> Bytes:
        """Return a copy of it. Raises InferenceError."""
        ...

    def write(self, data: Bytes, output: str) -> None:
        """Put an output into it, by name. Raises InferenceError."""
        ...

    def release(self) -> None:
        """End the request's use: the region need not stay open for it. Called once."""
        ...


LocateRegion = Callable[[RegionRange], RegionView]
"""Finds a range, and keeps its region open until the view's `release`. Raises InferenceError if it does not exist or is
not the client's."""


@dataclass(slots=True, eq=False)
class Call:
    """A checked request.

    Attributes:
        template: everything but id and data.
        request_id: the client's name of it.
        data: of every input, in the engine's order; views of the received bytes. Empty once they were taken.
        views: ranges of shared memory that it uses.
        targets: ranges of shared memory for its outputs, by name.
    """

    template: CallTemplate
    request_id: str
    data: list[Bytes | LongContents]
    views: tuple[RegionView, ...] = ()
    targets: dict[str, RegionView] | None = None

    def take_data(self) -> list[Bytes]:
        """Return the data as raw bytes, and release them here: a call lives until its answer leaves. Thread: any.

        Raises InvalidRequestError for invalid typed contents.
        """
        data, self.data = self.data, []
        raw: list[Bytes] = []
        for part in data:
            raw.append(part.read() if isinstance(part, LongContents) else part)  # noqa: PERF401 - a call less
        return raw

    def release(self) -> None:
        """End the request's use of shared memory. Idempotent. Thread: the event loop's."""
        views, self.views, self.targets = self.views, (), None
        for view in views:
            view.release()


def fill(template: CallTemplate, message: InferMessage, reach: Callable[[], LocateRegion]) -> Call:
    """Return the call of a message with this template. Nothing is read from shared memory before all sizes are right.

    Raises:
        InvalidRequestError: the data have another size than the shape says.
        InferenceError: from finding a range or reading it. No view is left open then.
    """
    if template.is_plain and not template.has_regions:
        for source, raw in zip(template.sources, message.raws, strict=True):
            _check_size(source, len(raw), template.schema.name)
        return Call(template, message.request_id, list(message.raws))
    views: list[RegionView] = []
    try:
        return _gather(template, message, reach(), views)
    except BaseException:
        for view in views:
            view.release()
        raise


def _gather(template: CallTemplate, message: InferMessage, locate: LocateRegion, views: list[RegionView]) -> Call:
    """Return a call with data or outputs in shared memory; `views` gets every view, in case that this fails."""
    contents: list[Bytes | LongContents | RegionView] = []
    for source in template.sources:
        content: Bytes | RegionView
        if source.region is not None:
            content = locate(source.region)
            views.append(content)
            nbytes = content.byte_size
        elif isinstance(source.typed, LongContents):
            contents.append(source.typed)  # its elements are counted where it is read
            continue
        else:
            content = message.raws[source.raw_index] if source.raw_index is not None else source.typed or b""
            nbytes = len(content)
        _check_size(source, nbytes, template.schema.name)
        contents.append(content)
    targets: dict[str, RegionView] = {}
    for wanted in template.wanted:
        if wanted.region is not None:
            targets[wanted.tensor.name] = locate(wanted.region)  # before anything is executed
            views.append(targets[wanted.tensor.name])
    data = [content if isinstance(content, Bytes | LongContents) else content.read() for content in contents]
    return Call(template, message.request_id, data, tuple(views), targets)


def _check_size(source: InputSource, nbytes: int, model: str) -> None:
    if source.nbytes is not None and nbytes != source.nbytes:
        raise tensors.wrong_size(source.tensor, source.nbytes, nbytes, model)
    if source.region is not None and source.nbytes is None and nbytes > MAX_STRINGS_BYTES:
        raise InvalidRequestError(
            f"input '{source.tensor.name}' for model '{model}' has {nbytes} bytes; at most {MAX_STRINGS_BYTES} of BYTES"
        )


def arrays_of(call: Call) -> Iterable[NDArray[Any] | None]:
    """Take the inputs as arrays of (rows, *shape), for a model that runs unbound; None for those left out.

    Raises InvalidRequestError.
    """
    template = call.template
    schema = template.schema
    sent = zip(template.sources, call.take_data(), strict=True)
    for shape in template.shapes:
        if shape is None:
            yield None
            continue
        source, data = next(sent)
        full = (template.rows, *shape) if schema.has_batch else shape
        tensor = source.tensor
        if tensor.datatype == "BYTES":
            strings = tensors.split_strings(tensor, data, source.elements, schema.name)
            yield tensors.strings_to_array(strings, full, tensor, schema.name)
        else:
            array = np.frombuffer(data, tensor.spec.dtype)
            yield (array if array.flags.aligned else array.copy()).reshape(full)
