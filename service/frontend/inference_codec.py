"""Open Inference requests to calls, checked whole. Pure: no I/O, no state."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.frontend import inference_tensors as tensors
from service.frontend.inference_form import CallForm, RegionRange
from service.frontend.inference_wire import Bytes, InferMessage

ReadRegion = Callable[[RegionRange], Bytes]
"""Returns the bytes of a range. Raises InferenceError."""


@dataclass(slots=True, eq=False)
class Call:
    """A request that was found to be right.

    Attributes:
        form: everything but id and data.
        request_id: as the client named it.
        data: raw bytes of every input, in the engine's order; views of what was received.
    """

    form: CallForm
    request_id: str
    data: list[Bytes]


def fill(form: CallForm, message: InferMessage, read_region: ReadRegion) -> Call:
    """Return the call that a message of this form is.

    Raises:
        InvalidRequestError: the data have another size than the shape says.
        InferenceError: from `read_region`.
    """
    data: list[Bytes] = list(message.raws) if form.is_plain else _gather(form, message.raws, read_region)
    for place, raw in zip(form.places, data, strict=True):
        if place.nbytes is not None and len(raw) != place.nbytes:
            raise tensors.wrong_size(place.tensor, place.nbytes, len(raw), form.face.name)
    return Call(form, message.request_id, data)


def _gather(form: CallForm, raws: list[memoryview], read_region: ReadRegion) -> list[Bytes]:
    data: list[Bytes] = []
    for place in form.places:
        if place.raw_index is not None:
            data.append(raws[place.raw_index])
        elif place.region is not None:
            data.append(read_region(place.region))
        else:
            data.append(place.typed or b"")
    return data


def arrays_of(call: Call) -> Iterable[NDArray[Any]]:
    """Return the inputs as arrays of (rows, *shape), for a model that runs unbound. Raises InvalidRequestError."""
    form = call.form
    face = form.face
    for place, shape, data in zip(form.places, form.shapes, call.data, strict=True):
        full = (form.rows, *shape) if face.has_batch else shape
        tensor = place.tensor
        if tensor.datatype == "BYTES":
            strings = tensors.split_strings(tensor, data, place.elements, face.name)
            yield tensors.strings_to_array(strings, full, tensor, face.name)
        else:
            array = np.frombuffer(data, tensor.spec.dtype)
            yield (array if array.flags.aligned else array.copy()).reshape(full)
