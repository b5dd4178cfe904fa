"""One stream that floods a server with small frames, open loop: so many a second, as far as the server reads them.

Run as a process of its own: `python -m forebay_server.bench.flood_load ADDRESS MODEL ...`; prints one JSON object. It
ends without waiting for the answers that are left.
"""

import argparse
import asyncio
import contextlib
import json
import time
from collections import Counter
from typing import Any

from forebay.wire import frames_pb2 as pb

METHOD = "/forebay.v1.FrameInference/Stream"
DELIVERIES = {"every": pb.DELIVERY_EVERY, "latest": pb.DELIVERY_LATEST}
TICK_S = 0.002


async def flood(
    address: str, model: str, payload_bytes: int, per_s: float, seconds: float, delivery: str, window: int
) -> dict[str, Any]:
    """Send for `seconds`; return how many frames were sent and how they were answered."""
    import grpc

    statuses: Counter[str] = Counter()
    channel: Any = grpc.aio.insecure_channel(address)  # the stubs demand serializers
    async with channel:
        call = channel.stream_stream(METHOD)()
        opening = pb.Open(
            model=model,
            stream_id="flood",
            encoding=pb.ENCODING_TENSOR,
            delivery=DELIVERIES[delivery],
            max_in_flight=window,
        )
        await call.write(pb.ClientMessage(open=opening).SerializeToString())
        await call.read()

        async def read() -> None:
            while data := await call.read():
                message = pb.ServerMessage.FromString(data)
                if message.HasField("result"):
                    statuses[pb.StatusCode.Name(message.result.status.code).removeprefix("STATUS_")] += 1

        reading = asyncio.create_task(read())
        payload, start, sent = bytes(payload_bytes), time.perf_counter(), 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    while sent < (time.perf_counter() - start) * per_s:
                        sent += 1
                        frame = pb.Frame(seq=sent, payload=payload)
                        await call.write(pb.ClientMessage(frame=frame).SerializeToString())
                    await asyncio.sleep(TICK_S)
        reading.cancel()
        call.cancel()
    return {"sent": sent, "statuses": dict(statuses)}


def main() -> None:
    """Parse arguments, send, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("model")
    parser.add_argument("--payload-bytes", type=int, required=True)
    parser.add_argument("--per-s", type=float, default=3000.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--delivery", choices=DELIVERIES, default="every")
    parser.add_argument("--window", type=int, default=16)
    print(json.dumps(asyncio.run(flood(**vars(parser.parse_args())))))


if __name__ == "__main__":
    main()
