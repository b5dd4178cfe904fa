"""The least that a stream of frames can cost with grpc.aio: read, find the sequence number, write a constant answer.

No validation, no window, no batching, no other thread. Its cost is the cost of public grpc.aio on the machine and at
the hour of the run, so that a ratio to it holds anywhere; the rest of Forebay's cost is Forebay's own.
With `--hand-over` a second thread makes the answers of all waiting frames and gives them back to the event loop in
one call: the least that a server with a pipeline can do. Unary calls (Open Inference) are answered at once.
Run as a process of its own: `python -m forebay_server.bench.bare_server [--hand-over] LISTEN...`;
prints `listening PORT` when ready.
"""

import argparse
import asyncio
import queue
import signal
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING

from forebay.wire import inference_pb2 as oip
from forebay_server.service.tuning import tune_process

if TYPE_CHECKING:
    import grpc

    from forebay_server.bench.constant_answer import ConstantAnswer

    Context = grpc.aio.ServicerContext[bytes, bytes]


UNARY_ANSWER = oip.ModelInferResponse(
    model_name="identity", model_version="1", raw_output_contents=[bytes(8)]
).SerializeToString()


async def _at_once(context: "Context", answer: "ConstantAnswer") -> None:
    while isinstance(message := await context.read(), bytes):
        await context.write(answer(message))


class _Outgoing:
    """The answers of one stream that were made and not yet written. Owner: the event loop."""

    def __init__(self) -> None:
        self.answers: deque[bytes] = deque()
        self.open_answers = 0
        self.is_ended = False
        self.changed = asyncio.Event()

    async def write(self, context: "Context") -> None:
        while not self.is_ended or self.open_answers or self.answers:
            if self.answers:
                await context.write(self.answers.popleft())
            else:
                self.changed.clear()
                await self.changed.wait()


class _SecondThread:
    """Makes answers away from the event loop."""

    def __init__(self, answer: "ConstantAnswer") -> None:
        self._answer = answer
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[tuple[_Outgoing, bytes]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="second", daemon=True).start()

    def _work(self) -> None:
        while True:
            made = [self._make(*self._jobs.get())]
            while not self._jobs.empty():  # the only thread that takes
                made.append(self._make(*self._jobs.get()))
            self._loop.call_soon_threadsafe(_deliver, made)

    def _make(self, outgoing: _Outgoing, message: bytes) -> tuple[_Outgoing, bytes]:
        return outgoing, self._answer(message)

    async def serve(self, context: "Context") -> None:
        outgoing = _Outgoing()
        writing = asyncio.create_task(outgoing.write(context))
        while isinstance(message := await context.read(), bytes):
            outgoing.open_answers += 1
            self._jobs.put((outgoing, message))
        outgoing.is_ended = True
        outgoing.changed.set()
        await writing


def _deliver(made: list[tuple[_Outgoing, bytes]]) -> None:
    for outgoing, answer in made:
        outgoing.open_answers -= 1
        outgoing.answers.append(answer)
        outgoing.changed.set()


async def _serve(listen: list[str], *, is_handed_over: bool) -> None:
    import grpc

    from forebay_server.bench.constant_answer import ConstantAnswer
    from forebay_server.service.frontend.server import server_options
    from forebay_server.service.settings import ServeSettings

    answer = ConstantAnswer()
    second = _SecondThread(answer) if is_handed_over else None

    async def stream(_: object, context: "Context") -> None:
        await (_at_once(context, answer) if second is None else second.serve(context))

    server = grpc.aio.server(options=server_options(ServeSettings.model_validate({})))

    async def unary(_: bytes, __: "Context") -> bytes:
        return UNARY_ANSWER

    handler = grpc.stream_stream_rpc_method_handler(stream)
    unary_handler = grpc.unary_unary_rpc_method_handler(unary)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("forebay.v1.FrameInference", {"Stream": handler}),
            grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": unary_handler}),
        )
    )
    ports = [server.add_insecure_port(address) for address in listen]
    await server.start()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stopping.set)
    sys.stdout.write(f"listening {ports[0]}\n")
    sys.stdout.flush()
    await stopping.wait()
    await server.stop(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m forebay_server.bench.bare_server", description=__doc__)
    parser.add_argument("listen", nargs="+", metavar="LISTEN", help="address: host:port or unix:PATH; port 0 is any")
    parser.add_argument("--hand-over", action="store_true", help="a second thread makes the answers")
    given = parser.parse_args()
    tune_process()
    asyncio.run(_serve(given.listen, is_handed_over=given.hand_over))
