"""Cameras against a server, open loop: each sends at fixed times, independent of the answers.

In time means at the client within the limit of the intended send, so a late client counts against the server. The
budget of a frame is the rest of the limit: minus the lateness of its sending (a frame that is too old by then is not
sent at all), minus the measured transport time, at least 5 ms: both ways together, from earlier results, round trip
minus the server's own time. Run as a separate process: `python -m forebay_server.bench.camera_load ADDRESS MODEL ...`.
"""

import argparse
import asyncio
import json
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from forebay.client.encode import frame_message
from forebay.wire import frames_pb2 as pb
from forebay_server.bench.frame_load import DELIVERIES

LEAST_TRANSPORT_MS = 5.0
LEAST_BUDGET_MS = 1.0
TRANSPORT_WINDOW = 200
TRANSPORT_QUANTILE = 0.5
CONNECTIONS = 4
START_AFTER_S = 0.5
WARM_UP_SHARE = 0.1
END_AFTER_S = 2.0
METHOD = "/forebay.v1.FrameInference/Stream"
STAGES = ("receive", "decode", "queue", "h2d", "execute", "d2h", "deliver")


@dataclass(frozen=True, slots=True)
class CameraResult:
    """Results of the cameras after the warm-up.

    Attributes:
        in_time_per_s: OK results within the limit of the intended send.
        mean_stage_ms: mean time of executed frames in each stage of the server.
        transport_ms: time subtracted from the limit at the end.
        send_lag_p99_ms: lateness of this client's sending; large numbers void the run.
    """

    cameras: int
    offered_per_s: float
    in_time_per_s: float
    statuses: dict[str, int]
    p50_ms: float
    p99_ms: float
    transport_ms: float
    send_lag_p99_ms: float
    mean_batch: float
    mean_stage_ms: dict[str, float]
    client_cpu_s: float
    wall_s: float


@dataclass(slots=True)
class _Tally:
    """What all cameras share."""

    limit_s: float
    warm_until: float
    transports_s: deque[float] = field(default_factory=lambda: deque(maxlen=TRANSPORT_WINDOW))
    transport_s: float = LEAST_TRANSPORT_MS / 1e3
    offered: int = 0
    in_time: int = 0
    answered: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    send_lags_s: list[float] = field(default_factory=list)
    batch_sizes: list[int] = field(default_factory=list)
    stages_us: Counter[str] = field(default_factory=Counter)

    def answer(self, result: Any, intended: float, sent: float) -> None:  # noqa: ANN401 - generated message
        now = time.perf_counter()
        self.transports_s.append(max(0.0, now - sent - result.timings.server_total_us / 1e6))
        name = pb.StatusCode.Name(result.status.code).removeprefix("STATUS_")
        self.answered += 1
        if self.answered % 20 == 0:
            measured_s = float(np.quantile(self.transports_s, TRANSPORT_QUANTILE))
            self.transport_s = max(LEAST_TRANSPORT_MS / 1e3, measured_s)
        if intended < self.warm_until:
            return
        self.statuses[name] += 1
        if name == "OK":
            self.latencies_s.append(now - intended)
            self.in_time += now - intended <= self.limit_s
            self.batch_sizes.append(result.batch_size)
            for stage in STAGES:
                self.stages_us[stage] += getattr(result.timings, f"{stage}_us")


async def _camera(call: Any, intended: list[float], payload: bytes, tally: _Tally) -> None:  # noqa: ANN401 - grpc.aio
    sent: dict[int, float] = {}

    async def read() -> None:
        while data := await call.read():  # falsy at the end of the stream
            message = pb.ServerMessage.FromString(data)
            if message.HasField("result"):
                seq = message.result.seq
                tally.answer(message.result, intended[seq - 1], sent.pop(seq))

    reader = asyncio.create_task(read())
    for seq, due in enumerate(intended, start=1):
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        now = sent[seq] = time.perf_counter()
        if due >= tally.warm_until:
            tally.offered += 1
            tally.send_lags_s.append(now - due)
        left_ms = (tally.limit_s - (now - due)) * 1e3
        budget_ms = max(LEAST_BUDGET_MS, left_ms - tally.transport_s * 1e3)  # sent all the same: it measures transport
        if left_ms <= 0.0:  # too old to be sent: what a camera would overwrite
            tally.statuses["NOT_SENT"] += due >= tally.warm_until
            del sent[seq]
            continue
        await call.write(frame_message(seq, 0, budget_ms, (payload,)))
    await call.done_writing()
    await reader


async def run(
    address: str,
    model: str,
    payload_bytes: int,
    cameras: int,
    fps: float,
    seconds: float,
    limit_ms: float,
    seed: int,
    jpeg: Path | None = None,
    tensor: Path | None = None,
    delivery: str = "every",
) -> CameraResult:
    """Let `cameras` cameras with random phases send for `seconds`: noise, or one tensor or JPEG again and again."""
    import grpc

    generator = np.random.default_rng(seed)
    file = jpeg or tensor
    payload = generator.integers(0, 255, payload_bytes, np.uint8).tobytes() if file is None else file.read_bytes()
    options = [("grpc.max_receive_message_length", -1), ("grpc.http2.max_frame_size", 1 << 20)]
    channels: list[Any] = [  # the stubs demand serializers and a grace
        grpc.aio.insecure_channel(address, options=[*options, ("grpc.use_local_subchannel_pool", 1)])
        for _ in range(CONNECTIONS)
    ]
    calls: list[Any] = []
    for index in range(cameras):
        call: Any = channels[index % CONNECTIONS].stream_stream(METHOD)()
        opening = pb.Open(
            model=model,
            stream_id=f"camera-{index}",
            encoding=pb.ENCODING_TENSOR if jpeg is None else pb.ENCODING_JPEG,
            delivery=DELIVERIES[delivery],
            max_in_flight=16,
            latency_budget_ms=limit_ms,
        )
        await call.write(pb.ClientMessage(open=opening).SerializeToString())
        await call.read()
        calls.append(call)
    start = time.perf_counter() + START_AFTER_S
    tally = _Tally(limit_ms / 1e3, start + WARM_UP_SHARE * seconds)
    started_cpu = time.process_time()
    instants = [
        [start + phase + frame / fps for frame in range(int(seconds * fps))]
        for phase in generator.uniform(0.0, 1.0 / fps, cameras).tolist()
    ]
    async with asyncio.timeout(START_AFTER_S + seconds * 2 + END_AFTER_S):
        await asyncio.gather(*(_camera(*pair, payload, tally) for pair in zip(calls, instants, strict=True)))
    for channel in channels:
        await channel.close()
    span_s = seconds * (1.0 - WARM_UP_SHARE)
    latencies_ms = np.asarray(tally.latencies_s or [np.nan]) * 1e3
    return CameraResult(
        cameras=cameras,
        offered_per_s=tally.offered / span_s,
        in_time_per_s=tally.in_time / span_s,
        statuses=dict(tally.statuses),
        p50_ms=float(np.quantile(latencies_ms, 0.5)),
        p99_ms=float(np.quantile(latencies_ms, 0.99)),
        transport_ms=tally.transport_s * 1e3,
        send_lag_p99_ms=float(np.quantile(tally.send_lags_s, 0.99)) * 1e3,
        mean_batch=float(np.mean(tally.batch_sizes or [0])),
        mean_stage_ms={stage: us / 1e3 / len(latencies_ms) for stage, us in tally.stages_us.items()},
        client_cpu_s=time.process_time() - started_cpu,
        wall_s=time.perf_counter() - start,
    )


def main() -> None:
    """Parse arguments, tune, run, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("model")
    parser.add_argument("--payload-bytes", type=int, default=0)
    parser.add_argument("--cameras", type=int, required=True)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--limit-ms", type=float, default=100.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jpeg", type=Path, help="send this picture instead of a raw tensor")
    parser.add_argument("--tensor", type=Path, help="send the bytes of this file instead of noise")
    parser.add_argument("--delivery", choices=DELIVERIES, default="every")
    arguments = parser.parse_args()
    from forebay_server.service.tuning import tune_process

    tune_process()
    print(json.dumps(asdict(asyncio.run(run(**vars(arguments))))))


if __name__ == "__main__":
    main()
