"""Many single requests at a time, for `bench.scaling`: how each ended."""

import asyncio
import time
from collections import Counter

import grpc.aio

from forebay.wire import inference_pb2 as pb

METHOD = "/inference.GRPCInferenceService/ModelInfer"
ROW_BYTES = 1024


async def flood(address: str, model: str, at_a_time: int, seconds: float) -> Counter[str]:
    """Make calls for a while, so many at a time, each next one at once; return the names of their statuses."""
    tensor = pb.ModelInferRequest.InferInputTensor(name="input", datatype="UINT8", shape=[1, ROW_BYTES])
    request = pb.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[bytes(ROW_BYTES)])
    data, codes, until_s = request.SerializeToString(), Counter[str](), time.monotonic() + seconds

    async def calls(channel: grpc.aio.Channel) -> None:
        call = channel.unary_unary(METHOD, None, None)
        while time.monotonic() < until_s:
            try:
                await call(data)
            except grpc.aio.AioRpcError as error:
                codes[error.code().name] += 1
            else:
                codes["OK"] += 1

    async with grpc.aio.insecure_channel(address) as channel:
        await asyncio.gather(*(calls(channel) for _ in range(at_a_time)))
    return codes
