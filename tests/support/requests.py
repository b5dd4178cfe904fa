"""A request of one frame, as the front end hands it over, for tests that only look at its outcome."""

from forebay_server.service.request import Delivery, Request, StreamKey


def frame_request(request_id, frame, *, stream=None, arrival_ns=0, deadline_ns=None, wants=None, **fields):
    """A request of one row of the only batch key, with a stream of its own by default."""
    return Request(
        id=request_id,
        stream=stream or StreamKey("camera", Delivery.EVERY),
        size=1,
        batch_key=None,
        deadline_ns=deadline_ns,
        arrival_ns=arrival_ns,
        priority=1,
        frame=frame,
        on_completion=lambda _: None,
        wants=wants,
        **fields,
    )
