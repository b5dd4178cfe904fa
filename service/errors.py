"""Errors that reach a client, and no others.

Every error has an `outcome`: how the request or the stream ended, in the service's terms. Each codec has one table from
outcome to its wire (forebay.v1 status codes, gRPC codes, Triton's messages); a test walks the tables. The message is
public: it contains no path, host, module or traceback. Details for the operator go to the log.

An error has a scope. *request*: one frame ends with it, in band, and its stream stays open. *session*: the whole RPC
ends.
"""

import enum
from typing import ClassVar, Literal

MAX_MESSAGE_CHARACTERS = 500  # a status travels in HTTP/2 headers, of which gRPC takes 8 KiB, percent-encoded


class Outcome(enum.Enum):
    """How a request or a stream ended. Exactly one for every admitted or refused frame."""

    OK = "ok"
    SUPERSEDED = "superseded"
    NEEDS_KEYFRAME = "needs_keyframe"
    EXPIRED = "expired"
    OVERLOADED = "overloaded"
    INVALID = "invalid"
    FAILED = "failed"
    CANCELLED = "cancelled"
    NOT_FOUND = "not_found"
    BAD_STATE = "bad_state"
    UNSUPPORTED = "unsupported"
    UNAVAILABLE = "unavailable"
    LOST = "lost"
    CORRUPT = "corrupt"
    INTERNAL = "internal"

    __hash__ = object.__hash__  # members are unique, and Enum's own is Python code on the data path


class ServiceError(Exception):
    """Base of all errors that a client may see; never raised itself.

    Args:
        message: public; names the fault, its place, and the remedy. Cut if a client's own text makes it too long.
        retry_after_ms: advice to the client, 0 for none.
    """

    outcome: ClassVar[Outcome]
    scope: ClassVar[Literal["request", "session"]]
    is_for_elsewhere: ClassVar[bool] = False
    """Whether another server may well take the call, which this one has not begun: the refusal says so to proxies."""

    def __init__(self, message: str, *, retry_after_ms: int = 0) -> None:
        if type(self) is ServiceError:
            raise TypeError("raise one of ServiceError's subclasses")
        message = message[:MAX_MESSAGE_CHARACTERS]
        super().__init__(message)
        self.message = message
        self.retry_after_ms = retry_after_ms


class InvalidRequestError(ServiceError):
    """The frame itself is wrong: shape, dtype, byte count, image, seq."""

    outcome = Outcome.INVALID
    scope = "request"


class OverloadedError(ServiceError):
    """No permit is free: the server holds as many frames as its limit allows."""

    outcome = Outcome.OVERLOADED
    scope = "request"


class QueueFullError(OverloadedError):
    """The pending requests of its priority level have reached the model's max_queue_size."""


class SupersededError(ServiceError):
    """A newer frame of a LATEST stream took its place."""

    outcome = Outcome.SUPERSEDED
    scope = "request"


class NeedsKeyframeError(ServiceError):
    """Its picture needs one that was lost, damaged or never sent; decoding goes on at the next keyframe."""

    outcome = Outcome.NEEDS_KEYFRAME
    scope = "request"


class DeadlineExpiredError(ServiceError):
    """The budget cannot be met, or has passed, before execution; the work is never started."""

    outcome = Outcome.EXPIRED
    scope = "request"


class QueueTimeoutError(DeadlineExpiredError):
    """The request's queue timeout passed while it was pending."""


class RequestCancelledError(ServiceError):
    """The client left, or the server gave the frame up at the end of its drain."""

    outcome = Outcome.CANCELLED
    scope = "request"


class BatchFailedError(ServiceError):
    """Execution failed; the engine is still healthy."""

    outcome = Outcome.FAILED
    scope = "request"


class CorruptResultError(ServiceError):
    """An output is invalid: NaN where none may be, a size that does not match."""

    outcome = Outcome.CORRUPT
    scope = "request"


class EngineEndedError(ServiceError):
    """The engine process that had the request has ended before it answered; others serve on."""

    outcome = Outcome.LOST
    scope = "request"


class UnknownModelError(ServiceError):
    """No such model or version."""

    outcome = Outcome.NOT_FOUND
    scope = "session"


class SessionStateError(ServiceError):
    """A message that the state of the stream does not allow: a frame before Open, a second Open."""

    outcome = Outcome.BAD_STATE
    scope = "session"


class InvalidSessionError(ServiceError):
    """Open asks for an impossible combination."""

    outcome = Outcome.INVALID
    scope = "session"


class UnsupportedError(ServiceError):
    """A feature that this build or this model does not offer."""

    outcome = Outcome.UNSUPPORTED
    scope = "session"


class NotReadyError(ServiceError):
    """Warming up, or shutting down: try again elsewhere."""

    outcome = Outcome.UNAVAILABLE
    scope = "session"
    is_for_elsewhere = True


class AskedToLeaveError(ServiceError):
    """A stream of another server, or one that was asked to go there, comes while there is no room: try elsewhere."""

    outcome = Outcome.UNAVAILABLE
    scope = "session"
    is_for_elsewhere = True


class TooManyStreamsError(ServiceError):
    """The limit of streams is reached."""

    outcome = Outcome.OVERLOADED
    scope = "session"
    is_for_elsewhere = True


class SlowReaderError(ServiceError):
    """The client took no message for longer than the write deadline."""

    outcome = Outcome.OVERLOADED
    scope = "session"


class MessageLateError(ServiceError):
    """A message that had begun did not end in time."""

    outcome = Outcome.EXPIRED
    scope = "session"


class ReceptionFullError(ServiceError):
    """The messages in reception exceed the server's limit, and this client has held the most for the longest."""

    outcome = Outcome.OVERLOADED
    scope = "session"


class DeviceLostError(ServiceError):
    """The device is lost; this process ends and a supervisor restarts it."""

    outcome = Outcome.LOST
    scope = "session"


class InvariantError(ServiceError):
    """A bug in the server. Logged in full; the client sees a masked text."""

    outcome = Outcome.INTERNAL
    scope = "session"

    def __init__(self, detail: str) -> None:
        super().__init__("internal error; the server's log has the details")
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


def internal(error: Exception) -> InvariantError:
    """Return the error for an unforeseen exception, which becomes its cause, for the log."""
    wrapped = InvariantError(f"{type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
