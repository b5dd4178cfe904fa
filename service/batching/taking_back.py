"""Takes bound batches back that wait in their lane while one of their requests runs out of time.

The batch in front may take longer than predicted: its shapes vary, a neighbour takes the cores.
A batch that is bound and not started is not executed, so its queue timeouts and deadlines go on. When the first of
them passes, the whole batch is taken back. The request whose time is over is answered. The others wait in the queue
again, where newcomers may join them, and are bound anew once the lane is free. The batches behind it on its lane come
back as well, or they would overtake.

Every batch that is taken back ends at least one request, so that nothing goes back and forth.

Owner: the former's thread. Source: docs/adr/0095-bound-batches-can-be-taken-back.md.
"""

from forebay_server.service.batching.constants import LOOK_AGAIN_NS, NEVER_NS
from forebay_server.service.batching.endings import Reason
from forebay_server.service.batching.lanes import LaneSet, LaneState
from forebay_server.service.batching.pending import PendingQueue
from forebay_server.service.request import Batch, Request


def take_back(
    now_ns: int, lanes: LaneSet, pending: PendingQueue, least_service_ns: float
) -> list[tuple[Request, Reason]]:
    """Take back every batch that can be and has a request whose time is over; return the requests that end by it.

    Args:
        now_ns: this instant.
        lanes: where batches wait.
        pending: takes the other requests. It rejects those whose queue timeout has passed at its next `time_out`.
        least_service_ns: least time that a lone request needs; a deadline nearer than that is lost.
    """
    ended: list[tuple[Request, Reason]] = []
    for state in lanes.states:
        waiting = state.waiting_batches()
        for index, batch in enumerate(waiting):
            if _lost_ns(batch, pending, least_service_ns) <= now_ns:
                ended += _put_back(_withdraw(state, waiting[index:]), now_ns, pending, least_service_ns)
                break
    return ended


def next_loss_ns(now_ns: int, lanes: LaneSet, pending: PendingQueue, least_service_ns: float) -> int:
    """Return when to look for batches to take back, after `now_ns`; NEVER_NS if nothing that waits has a limit."""
    earliest_ns = NEVER_NS
    for state in lanes.states:
        for batch in state.waiting_batches():
            lost_ns = _lost_ns(batch, pending, least_service_ns)
            earliest_ns = min(earliest_ns, lost_ns if lost_ns > now_ns else now_ns + LOOK_AGAIN_NS)
    return earliest_ns


def _lost_ns(batch: Batch, pending: PendingQueue, least_service_ns: float) -> int:
    """Return when the first request of a batch that is not executed runs out of time."""
    if batch.limits_ns is None:
        deadline_ns = min(map(pending.deadline_ns, batch.requests), default=NEVER_NS)
        batch.limits_ns = pending.timeouts.first_rejection_ns(batch.requests), deadline_ns
    timeout_ns, deadline_ns = batch.limits_ns
    return min(timeout_ns, int(deadline_ns - least_service_ns) + 1) if deadline_ns < NEVER_NS else timeout_ns


def _withdraw(state: LaneState, batches: list[Batch]) -> list[Request]:
    """Take back the last batches of a lane, as many as can be; return their requests in order of forming.

    The last batch goes first: if one cannot be taken back now, those in front of it stay, or it would overtake them.
    """
    requests: list[Request] = []
    for batch in reversed(batches):
        if not state.withdraw(batch):
            break
        requests[:0] = batch.requests
        batch.requests = ()
    return requests


def _put_back(
    requests: list[Request], now_ns: int, pending: PendingQueue, least_service_ns: float
) -> list[tuple[Request, Reason]]:
    ended: list[tuple[Request, Reason]] = []
    kept: list[Request] = []
    for request in requests:
        request.timeline.formed_ns = 0
        if request.is_cancelled:
            ended.append((request, Reason.CANCELLED))
        elif pending.deadline_ns(request) < now_ns + least_service_ns:
            ended.append((request, Reason.EXPIRED))
        else:
            kept.append(request)
    return ended + pending.put_back(kept, now_ns)
