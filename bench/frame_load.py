"""A lean closed-loop client for benchmarks: raw bytes, a fixed number of frames in flight, either protocol.

Closed loop: it measures what a frame costs the server and how long one takes alone. It says nothing about latency under
load; `forebay load` does. Run as a process of its own: `python -m forebay_server.bench.frame_load ADDRESS MODEL ...`.
"""

import argparse
import asyncio
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from forebay.wire import frames_pb2 as pb
from forebay.wire import inference_pb2 as oip

STREAMS_PER_CONNECTION = 100


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What one run saw.

    Attributes:
        frames: answered.
        not_ok: answered with another status than OK.
        wall_s: duration.
        client_cpu_s: CPU of this process, a yardstick for how busy the machine was.
        p50_ms: median round trip.
        p99_ms: 99th percentile of round trips.
        mean_batch: rows of the batch that a frame ran in, on average; 0 where the protocol does not say.
    """

    frames: int
    not_ok: int
    wall_s: float
    client_cpu_s: float
    p50_ms: float
    p99_ms: float
    mean_batch: float


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


@dataclass(slots=True)
class _Run:
    """What the streams of one run share."""

    dialect: Dialect
    round_trips_s: list[float]
    not_ok: int = 0
    batch_rows: int = 0

    async def one_caller(self, call: Any, seqs: range) -> None:  # noqa: ANN401 - grpc.aio's
        """Make unary calls, one after the other."""
        for seq in seqs:
            message = self.dialect.frame(seq)
            sent = time.perf_counter()
            await call(message)  # raises for anything but OK
            self.round_trips_s.append(time.perf_counter() - sent)

    async def one_stream(self, call: Any, index: int, count: int, window: int) -> None:  # noqa: ANN401 - grpc.aio's
        opening = self.dialect.opening(index, window)
        if opening is not None:
            await call.write(opening)
            await call.read()
        sent: dict[int, float] = {}
        for seq in range(1, count + window + 1):
            if seq > window:
                rows = self.dialect.rows(await call.read())
                self.round_trips_s.append(time.perf_counter() - sent.pop(seq - window))
                self.not_ok += rows is None
                self.batch_rows += rows or 0
            if seq <= count:
                message = self.dialect.frame(seq)
                sent[seq] = time.perf_counter()
                await call.write(message)
        await call.done_writing()
        await call.read()


async def run(
    address: str,
    model: str,
    payload_bytes: int,
    streams: int,
    window: int,
    frames: int,
    protocol: str,
    payload_file: Path | None = None,
) -> LoadResult:
    """Send `frames` frames over `streams` streams with `window` in flight on each: what a file holds, or noise."""
    import grpc

    payload = np.random.default_rng(1).integers(0, 255, payload_bytes, np.uint8).tobytes()
    if model == "shufflenet":  # FP32: random bytes may be NaN
        payload = np.random.default_rng(1).standard_normal(payload_bytes // 4, np.float32).tobytes()
    if payload_file is not None:
        payload = payload_file.read_bytes()
    dialect: Dialect = DIALECTS[protocol](model, payload)
    shared = _Run(dialect, [])
    options = [("grpc.max_receive_message_length", -1), ("grpc.http2.max_frame_size", 1 << 20)]
    options += [("grpc.use_local_subchannel_pool", 1)]  # else channels of one process share one connection
    connections = min(streams, max(4, streams // STREAMS_PER_CONNECTION))
    channels: list[Any] = [grpc.aio.insecure_channel(address, options=options) for _ in range(connections)]
    started, started_cpu = time.perf_counter(), time.process_time()
    count = max(1, frames // streams)
    if isinstance(dialect, UnaryDialect):
        callers = [channels[index % connections].unary_unary(dialect.method) for index in range(streams * window)]
        await asyncio.gather(*(shared.one_caller(call, range(max(1, count // window))) for call in callers))
    else:
        calls: list[Any] = [channels[index % connections].stream_stream(dialect.method)() for index in range(streams)]
        await asyncio.gather(*(shared.one_stream(call, index, count, window) for index, call in enumerate(calls)))
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - started_cpu
    for channel in channels:
        await channel.close()
    quantiles = np.quantile(shared.round_trips_s, [0.5, 0.99]) * 1e3
    return LoadResult(
        frames=len(shared.round_trips_s),
        not_ok=shared.not_ok,
        wall_s=wall_s,
        client_cpu_s=cpu_s,
        p50_ms=float(quantiles[0]),
        p99_ms=float(quantiles[1]),
        mean_batch=shared.batch_rows / len(shared.round_trips_s),
    )


def main() -> None:
    """Parse arguments, tune, run, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("model")
    parser.add_argument("--payload-bytes", type=int, default=0)
    parser.add_argument("--payload-file", type=Path, help="send these bytes instead of noise")
    parser.add_argument("--protocol", choices=DIALECTS, default="forebay")
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--window", type=int, default=1)
    parser.add_argument("--frames", type=int, default=1000)
    arguments = parser.parse_args()
    from forebay_server.service.tuning import tune_process

    tune_process()
    print(json.dumps(asdict(asyncio.run(run(**vars(arguments))))))


if __name__ == "__main__":
    main()
