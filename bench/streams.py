"""The cost of many streams: memory of the server per open stream, and CPU per frame at 1 and at 256 streams."""

import asyncio
import contextlib
from collections.abc import Iterator

from forebay_server.bench.dialects import ForebayDialect
from forebay_server.bench.frame_load import STREAMS_PER_CONNECTION
from forebay_server.bench.identity import offer
from forebay_server.bench.rows import Row, Spread
from forebay_server.bench.server_process import RunningServer, running_server, simulated_config

PAYLOAD_BYTES = 20_480
COUNTS = (1, 100, 1000)
FEW, MANY = 1, 256
IN_FLIGHT = 32
BAR_GROWTH = 2.0


async def hold_streams(server: RunningServer, count: int) -> int:
    """Open `count` streams, send a frame on each, and return what the server holds then, in bytes."""
    import grpc

    dialect = ForebayDialect("identity", bytes(PAYLOAD_BYTES))
    options = [("grpc.use_local_subchannel_pool", 1)]
    connections = -(-count // STREAMS_PER_CONNECTION)
    async with contextlib.AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(server.address, options=options))
            for _ in range(connections)
        ]
        calls = [channels[i % connections].stream_stream(dialect.method)() for i in range(count)]  # type: ignore[call-arg]
        for index, call in enumerate(calls):
            for message in (dialect.opening(index, window=4), dialect.frame(1)):
                await call.write(message)
                await call.read()
        held_bytes = server.pss_bytes()
        for call in calls:
            await call.done_writing()
        for call in calls:
            await call.read()
        return held_bytes


def rows(*, is_quick: bool) -> Iterator[Row]:
    """Measure both."""
    config = simulated_config(alpha_ms=0, beta_ms=0, input_bytes=PAYLOAD_BYTES)
    with running_server({"identity": config}) as server:
        if not is_quick:
            yield from _memory(server)
    with running_server({"identity": config}) as server:
        frames, repeats = (2048, 3) if is_quick else (4096, 5)
        growth = []
        for repeat in range(repeats + 1):
            few = offer(server, server.address, PAYLOAD_BYTES, streams=FEW, window=IN_FLIGHT, frames=frames)
            many = offer(server, server.address, PAYLOAD_BYTES, streams=MANY, window=1, frames=frames)
            if repeat:
                growth.append(
                    (many["server_cpu_ms"] / many["client_cpu_ms"]) / (few["server_cpu_ms"] / few["client_cpu_ms"])
                )
        yield Row(
            f"identity, 20 KB: server CPU per frame, {MANY} streams over {FEW}",
            Spread.of(growth),
            bar=BAR_GROWTH,
            note="each over the client's CPU, which opens the streams too",
        )


def _memory(server: RunningServer) -> Iterator[Row]:
    asyncio.run(hold_streams(server, 8))  # warm up
    empty_bytes = server.pss_bytes()
    for count in COUNTS:
        held_bytes = asyncio.run(hold_streams(server, count))
        per_stream = Spread.of([(held_bytes - empty_bytes) / count / 1024])
        note = f"{held_bytes / (1 << 20):.0f} MB in all; a frame of {PAYLOAD_BYTES // 1000} KB was sent on each"
        yield Row(f"memory per open stream, {count} streams", per_stream, "KB", note=note)
