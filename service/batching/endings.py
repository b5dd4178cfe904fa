"""Why a request ended without execution, in the words that its client reads: the cause and how to mend it."""

import enum

from forebay_server.service.batching.constants import TELLING_NS
from forebay_server.service.batching.settings import BatchingSettings
from forebay_server.service.errors import (
    DeadlineExpiredError,
    InvalidRequestError,
    QueueFullError,
    QueueTimeoutError,
    RequestCancelledError,
    ServiceError,
    SupersededError,
)
from forebay_server.service.request import Request


class Reason(enum.Enum):
    """Why a pending request ends without execution."""

    EXPIRED = "expired"
    TIMED_OUT = "timed_out"
    SUPERSEDED = "superseded"
    CANCELLED = "cancelled"
    QUEUE_FULL = "queue_full"
    TOO_LARGE = "too_large"


def error_of(
    reason: Reason, request: Request, settings: BatchingSettings, least_service_ns: float, egress_ns: float = 0.0
) -> ServiceError:
    """Return the error that ends `request`."""
    match reason:
        case Reason.EXPIRED:
            delivery = f" and {egress_ns / 1e6:.1f} ms to be delivered" if egress_ns >= TELLING_NS else ""
            return DeadlineExpiredError(
                f"the latency budget cannot be met: a lone frame needs {least_service_ns / 1e6:.1f} ms{delivery} "
                "beside what is in front of it; raise the budget or send fewer frames"
            )
        case Reason.TIMED_OUT:
            return QueueTimeoutError("the request's queue timeout passed; raise it or send fewer requests")
        case Reason.SUPERSEDED:
            return SupersededError("a newer frame of this stream took its place; delivery EVERY keeps all frames")
        case Reason.CANCELLED:
            return RequestCancelledError("cancelled before execution")
        case Reason.QUEUE_FULL:
            limit = settings.queue_policy_of(settings.level_of(request.priority)).max_queue_size
            return QueueFullError(
                f"{limit} requests are pending, as many as max_queue_size allows; send again later",
                retry_after_ms=max(1, round(least_service_ns / 1e6)),
            )
        case Reason.TOO_LARGE:
            return InvalidRequestError(
                f"the request has {request.size} rows, the model takes at most {settings.max_batch_size}; split it"
            )
