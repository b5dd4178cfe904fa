"""How a call ends that has no answer.

A refusal that another server may well take has the metadata `elsewhere: 1`, so that a proxy tries there at once. It
stands on refusals of calls that were not begun, of a server that drains or has as many streams as it may have. Nothing
else has it: where work is refused because there is too much of it, a proxy that tried again would add to it.
"""

from typing import Final

import grpc

ELSEWHERE: Final = (("elsewhere", "1"),)


class StatusError(Exception):
    """A single request ends without an answer: its handler raises this, and the handler's caller sends the status.

    A handler that sent the status itself would keep the message: gRPC holds the error of an aborted call, with the
    frames and the errors behind it, until the next run of Python's collector of cycles.

    Args:
        code: status of the call.
        message: public.
        is_for_elsewhere: whether another server may well take the call.
    """

    def __init__(self, code: grpc.StatusCode, message: str, *, is_for_elsewhere: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.is_for_elsewhere = is_for_elsewhere

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Of the refusal."""
        return metadata_of(is_for_elsewhere=self.is_for_elsewhere)


def metadata_of(*, is_for_elsewhere: bool, retry_after_ms: int = 0) -> tuple[tuple[str, str], ...]:
    """Return the trailing metadata of a refusal.

    Args:
        is_for_elsewhere: whether another server may well take the call.
        retry_after_ms: advice to the client, 0 for none.
    """
    hint = (("retry-after-ms", str(retry_after_ms)),) if retry_after_ms else ()
    return (*hint, *ELSEWHERE) if is_for_elsewhere else hint
