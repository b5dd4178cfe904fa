"""Exceptions of the client. The outcome of a frame is never an exception: it is the status of its Result."""


class ForebayError(Exception):
    """Base of all exceptions that this library raises on purpose."""


class StreamRefusedError(ForebayError):
    """The server ended the stream for a reason that a retry would not change.

    Attributes:
        code: name of the gRPC status code, for example NOT_FOUND.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code


class CallRefusedError(ForebayError):
    """The server refused a single call, such as `Client.models`.

    Attributes:
        code: name of the gRPC status code, for example PERMISSION_DENIED.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code


class ResultTimeoutError(ForebayError, TimeoutError):
    """No result came within the given time."""


class UnreachableError(ForebayError):
    """No stream could be opened within the caller's time limit."""


class ProtocolError(ForebayError):
    """The other side does not speak this protocol."""


class StreamClosedError(ForebayError):
    """The stream takes no more frames: it was finished or closed."""


class ForkedClientError(ForebayError):
    """This process was forked after its parent had used a client: gRPC does not work here."""


class SendTimeoutError(ForebayError, TimeoutError):
    """No room for the frame became free within the given time."""
