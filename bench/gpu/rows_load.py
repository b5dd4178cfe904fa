"""A closed-loop client of the Open Inference Protocol whose requests hold many rows: enough for a GPU, at little cost.

Run as a process of its own: `python -m forebay_server.bench.gpu.rows_load ADDRESS MODEL --shape 32,224,224,3 ...`.
"""

import argparse
import asyncio
import json
import time
from typing import Any

import numpy as np

METHOD = "/inference.GRPCInferenceService/ModelInfer"


async def run(address: str, model: str, shape: tuple[int, ...], window: int, seconds: float) -> dict[str, float]:
    """Keep `window` requests in flight for `seconds`; return rows, seconds, latencies and CPU."""
    import grpc

    from forebay.wire import inference_pb2 as pb

    pixels = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8).tobytes()
    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=shape)
    data = pb.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[pixels]).SerializeToString()
    latencies_s: list[float] = []
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    options += [("grpc.http2.max_frame_size", 1 << 20), ("grpc.use_local_subchannel_pool", 1)]

    async def one(until: float) -> None:
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            method: Any = channel.unary_unary(METHOD)  # type: ignore[call-arg]  # the stubs demand serializers
            await method(data)
            while (started := time.perf_counter()) < until:
                await method(data)
                latencies_s.append(time.perf_counter() - started)

    started, started_cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one(started + seconds) for _ in range(window)))
    elapsed_s = time.perf_counter() - started
    p50_ms, p99_ms = (np.quantile(latencies_s or [np.nan], [0.5, 0.99]) * 1e3).tolist()
    return {
        "rows_per_s": len(latencies_s) * shape[0] / elapsed_s,
        "p50_ms": p50_ms,
        "p99_ms": p99_ms,
        "client_cpu_s": time.process_time() - started_cpu,
        "wall_s": elapsed_s,
    }


def main() -> None:
    """Parse arguments, tune, run, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("model")
    parser.add_argument("--shape", required=True)
    parser.add_argument("--window", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    from forebay_server.service.tuning import tune_process

    tune_process()
    shape = tuple(int(dim) for dim in arguments.shape.split(","))
    print(json.dumps(asyncio.run(run(arguments.address, arguments.model, shape, arguments.window, arguments.seconds))))


if __name__ == "__main__":
    main()
