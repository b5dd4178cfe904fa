"""Clients that share a server, each kind in a separate process: `ADDRESS KIND NUMBER`.

`stream` and `calls` are greedy: they have NUMBER frames of one stream, or calls of one connection, in flight until
their standard input ends, and print one line when they are first refused. They send refused frames again after
`PAUSE_S`. `cameras` are ten streams that send NUMBER frames each, the next one when the last was answered or, refused,
twice as late as the answer asks for. They print how many each got executed, as JSON.

Run as a script by tests/rpc/test_shares.py.
"""

import asyncio
import json
import sys

import grpc
import numpy as np

from forebay.wire import frames_pb2 as pb
from tests.support.inference import request_of

CAMERAS = 10
PAUSE_S = 0.1
ROW_BYTES = 64
FRAMES = "/forebay.v1.FrameInference/Stream"
INFER = "/inference.GRPCInferenceService/ModelInfer"


class Frames:
    """One stream; `ask` sends a frame and returns the status of its answer."""

    def __init__(self, channel):
        self._call = channel.stream_stream(FRAMES)()
        self._answers = {}
        self._sent = 0
        self._writing = asyncio.Lock()
        self._reading = None

    async def open(self, name, window):
        opening = pb.Open(
            model="sim",
            stream_id=name,
            encoding=pb.ENCODING_TENSOR,
            delivery=pb.DELIVERY_EVERY,
            max_in_flight=window,
        )
        await self._call.write(pb.ClientMessage(open=opening).SerializeToString())
        await self._call.read()
        self._reading = asyncio.create_task(self._read())

    async def _read(self):
        while data := await self._call.read():
            result = pb.ServerMessage.FromString(data).result
            self._answers.pop(result.seq).set_result(result.status)

    async def ask(self):
        async with self._writing:
            self._sent += 1
            answer = self._answers[self._sent] = asyncio.get_running_loop().create_future()
            frame = pb.Frame(seq=self._sent, payload=bytes(ROW_BYTES))
            await self._call.write(pb.ClientMessage(frame=frame).SerializeToString())
        return await answer

    async def close(self):
        await self._call.done_writing()
        await self._reading


async def greedy(ask, number):
    """Keep so many in flight."""
    ended, refused = asyncio.Event(), asyncio.Event()

    async def again_and_again():
        while not ended.is_set():
            if not await ask():
                refused.set()
                await asyncio.sleep(PAUSE_S)

    tasks = [asyncio.create_task(again_and_again()) for _ in range(number)]
    await refused.wait()
    print("refused", flush=True)  # noqa: T201 - for the test
    await asyncio.to_thread(sys.stdin.read)
    ended.set()
    await asyncio.gather(*tasks)


async def greedy_stream(channel, number):
    stream = Frames(channel)
    await stream.open("greedy", number)

    async def ask():
        return (await stream.ask()).code == pb.STATUS_OK

    await greedy(ask, number)
    await stream.close()


async def greedy_calls(channel, number):
    infer = channel.unary_unary(INFER)
    message = request_of("sim", input=np.zeros((1, ROW_BYTES), np.uint8)).SerializeToString()

    async def ask():
        try:
            await infer(message)
        except grpc.aio.AioRpcError:
            return False
        return True

    await greedy(ask, number)


async def cameras(channel, number):
    async def camera(name):
        stream, executed = Frames(channel), 0
        await stream.open(name, 1)
        for _ in range(number):
            status = await stream.ask()
            executed += status.code == pb.STATUS_OK
            await asyncio.sleep(2 * status.retry_after_ms / 1e3)
        await stream.close()
        return executed

    executed = await asyncio.gather(*(camera(f"camera-{index}") for index in range(CAMERAS)))
    print(json.dumps(executed), flush=True)  # noqa: T201 - for the test


async def main(address, kind, number):
    async with grpc.aio.insecure_channel(address) as channel:
        await {"stream": greedy_stream, "calls": greedy_calls, "cameras": cameras}[kind](channel, number)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
