"""Puts the inputs of a call where the pipeline finds them: on the event loop if that is quick, else on a worker.

The size of a message is up to its client. A call is heavy if the loop would copy more than `LIGHT_BYTES`, or take more
than `LIGHT_STRINGS` apart: the loop hands it to the workers and goes on with others (`service.frontend.heavy_work`).
"""

from forebay_server.service.frontend.open_inference.codec import Call, arrays_of
from forebay_server.service.frontend.open_inference.template import LIGHT_BYTES
from forebay_server.service.frontend.open_inference.typed import LongContents
from forebay_server.service.frontend.plain_copy import copy_into
from forebay_server.service.models.served import ServedVersion
from forebay_server.service.pipeline.shares import Share
from forebay_server.service.request import FrameBuffer

LIGHT_STRINGS, LIGHT_STRINGS_BYTES = 2048, 256 << 10  # each 0.6 µs; and as text 0.5 ms


def is_light(call: Call, version: ServedVersion) -> bool:
    """Whether `frame_of` takes the event loop less than two milliseconds, even if the template does not show it.

    Thread: the event loop's.
    """
    template = call.template
    strings = strings_bytes = nbytes = 0
    for source, data in zip(template.sources, call.data, strict=True):
        if isinstance(data, LongContents):
            return False
        nbytes += len(data)
        if source.nbytes is None:
            strings += source.elements
            strings_bytes += len(data)
    if strings > LIGHT_STRINGS or strings_bytes > LIGHT_STRINGS_BYTES:
        return False
    return nbytes <= LIGHT_BYTES or _is_borrowed(call, version)


def _is_borrowed(call: Call, version: ServedVersion) -> bool:
    if version.unbound is not None or call.template.rows != 1 or len(call.data) != 1:
        return False
    (data,) = call.data
    return not isinstance(data, LongContents) and version.arena.borrows(memoryview(data))


def frame_of(call: Call, version: ServedVersion, share: Share) -> FrameBuffer:
    """Take a permit of `share` and put the inputs where the pipeline finds them; the call loses them. Thread: any.

    Raises:
        OverloadedError: there is no permit for it, or no memory is free.
        InvalidRequestError: BYTES or typed contents are invalid.
    """
    if version.unbound is not None:
        return version.unbound.lease(tuple(arrays_of(call)), share)
    rows, data = call.template.rows, call.take_data()
    if rows == 1 and len(data) == 1 and (borrowed := version.arena.borrow(memoryview(data[0]), share)):
        return borrowed  # stays where it was received
    frame = version.arena.lease_rows(rows, share)
    try:
        copy_into(frame, data)
    except BaseException:
        frame.release()
        raise
    return frame
