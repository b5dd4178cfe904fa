"""From a checked call to an `Arrival`: its stream, its share of the permits, its deadline and its inputs.

Owner: the event loop's thread.
"""

from collections.abc import Callable
from functools import partial
from weakref import WeakValueDictionary

from forebay_server.service.clock import Clock
from forebay_server.service.frontend.admission import Admission, Arrival
from forebay_server.service.frontend.open_inference.codec import Call
from forebay_server.service.frontend.open_inference.errors import counted_outcome
from forebay_server.service.frontend.open_inference.inputs import frame_of
from forebay_server.service.journal.events import RequestJournal, TraceContext
from forebay_server.service.models.served import ServedVersion
from forebay_server.service.pipeline.shares import Share
from forebay_server.service.request import (
    Completion,
    Delivery,
    FrameBuffer,
    Request,
    StreamKey,
    Timeline,
)
from forebay_server.service.results.wants import Wants

TOO_LATE = "the deadline is nearer than the least that one request takes"
_TENSORS_ONLY = Wants(options=None, tensor_indices=())


class StreamKeys:
    """Stream keys by name, for requests that come without a stream of their own.

    Calls that are independent of each other share one unordered key per client: fairness counts per client, and no call
    waits for another. Requests of a sequence, of a named stream, with delivery LATEST, or of one streaming RPC are
    ordered. Their keys differ where order would only hold up: in priority and in batch key.

    A key is kept for as long as a request has it or a former remembers how it was served.

    Args:
        are_ordered: whether all requests come on one streaming RPC, whose answers leave in order.
        weight: how many streams the independent calls of one client count as.
    """

    def __init__(self, *, are_ordered: bool, weight: int = 1) -> None:
        self._are_ordered = are_ordered
        self._weight = weight
        self._keys: WeakValueDictionary[tuple[object, ...], StreamKey] = WeakValueDictionary()

    def get(self, name: str, call: Call) -> StreamKey:
        """Return the key of a client's or a sequence's requests."""
        template, options = call.template, call.template.options
        is_ordered = self._are_ordered or bool(options.stream) or options.delivery is Delivery.LATEST
        identity: tuple[object, ...] = (name,)
        if is_ordered:
            identity = (
                name,
                options.stream,
                options.delivery,
                options.priority,
                template.batch_key,
                template.schema.name,
            )
        key = self._keys.get(identity)
        if key is None:
            weight = 1 if is_ordered else self._weight
            key = StreamKey(options.stream or name, options.delivery, is_ordered=is_ordered, weight=weight)
            self._keys[identity] = key
        return key

    def __len__(self) -> int:
        """Return the number of keys in use."""
        return len(self._keys)


class ConnectionShares:
    """Shares of the permits for calls that come one by one, by connection.

    A share is kept for as long as a request has it or its want is remembered.

    Args:
        weight: how many streams a connection counts as.
    """

    def __init__(self, weight: int) -> None:
        self._weight = weight
        self._shares: WeakValueDictionary[str, Share] = WeakValueDictionary()

    def get(self, peer: str) -> Share:
        """Return the share of a connection, as `ServicerContext.peer()` names it."""
        share = self._shares.get(peer)
        if share is None:
            share = self._shares[peer] = Share(self._weight)
        return share


def admit(
    admission: Admission,
    call: Call,
    version: ServedVersion,
    stream: StreamKey,
    share: Share,
    received_ns: int,
    deadline_ns: int | None,
    on_completion: Callable[[Completion], None],
    trace: TraceContext | None = None,
    frame: FrameBuffer | None = None,
) -> Request:
    """Hand a call to the batch former and return its request; `on_completion` will be called once, on the loop.

    Args:
        admission: the way in.
        call: checked.
        version: runs it.
        stream: the stream that it belongs to.
        share: whose permit it takes.
        received_ns: when it was read.
        deadline_ns: of the RPC; the call's own options may make it earlier.
        on_completion: receives how it ended.
        trace: that its client sent.
        frame: the inputs, if a worker has made it of them; the request owns them from here on, errors included.

    Raises:
        DeadlineExpiredError: the deadline cannot be met.
        OverloadedError: there is no permit for it, or no memory is free.
        InvalidRequestError: BYTES are not as they have to be.
    """
    template, options = call.template, call.template.options
    for duration_ns in (options.timeout_ns or None, options.budget_ns):
        if duration_ns is not None:
            own_ns = received_ns + duration_ns
            deadline_ns = own_ns if deadline_ns is None else min(deadline_ns, own_ns)
    journal = version.requests
    arrival = Arrival(
        version,
        stream,
        template.rows,
        template.batch_key,
        deadline_ns,
        options.priority or version.description.batching.default_priority,
        partial(frame_of, call, version, share) if frame is None else lambda: frame,
        on_completion if journal is None else partial(_observed, journal, trace, on_completion),
        Timeline(received_ns),
        _TENSORS_ONLY,
        queue_timeout_ns=options.timeout_ns or None,
    )
    try:
        request = admission.take(arrival, TOO_LATE)
        admission.enter(version, request)
    except Exception as error:
        if frame is not None:
            frame.release()
        refuse(admission, version, received_ns, error, trace)
        raise
    return request


def refuse(
    admission: Admission, version: ServedVersion, received_ns: int, error: BaseException, trace: TraceContext | None
) -> None:
    """Count a call that was read for a version and ended before it became a request."""
    admission.refuse(version, counted_outcome(error), received_ns, version.requests, trace)


def _observed(
    journal: RequestJournal,
    trace: TraceContext | None,
    on_completion: Callable[[Completion], None],
    completion: Completion,
) -> None:
    journal.ended(completion, trace)
    on_completion(completion)


def note_delivery(version: ServedVersion, completion: Completion, clock: Clock) -> None:
    """Tell the version's former how long an executed request took from readable outputs to here."""
    if completion.outputs is not None:
        version.egress_time.observe(completion.request.timeline.readable_ns, clock.now_ns())
