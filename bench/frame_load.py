"""A lean client for benchmarks: raw bytes, either protocol, closed loop or at a fixed rate.

Closed loop, `--frames` with `--window` in flight on each stream: it measures what a frame costs the server and how long
one takes alone. It says nothing about latency under load. Open loop, `--rate`: see `bench.open_loop`. Run as a process
of its own: `python -m forebay_server.bench.frame_load ADDRESS MODEL ...`; it prints one JSON object.
"""

import argparse
import asyncio
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forebay_server.bench.dialects import (
    DELIVERIES,
    DIALECTS,
    Dialect,
    ForebayDialect,
    UnaryDialect,
    channels_to,
    noise,
)
from forebay_server.bench.open_loop import LAST_ANSWERS_S, OpenLoadResult, precise_loop, run_at_rate

STREAMS_PER_CONNECTION = 100


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The measurements of one closed loop.

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


@dataclass(slots=True)
class _Run:
    """The measurements that the streams of one run share."""

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
    """Send `frames` frames over `streams` streams with `window` in flight on each."""
    dialect = DIALECTS[protocol](model, _payload(model, payload_bytes, payload_file))
    shared = _Run(dialect, [])
    connections = min(streams, max(4, streams // STREAMS_PER_CONNECTION))
    channels = channels_to(address, connections)
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


def _payload(model: str, payload_bytes: int, payload_file: Path | None) -> bytes:
    """Return the bytes of a file, or noise."""
    if payload_file is not None:
        return payload_file.read_bytes()
    if model == "shufflenet":  # FP32: random bytes may be NaN
        return np.random.default_rng(1).standard_normal(payload_bytes // 4, np.float32).tobytes()
    return noise(payload_bytes)


async def _run(given: argparse.Namespace) -> LoadResult | OpenLoadResult:
    if given.rate is None:
        return await run(
            given.address,
            given.model,
            given.payload_bytes,
            given.streams,
            given.window,
            given.frames,
            given.protocol,
            given.payload_file,
        )
    dialect = DIALECTS[given.protocol](given.model, _payload(given.model, given.payload_bytes, given.payload_file))
    if isinstance(dialect, ForebayDialect):
        dialect.delivery = DELIVERIES[given.delivery]
    channels = channels_to(given.address, given.streams)
    return await run_at_rate(
        dialect, channels, given.window, given.rate, given.seconds, tick_s=given.tick_ms / 1e3, wait_s=given.wait_s
    )


def main() -> None:
    """Parse arguments, tune, run, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("model")
    parser.add_argument("--payload-bytes", type=int, default=0)
    parser.add_argument("--payload-file", type=Path, help="send these bytes instead of noise")
    parser.add_argument("--protocol", choices=DIALECTS, default="forebay")
    parser.add_argument("--streams", type=int, default=1, help="streams, or connections of unary calls")
    parser.add_argument("--window", type=int, default=1)
    parser.add_argument("--frames", type=int, default=1000, help="closed loop: together")
    parser.add_argument("--rate", type=float, help="open loop: frames per second together")
    parser.add_argument("--seconds", type=float, default=5.0, help="open loop: of sending")
    parser.add_argument("--delivery", choices=DELIVERIES, default="every", help="open loop: mode of forebay.v1")
    parser.add_argument("--tick-ms", type=float, default=0.0, help="open loop: due frames leave together, so often")
    parser.add_argument("--wait-s", type=float, default=LAST_ANSWERS_S, help="open loop: for the last answers")
    given = parser.parse_args()
    from forebay_server.service.tuning import tune_process

    tune_process()
    with asyncio.Runner(loop_factory=None if given.rate is None else precise_loop) as runner:
        print(json.dumps(asdict(runner.run(_run(given)))))


if __name__ == "__main__":
    main()
