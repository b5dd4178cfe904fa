"""The protocols that a load of the benchmarks speaks, as raw bytes, and the connections that it uses.

A payload and everything else that frames share is put together once, so that a client costs little beside the server.
"""

from typing import Any, Protocol

import numpy as np

from forebay.wire import frames_pb2 as pb
from forebay.wire import inference_pb2 as oip

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.http2.max_frame_size", 1 << 20),
    ("grpc.use_local_subchannel_pool", 1),  # else channels of one process share one connection
)


def noise(payload_bytes: int, seed: int = 1) -> bytes:
    """Return random bytes, the same ones for a seed."""
    return np.random.default_rng(seed).integers(0, 255, payload_bytes, np.uint8).tobytes()


def channels_to(address: str, count: int) -> list[Any]:
    """Return `count` connections; imports grpc, so the process is tuned before."""
    import grpc

    return [grpc.aio.insecure_channel(address, options=list(CHANNEL_OPTIONS)) for _ in range(count)]


class Dialect(Protocol):
    """One protocol on one stream. Answers come in the order of the frames."""

    method: str

    def opening(self, index: int, window: int) -> bytes | None:
        """Return what a stream begins with, and is answered before the first frame."""
        ...

    def frame(self, seq: int) -> bytes:
        """Return one frame."""
        ...

    def rows(self, data: bytes) -> int | None:
        """Return the rows of the batch that an answer's frame ran in, or None if it is not OK."""
        ...


DELIVERIES = {"every": pb.DELIVERY_EVERY, "latest": pb.DELIVERY_LATEST}


class ForebayDialect:
    """forebay.v1: TENSOR, EVERY unless `delivery` is set."""

    method = "/forebay.v1.FrameInference/Stream"

    def __init__(self, model: str, payload: bytes) -> None:
        self._model = model
        self._payload = payload
        self.delivery = pb.DELIVERY_EVERY

    def opening(self, index: int, window: int) -> bytes:
        """Return an Open."""
        opening = pb.Open(
            model=self._model,
            stream_id=f"bench-{index}",
            encoding=pb.ENCODING_TENSOR,
            delivery=self.delivery,
            max_in_flight=window,
        )
        return pb.ClientMessage(open=opening).SerializeToString()

    def frame(self, seq: int) -> bytes:
        """Return a Frame."""
        return pb.ClientMessage(frame=pb.Frame(seq=seq, payload=self._payload)).SerializeToString()

    def rows(self, data: bytes) -> int | None:
        """Read a Result."""
        result = pb.ServerMessage.FromString(data).result
        return result.batch_size if result.status.code == pb.STATUS_OK else None


class InferenceDialect:
    """The Open Inference Protocol's stream: one UINT8 input called `input`, raw contents."""

    method = "/inference.GRPCInferenceService/ModelStreamInfer"

    def __init__(self, model: str, payload: bytes) -> None:
        self._request = oip.ModelInferRequest(model_name=model, raw_input_contents=[payload])
        self._request.inputs.add(name="input", datatype="UINT8", shape=[1, len(payload)])

    def opening(self, index: int, window: int) -> None:  # noqa: ARG002 - as every dialect
        """Nothing is said once for all."""
        return

    def frame(self, seq: int) -> bytes:
        """Return a ModelInferRequest."""
        self._request.id = str(seq)
        return self._request.SerializeToString()

    def rows(self, data: bytes) -> int | None:
        """Read a ModelStreamInferResponse."""
        return None if oip.ModelStreamInferResponse.FromString(data).error_message else 0


class UnaryDialect(InferenceDialect):
    """The same requests, each in a call of its own."""

    method = "/inference.GRPCInferenceService/ModelInfer"


DIALECTS: dict[str, type[ForebayDialect] | type[InferenceDialect]] = {
    "forebay": ForebayDialect,
    "oip": InferenceDialect,
    "oip-unary": UnaryDialect,
}
