"""Generator processes on other hosts: an agent that starts them, and the coordinator's end of each.

The agent offers one method, Run, a bidirectional stream of the blocks of loadtest.messages. For every call it starts
one generator process and passes blocks through, both ways; when either side ends, so does the other. It has no
authentication: any process that reaches it can make this host send frames anywhere. So it listens on the loopback
address by default, and reads no file that a coordinator names.
"""

import asyncio
import signal
import sys

import grpc

from forebay_server.loadtest import messages
from forebay_server.loadtest.client.words import no_agent
from forebay_server.loadtest.errors import CannotConnectError
from forebay_server.loadtest.messages import Message
from forebay_server.loadtest.workers import LocalWorker

_SERVICE = "forebay.load.v1.Agent"
_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0))
MAX_PROCESSES = 64
_Context = grpc.aio.ServicerContext


class AgentServer:
    """Starts one generator process per call. Owner: the event loop it was started on."""

    def __init__(self) -> None:
        self._server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=MAX_PROCESSES)
        handler = grpc.stream_stream_rpc_method_handler(self._run)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Run": handler}),))
        self.port = 0

    async def start(self, address: str) -> None:
        """Listen on HOST:PORT. Raises CannotConnectError."""
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise CannotConnectError(f"cannot listen on {address}") from error
        await self._server.start()

    async def stop(self) -> None:
        """End all calls and their processes."""
        await self._server.stop(0)

    async def wait(self) -> None:
        """Wait until the agent was stopped."""
        await self._server.wait_for_termination()

    async def _run(self, _requests: object, context: "_Context[bytes, bytes]") -> None:
        worker = await LocalWorker.launch()
        try:
            async with asyncio.TaskGroup() as group:
                inward = group.create_task(_pass_in(context, worker))
                while (block := await worker.receive_block()) is not None:
                    await context.write(block)
                inward.cancel()
        finally:
            await worker.close()


class AgentWorker:
    """A generator process behind an agent. See loadtest.workers.Worker."""

    is_remote = True

    def __init__(self, address: str) -> None:
        self._address = address
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._call = self._channel.stream_stream(f"/{_SERVICE}/Run")()  # type: ignore[call-arg]  # bytes both ways

    async def send(self, message: Message) -> None:
        """See Worker."""
        try:
            await self._call.write(messages.encode(message))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return

    async def receive(self) -> tuple[Message, bytes] | None:
        """See Worker. Raises CannotConnectError."""
        try:
            block = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise CannotConnectError(no_agent(self._address, error.code(), error.details())) from error
        return messages.decode(block) if isinstance(block, bytes) else None

    async def close(self) -> None:
        """See Worker."""
        self._call.cancel()
        await self._channel.close(None)


async def serve_agent(address: str) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP; prints `agent listening on PORT` when ready."""
    server = AgentServer()
    await server.start(address)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: loop.create_task(server.stop()))
    sys.stdout.write(f"agent listening on {server.port}\n")
    sys.stdout.flush()
    await server.wait()


async def _pass_in(context: "_Context[bytes, bytes]", worker: LocalWorker) -> None:
    is_first = True
    while isinstance(block := await context.read(), bytes):
        message, _ = messages.decode(block)
        if is_first and message.get("frames", {}).get("source") not in {"", "synthetic"}:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "this agent reads no files that a coordinator names")
        is_first = False
        await worker.send(message)
    await worker.close()
