"""The least that a stream of frames can cost with grpc.aio: read, find the sequence number, write a constant answer.

No validation, no window, no batching, no other thread. What Forebay costs above this is Forebay's own; this itself is
what public grpc.aio costs on the machine and at the hour of the run, so that a ratio to it holds anywhere.
Run as a process of its own: `python -m bench.bare_server LISTEN...`; prints `listening PORT` when ready.
"""

import asyncio
import signal
import sys

from service.tuning import tune_process


async def _serve(listen: list[str]) -> None:
    import grpc

    from forebay.wire import frames_pb2 as pb
    from service.frontend.frames_codec import parse_client_message
    from service.frontend.server import server_options
    from service.settings import ServeSettings

    async def stream(_: object, context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        await context.read()
        await context.write(pb.ServerMessage(opened=pb.Opened(session_id="bare")).SerializeToString())
        answer = pb.ServerMessage()
        answer.result.status.code = pb.STATUS_OK
        while isinstance(data := await context.read(), bytes):
            frame = parse_client_message(data)
            if not isinstance(frame, pb.Open):
                answer.result.seq = frame.seq
                await context.write(answer.SerializeToString())

    server = grpc.aio.server(options=server_options(ServeSettings.model_validate({})))
    handler = grpc.stream_stream_rpc_method_handler(stream)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("forebay.v1.FrameInference", {"Stream": handler}),)
    )
    ports = [server.add_insecure_port(address) for address in listen]
    await server.start()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    sys.stdout.write(f"listening {ports[0]}\n")
    sys.stdout.flush()
    await stopping.wait()
    await server.stop(0)


if __name__ == "__main__":
    tune_process()
    asyncio.run(_serve(sys.argv[1:]))
