"""The bare server again, without grpc.aio: what grpcio's private API would give. A prototype; nothing of it is served.

grpc.server with an `experimental_non_blocking` handler, which keeps its call and issues the receive and send operations
itself. Completions run inside grpc.server's one serving thread: no event loop, no thread per stream, no iterator.
The names with an underscore come from grpcio 1.85.1 and may change with any release, so that Forebay does not use them
(docs/adr/0006-front-end.md). Deadlines, cancelling, slow readers and a drain are not looked at here.

With `--hand-over` every frame goes to a second thread, which answers: the least that a server with a pipeline can do.
Run as a process of its own: `python -m forebay_server.bench.private_server [--hand-over] LISTEN...`;
prints `listening PORT`.
"""

import queue
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from forebay_server.bench.bare_options import read_options
from forebay_server.service.tuning import tune_process

Job = tuple["PrivateStream", bytes]


class PrivateStream:
    """One call: at most one receive and one send under way. Answers may be sent from any one thread."""

    def __init__(self, context: Any, finish: Callable[[None], None], take: Callable[[Job], None]) -> None:  # noqa: ANN401
        from grpc._cython import cygrpc  # type: ignore[attr-defined]  # an extension without stubs

        context.send_initial_metadata(())
        self._call = context._rpc_event.call  # noqa: SLF001 - the point of this file
        self._finish = finish
        self._take = take
        self._receive_operation = cygrpc.ReceiveMessageOperation
        self._send_operation = cygrpc.SendMessageOperation
        self._lock = threading.Lock()
        self._unsent: deque[bytes] = deque()
        self._is_sending = False
        self._open_answers = 0
        self._is_half_closed = False

    def receive(self) -> None:
        """Ask for the next message."""
        self._call.start_server_batch((self._receive_operation(0),), self._received)

    def _received(self, event: Any) -> tuple[None, tuple[()]]:  # noqa: ANN401 - cygrpc has no types
        message = event.batch_operations[0].message()
        if message is None:
            with self._lock:
                self._is_half_closed = True
                is_over = not self._open_answers
            if is_over:
                self._finish(None)
            return None, ()
        with self._lock:
            self._open_answers += 1
        self._take((self, message))
        self.receive()
        return None, ()

    def send(self, answer: bytes) -> None:
        """Send, now or after what is under way."""
        with self._lock:
            if self._is_sending:
                self._unsent.append(answer)
                return
            self._is_sending = True
        self._call.start_server_batch((self._send_operation(answer, 0),), self._sent)

    def _sent(self, _: Any) -> tuple[None, tuple[()]]:  # noqa: ANN401 - cygrpc has no types
        with self._lock:
            self._open_answers -= 1
            answer = self._unsent.popleft() if self._unsent else None
            self._is_sending = answer is not None
            is_over = self._is_half_closed and not self._open_answers
        if answer is not None:
            self._call.start_server_batch((self._send_operation(answer, 0),), self._sent)
        elif is_over:
            self._finish(None)
        return None, ()


def _answer_with(template: Callable[[bytes], bytes]) -> Callable[[Job], None]:
    def answer(job: Job) -> None:
        stream, message = job
        stream.send(template(message))

    return answer


def _on_second_thread(answer: Callable[[Job], None]) -> Callable[[Job], None]:
    """Return what gives a job to a thread that answers it."""
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()

    def work() -> None:
        while True:
            answer(jobs.get())

    threading.Thread(target=work, name="second", daemon=True).start()
    return jobs.put


def _serve(listen: list[str], *, is_handed_over: bool) -> None:
    import grpc

    from forebay_server.bench.constant_answer import ConstantAnswer
    from forebay_server.service.frontend.server import server_options
    from forebay_server.service.settings import ServeSettings

    stop_signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)  # they wait until this thread waits for them
    answer = _answer_with(ConstantAnswer())
    take = _on_second_thread(answer) if is_handed_over else answer

    def stream(_: object, context: object, finish: Callable[[None], None]) -> None:
        PrivateStream(context, finish, take).receive()

    stream.experimental_non_blocking = True  # type: ignore[attr-defined]
    server = grpc.server(ThreadPoolExecutor(1), options=server_options(ServeSettings.model_validate({})))
    handler = grpc.stream_stream_rpc_method_handler(stream)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("forebay.v1.FrameInference", {"Stream": handler}),)
    )
    ports = [server.add_insecure_port(address) for address in listen]
    server.start()
    sys.stdout.write(f"listening {ports[0]}\n")
    sys.stdout.flush()
    signal.sigwait(stop_signals)
    server.stop(0).wait()


if __name__ == "__main__":
    given = read_options("forebay_server.bench.private_server", __doc__)
    tune_process()
    _serve(given.listen, is_handed_over=given.hand_over)
