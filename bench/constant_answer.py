"""The answers of the servers without a pipeline: to an Open that the stream is open, to a frame its number and OK."""

from forebay.wire import frames_pb2 as pb
from forebay_server.service.frontend.frames.codec import parse_client_message


class ConstantAnswer:
    """Message to answer, both as bytes. One thread at a time."""

    def __init__(self) -> None:
        self._opened = pb.ServerMessage(opened=pb.Opened(session_id="bare")).SerializeToString()
        self._result = pb.ServerMessage()
        self._result.result.status.code = pb.STATUS_OK

    def __call__(self, message: bytes) -> bytes:
        """Return the answer to a message."""
        frame = parse_client_message(message)
        if isinstance(frame, pb.Open):
            return self._opened
        self._result.result.seq = frame.seq
        return self._result.SerializeToString()
