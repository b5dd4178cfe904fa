"""Errors as the Open Inference Protocol has them: one table from outcome to status code, and Triton's messages.

Clients match on both, so messages that Triton has are Triton's; Forebay's own have a remedy.
"""

import asyncio

import grpc
import structlog

from forebay_server.service.errors import (
    DeadlineExpiredError,
    InvariantError,
    Outcome,
    QueueFullError,
    QueueTimeoutError,
    ServiceError,
    UnknownModelError,
    internal,
)
from forebay_server.service.frontend.statuses import StatusError

log = structlog.get_logger(__name__)

INFERENCE_STATUS: dict[Outcome, grpc.StatusCode] = {
    Outcome.OK: grpc.StatusCode.OK,
    Outcome.SUPERSEDED: grpc.StatusCode.ABORTED,
    Outcome.NEEDS_KEYFRAME: grpc.StatusCode.FAILED_PRECONDITION,
    Outcome.EXPIRED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Outcome.OVERLOADED: grpc.StatusCode.UNAVAILABLE,
    Outcome.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Outcome.CANCELLED: grpc.StatusCode.CANCELLED,
    Outcome.FAILED: grpc.StatusCode.INTERNAL,
    Outcome.CORRUPT: grpc.StatusCode.INTERNAL,
    Outcome.LOST: grpc.StatusCode.UNAVAILABLE,
    Outcome.INTERNAL: grpc.StatusCode.INTERNAL,
    Outcome.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Outcome.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Outcome.BAD_STATE: grpc.StatusCode.FAILED_PRECONDITION,
    Outcome.UNSUPPORTED: grpc.StatusCode.UNIMPLEMENTED,
}
"""Outcome of a request -> the status of its RPC."""

_OUTCOME_BY_STATUS: dict[grpc.StatusCode, Outcome] = {
    grpc.StatusCode.INVALID_ARGUMENT: Outcome.INVALID,
    grpc.StatusCode.NOT_FOUND: Outcome.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED: Outcome.UNSUPPORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Outcome.OVERLOADED,
}
"""Outcome that an error of only this protocol counts as; INTERNAL for the rest."""

UNKNOWN_ID = "<id_unknown>"
MAX_ID_SHOWN = 128  # a status travels in headers, of which gRPC takes 8 KiB


class InferenceError(StatusError):
    """An answer that only this protocol has, with its own status code.

    Args:
        code: status of the RPC.
        message: public.
        is_for_elsewhere: whether another server may well take the call.
    """


def counted_outcome(error: BaseException) -> Outcome:
    """Return the outcome that a request counts as if it ended with this exception."""
    if isinstance(error, ServiceError):
        return error.outcome
    if isinstance(error, asyncio.CancelledError):
        return Outcome.CANCELLED
    if isinstance(error, InferenceError):
        return _OUTCOME_BY_STATUS.get(error.code, Outcome.INTERNAL)
    return Outcome.INTERNAL


def status_of(error: ServiceError | InferenceError, request_id: str = "", *, is_timed: bool = False) -> InferenceError:
    """Return the status and the text for the error that ended a request.

    Args:
        error: the error.
        request_id: the client's name of the request; stands before the text.
        is_timed: whether the request set `timeout`: then a passed deadline reads as a queue timeout.
    """
    if isinstance(error, InferenceError):
        return error
    if isinstance(error, QueueTimeoutError) or (is_timed and isinstance(error, DeadlineExpiredError)):
        return InferenceError(grpc.StatusCode.UNAVAILABLE, "Request timeout expired")
    message = "Exceeds maximum queue size" if isinstance(error, QueueFullError) else error.message
    code = INFERENCE_STATUS[error.outcome]
    if not isinstance(error, UnknownModelError):
        message = f"[request id: {request_id[:MAX_ID_SHOWN] or UNKNOWN_ID}] {message}"
    return InferenceError(code, message, is_for_elsewhere=error.is_for_elsewhere)


def in_stream(error: InferenceError, request_id: str) -> str:
    """Return the text of an error inside a stream, where tritonclient's callback sees only the text."""
    if not request_id or error.message.startswith("[request id: "):
        return error.message
    return f"[request id: {request_id[:MAX_ID_SHOWN]}] {error.message}"


def answer_to(error: Exception, request_id: str = "", *, is_timed: bool = False) -> InferenceError:
    """Return `status_of` any exception. Bugs and unforeseen errors are logged, only here, and once."""
    known = error if isinstance(error, ServiceError | InferenceError) else internal(error)
    if isinstance(known, InvariantError):
        log.error("request failed", detail=known.detail, exc_info=known)
    return status_of(known, request_id, is_timed=is_timed)
