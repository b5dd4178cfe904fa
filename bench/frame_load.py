"""A lean closed-loop client of forebay.v1 for benchmarks: raw bytes, a fixed number of frames in flight.

Closed loop: it measures what a frame costs the server and how long one takes alone. It says nothing about latency under
load; `forebay load` does. Run as a process of its own: `python -m bench.frame_load ADDRESS MODEL ...`.
"""

import argparse
import asyncio
import json
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


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
    """

    frames: int
    not_ok: int
    wall_s: float
    client_cpu_s: float
    p50_ms: float
    p99_ms: float


async def run(address: str, model: str, payload_bytes: int, streams: int, window: int, frames: int) -> LoadResult:
    """Send `frames` frames over `streams` streams with `window` in flight on each; EVERY, TENSOR."""
    import grpc

    from forebay.wire import frames_pb2 as pb

    payload = np.random.default_rng(1).integers(0, 255, payload_bytes, np.uint8).tobytes()
    round_trips: list[float] = []
    not_ok = 0
    options = [("grpc.max_receive_message_length", -1), ("grpc.http2.max_frame_size", 1 << 20)]

    async def one_stream(index: int, count: int) -> None:
        nonlocal not_ok
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            method = "/forebay.v1.FrameInference/Stream"
            call: Any = channel.stream_stream(method)()  # type: ignore[call-arg]  # the stubs demand serializers
            opening = pb.Open(
                model=model,
                stream_id=f"bench-{index}",
                encoding=pb.ENCODING_TENSOR,
                delivery=pb.DELIVERY_EVERY,
                max_in_flight=window,
            )
            await call.write(pb.ClientMessage(open=opening).SerializeToString())
            await call.read()
            sent: dict[int, float] = {}
            for seq in range(1, count + window + 1):
                if seq > window:
                    result = pb.ServerMessage.FromString(await call.read()).result
                    round_trips.append(time.perf_counter() - sent.pop(result.seq))
                    not_ok += result.status.code != pb.STATUS_OK
                if seq <= count:
                    message = pb.ClientMessage(frame=pb.Frame(seq=seq, payload=payload)).SerializeToString()
                    sent[seq] = time.perf_counter()
                    await call.write(message)
            await call.done_writing()
            await call.read()

    started, started_cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one_stream(index, frames // streams) for index in range(streams)))
    quantiles = np.quantile(round_trips, [0.5, 0.99]) * 1e3
    return LoadResult(
        frames=len(round_trips),
        not_ok=not_ok,
        wall_s=time.perf_counter() - started,
        client_cpu_s=time.process_time() - started_cpu,
        p50_ms=float(quantiles[0]),
        p99_ms=float(quantiles[1]),
    )


def main() -> None:
    """Parse arguments, tune, run, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("model")
    parser.add_argument("--payload-bytes", type=int, required=True)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--window", type=int, default=1)
    parser.add_argument("--frames", type=int, default=1000)
    arguments = parser.parse_args()
    from service.tuning import tune_process

    tune_process()
    print(json.dumps(asdict(asyncio.run(run(**vars(arguments))))))


if __name__ == "__main__":
    main()
