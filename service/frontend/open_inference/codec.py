"""Open Inference requests to calls, checked whole. Pure: no I/O, no state."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.messages import Bytes
from forebay_server.service.frontend.open_inference import tensors
from forebay_server.service.frontend.open_inference.form import CallForm, InputPlace, RegionRange
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
        form: everything but id and data.
        request_id: the client's name of it.
        data: of every input, in the engine's order; views of the received bytes. Empty once they were taken.
        views: ranges of shared memory that it uses.
        targets: ranges of shared memory for its outputs, by name.
    """

    form: CallForm
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


def fill(form: CallForm, message: InferMessage, locate: LocateRegion) -> Call:
    """Return the call that a message of this form is. Nothing is read from shared memory before all sizes are right.

    Raises:
        InvalidRequestError: the data have another size than the shape says.
        InferenceError: from `locate` or from reading. Nothing is held then.
    """
    if form.is_plain and not form.has_regions:
        for place, raw in zip(form.places, message.raws, strict=True):
            _check_size(place, len(raw), form.face.name)
        return Call(form, message.request_id, list(message.raws))
    held: list[RegionView] = []
    try:
        return _gather(form, message, locate, held)
    except BaseException:
        for view in held:
            view.release()
        raise


def _gather(form: CallForm, message: InferMessage, locate: LocateRegion, held: list[RegionView]) -> Call:
    """Return a call with data or outputs in shared memory; `held` gets every view, in case that this fails."""
    sources: list[Bytes | LongContents | RegionView] = []
    for place in form.places:
        source: Bytes | RegionView
        if place.region is not None:
            source = locate(place.region)
            held.append(source)
            nbytes = source.byte_size
        elif isinstance(place.typed, LongContents):
            sources.append(place.typed)  # its elements are counted where it is read
            continue
        else:
            source = message.raws[place.raw_index] if place.raw_index is not None else place.typed or b""
            nbytes = len(source)
        _check_size(place, nbytes, form.face.name)
        sources.append(source)
    targets: dict[str, RegionView] = {}
    for wanted in form.wanted:
        if wanted.region is not None:
            targets[wanted.face.name] = locate(wanted.region)  # before anything is executed
            held.append(targets[wanted.face.name])
    data = [source if isinstance(source, Bytes | LongContents) else source.read() for source in sources]
    return Call(form, message.request_id, data, tuple(held), targets)


def _check_size(place: InputPlace, nbytes: int, model: str) -> None:
    if place.nbytes is not None and nbytes != place.nbytes:
        raise tensors.wrong_size(place.tensor, place.nbytes, nbytes, model)
    if place.region is not None and place.nbytes is None and nbytes > MAX_STRINGS_BYTES:
        raise InvalidRequestError(
            f"input '{place.tensor.name}' for model '{model}' has {nbytes} bytes; at most {MAX_STRINGS_BYTES} of BYTES"
        )


def arrays_of(call: Call) -> Iterable[NDArray[Any] | None]:
    """Take the inputs as arrays of (rows, *shape), for a model that runs unbound; None for those left out.

    Raises InvalidRequestError.
    """
    form = call.form
    face = form.face
    sent = zip(form.places, call.take_data(), strict=True)
    for shape in form.shapes:
        if shape is None:
            yield None
            continue
        place, data = next(sent)
        full = (form.rows, *shape) if face.has_batch else shape
        tensor = place.tensor
        if tensor.datatype == "BYTES":
            strings = tensors.split_strings(tensor, data, place.elements, face.name)
            yield tensors.strings_to_array(strings, full, tensor, face.name)
        else:
            array = np.frombuffer(data, tensor.spec.dtype)
            yield (array if array.flags.aligned else array.copy()).reshape(full)
