"""How a single request ends that has no answer."""

import grpc


class StatusError(Exception):
    """A single request ends without an answer: its handler raises this, and the handler's caller sends the status.

    A handler that sent the status itself would keep the message: gRPC holds the error of an aborted call, with the
    frames and the errors behind it, until the next run of Python's collector of cycles.

    Args:
        code: status of the call.
        message: public.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
