"""A server that answers every frame at once and does nothing else: an upper bound for the generator.

Used to calibrate the generator, and, with faults, to show that the generator detects a server's faults. It is no model
of a real server. Also runnable: python -m forebay_server.loadtest.null_server --listen unix:/tmp/null.sock
"""

import argparse
import asyncio
import os
import signal
import sys
from dataclasses import dataclass, fields

import grpc

from forebay.wire import frames_pb2 as wire
from forebay_server.loadtest import null_inference

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
    ("grpc.http2.max_frame_size", 1 << 20),
)
_INPUT = wire.TensorSpec(name="input", datatype="UINT8", shape=[3, 224, 224])
_Call = grpc.aio.ServicerContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Faults of the server; frames are counted from 1 over all streams, 0 switches a fault off."""

    delay_ms: float = 0.0  # before every answer, one frame of a stream at a time; reported as execution
    stall_at_frame: int = 0  # the answers of this frame and of later ones are held back ...
    stall_ms: float = 50.0  # ... for this long
    drop_frame: int = 0  # never answered
    duplicate_frame: int = 0  # answered twice
    garbage_frame: int = 0  # answered by bytes that are no valid message
    swap_frame: int = 0  # answered after its successor
    supersede_every: int = 0  # every Nth frame is SUPERSEDED
    break_at_frame: int = 0  # the stream of this frame is aborted
    exit_at_frame: int = 0  # the whole process ends without a message
    never_answer: bool = False
    never_open: bool = False
    garbage_open: bool = False


class NullServer:
    """See the module. Owner: the event loop it was started on."""

    def __init__(self, faults: Faults | None = None) -> None:
        self._faults = faults or Faults()
        self.frame_count = 0
        self._server = grpc.aio.server(options=_OPTIONS)
        handler = grpc.stream_stream_rpc_method_handler(self._stream)
        service = grpc.method_handlers_generic_handler("forebay.v1.FrameInference", {"Stream": handler})
        inference = {
            "ModelMetadata": grpc.unary_unary_rpc_method_handler(self._metadata),
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self._infer),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self._stream_infer),
        }
        second = grpc.method_handlers_generic_handler(null_inference.SERVICE, inference)
        self._server.add_generic_rpc_handlers((service, second))
        self.port = 0

    async def start(self, address: str) -> None:
        """Listen on HOST:PORT (port 0: any, see `port`) or unix:PATH."""
        self.port = self._server.add_insecure_port(address)
        await self._server.start()

    async def stop(self) -> None:
        """End at once; open streams are cancelled."""
        await self._server.stop(0)

    async def wait(self) -> None:
        """Wait until the server was stopped."""
        await self._server.wait_for_termination()

    async def _stream(self, _requests: object, context: "_Call[bytes, bytes]") -> None:
        if not isinstance(first := await context.read(), bytes):
            return
        opening = wire.ClientMessage.FromString(first).open
        if self._faults.never_open:
            await asyncio.get_running_loop().create_future()
        await context.write(b"\xff\xff" if self._faults.garbage_open else _opened(opening))
        held: bytes | None = None
        while isinstance(data := await context.read(), bytes):
            frame = wire.ClientMessage.FromString(data).frame
            answers = await self._answers(frame, context)
            if answers is None:
                held = self._result(frame, wire.STATUS_OK)
                continue
            for answer in (*answers, held) if held is not None else answers:
                await context.write(answer)
            held = None

    async def _metadata(self, request: bytes, _context: object) -> bytes:
        return null_inference.metadata(request)

    async def _infer(self, request: bytes, context: "_Call[bytes, bytes]") -> bytes:
        self.frame_count += 1
        await asyncio.sleep(self._faults.delay_ms / 1e3)
        if self.frame_count == self._faults.break_at_frame:
            await context.abort(grpc.StatusCode.INTERNAL, "broken on purpose")
        return null_inference.infer(request)

    async def _stream_infer(self, _requests: object, context: "_Call[bytes, bytes]") -> None:
        while isinstance(request := await context.read(), bytes):
            self.frame_count += 1
            await asyncio.sleep(self._faults.delay_ms / 1e3)
            every = self._faults.supersede_every
            is_superseded = every and self.frame_count % every == 0
            await context.write(null_inference.stream_infer(request, "Superseded" if is_superseded else ""))

    async def _answers(self, frame: wire.Frame, context: "_Call[bytes, bytes]") -> list[bytes] | None:
        """Return the messages that answer `frame`; None: answer it after the next one."""
        self.frame_count += 1
        number, faults = self.frame_count, self._faults
        if faults.exit_at_frame and number >= faults.exit_at_frame:
            os._exit(1)
        if number == faults.break_at_frame:
            await context.abort(grpc.StatusCode.INTERNAL, "broken on purpose")
        if faults.delay_ms:
            await asyncio.sleep(faults.delay_ms / 1e3)
        if number == faults.stall_at_frame:
            await asyncio.sleep(faults.stall_ms / 1e3)
        if faults.never_answer or number == faults.drop_frame:
            return []
        if number == faults.garbage_frame:
            return [b"\xff\xff\xff"]
        if number == faults.swap_frame:
            return None
        superseded = faults.supersede_every and number % faults.supersede_every == 0
        answer = self._result(frame, wire.STATUS_SUPERSEDED if superseded else wire.STATUS_OK)
        return [answer, answer] if number == faults.duplicate_frame else [answer]

    def _result(self, frame: wire.Frame, code: "wire.StatusCode") -> bytes:
        result = wire.Result(seq=frame.seq, capture_time_us=frame.capture_time_us)
        result.status.code = code
        if self._faults.delay_ms:
            result.timings.execute_us = result.timings.server_total_us = round(self._faults.delay_ms * 1e3)
        return wire.ServerMessage(result=result).SerializeToString()


def _opened(opening: wire.Open) -> bytes:
    delivery = opening.delivery or wire.DELIVERY_LATEST
    opened = wire.Opened(session_id="null", model=opening.model, model_version="1", inputs=[_INPUT], delivery=delivery)
    opened.window = opening.max_in_flight or 8
    return wire.ServerMessage(opened=opened).SerializeToString()


async def _serve(address: str, faults: Faults) -> None:
    server = NullServer(faults)
    await server.start(address)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: loop.create_task(server.stop()))
    sys.stdout.write(f"listening {server.port}\n")
    sys.stdout.flush()
    await server.wait()


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP; prints `listening PORT` when ready."""
    parser = argparse.ArgumentParser(prog="python -m forebay_server.loadtest.null_server", description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:0", help="HOST:PORT or unix:PATH")
    for field in fields(Faults):
        name = "--" + field.name.replace("_", "-")
        if isinstance(field.default, bool):
            parser.add_argument(name, action="store_true")
        else:
            parser.add_argument(name, type=type(field.default), default=field.default)
    options = vars(parser.parse_args(arguments))
    address = options.pop("listen")
    asyncio.run(_serve(address, Faults(**options)))


if __name__ == "__main__":
    main()
