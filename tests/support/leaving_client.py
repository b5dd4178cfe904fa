"""A client process that gets itself into a given state and then waits to be killed: `ADDRESS STAGE`.

Prints one line when it is there. Run as a script by tests/rpc/test_clients_gone.py.
"""

import asyncio
import sys

import grpc

from forebay.wire import frames_pb2 as pb

FRAMES = 6


async def main(address, stage):
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream("/forebay.v1.FrameInference/Stream")()
        await call.write(
            pb.ClientMessage(
                open=pb.Open(model="sim", stream_id="camera", encoding=pb.ENCODING_TENSOR, delivery=pb.DELIVERY_EVERY)
            ).SerializeToString()
        )
        await call.read()
        if stage == "frames in flight":
            for seq in range(FRAMES):
                await call.write(pb.ClientMessage(frame=pb.Frame(seq=seq, payload=bytes(64))).SerializeToString())
        sys.stdout.write("there\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
