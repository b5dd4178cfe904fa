"""A real grpc.aio server whose every stream follows a script: the peer in tests of the client library.

A script is a coroutine that gets one `ScriptedCall` per call. They are numbered, so a test can define "the first call
breaks, the second answers". Nothing here sleeps: scripts wait for messages or for events that the test sets.
"""

from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import grpc
import grpc.aio

from forebay.wire import frames_pb2 as wire

METHOD_SERVICE = "forebay.v1.FrameInference"
WINDOW = 4


class ScriptedCall:
    """One call, from the server's side.

    Attributes:
        index: 0 for the first call that this server got.
        metadata: that the client sent with it.
        peer: name of its connection.
        open: the client's Open, once `accept` has returned.
        seqs: of the frames read so far.
    """

    def __init__(self, index, context):
        self.index = index
        self.context = context
        self.metadata = context.invocation_metadata()
        self.peer = context.peer()  # of a call that has ended, grpc ends the process
        self.open = None
        self.seqs = []
        self.frames = []

    async def accept(self, **granted):
        """Read Open and answer it."""
        message = await self.context.read()
        assert isinstance(message, wire.ClientMessage), "the client left before Open"
        self.open = message.open
        opened = {"session_id": f"s{self.index}", "model": self.open.model, "model_version": "1", "window": WINDOW}
        await self.context.write(wire.ServerMessage(opened=wire.Opened(**{**opened, **granted})))

    async def read(self):
        """Return the next frame, or None at the half-close."""
        message = await self.context.read()
        if not isinstance(message, wire.ClientMessage):
            return None
        self.seqs.append(message.frame.seq)
        self.frames.append(message.frame)
        return message.frame

    async def answer(self, frame_or_seq, code=wire.STATUS_OK, text="", retry_after_ms=0, **fields):
        seq = frame_or_seq if isinstance(frame_or_seq, int) else frame_or_seq.seq
        status = wire.Status(code=code, message=text, retry_after_ms=retry_after_ms)
        await self.context.write(wire.ServerMessage(result=wire.Result(seq=seq, status=status, **fields)))

    async def reconnect(self, grace_ms=5000, reason=wire.Reconnect.REASON_DRAIN):
        message = wire.Reconnect(reason=reason, grace_ms=grace_ms)
        await self.context.write(wire.ServerMessage(reconnect=message))

    async def abort(self, code, details="", metadata=()):
        """End the call, after Open at the earliest: a write that meets the end lets grpc's client report INTERNAL."""
        if self.open is None:
            await self.context.read()
        await self.context.abort(code, details, metadata)

    async def echo(self):
        """Answer every frame until the half-close."""
        while (frame := await self.read()) is not None:
            await self.answer(frame)


async def answers(call):
    """Accept and answer everything."""
    await call.accept()
    await call.echo()


class ScriptedServer:
    """Serves scripts; `calls` holds every call so far."""

    def __init__(self, script: Callable[[ScriptedCall], Awaitable[None]]):
        self.script = script
        self.calls: list[ScriptedCall] = []
        self.address = ""
        self._server = None

    async def start(self, address="127.0.0.1:0", credentials=None):
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handler = grpc.stream_stream_rpc_method_handler(
            self._stream, wire.ClientMessage.FromString, wire.ServerMessage.SerializeToString
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(METHOD_SERVICE, {"Stream": handler}),)
        )
        if credentials is None:
            port = self._server.add_insecure_port(address)
        else:
            port = self._server.add_secure_port(address, credentials)
        self.address = address if address.startswith("unix:") else f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self):
        await self._server.stop(None)

    async def _stream(self, _request_iterator, context):
        call = ScriptedCall(len(self.calls), context)
        self.calls.append(call)
        await self.script(call)


@asynccontextmanager
async def scripted(script=answers, **keywords):
    """Run a scripted server for a block."""
    server = ScriptedServer(script)
    await server.start(**keywords)
    try:
        yield server
    finally:
        await server.stop()


class ScriptedServerThread:
    """The same on a loop in a separate thread, for the synchronous client."""

    def __init__(self, script=answers):
        from forebay.client.loop import LoopThread

        self.server = ScriptedServer(script)
        self._loop = LoopThread("scripted server", self.server.stop)

    def call(self, function, *arguments):
        """Run a plain function on the server's loop."""

        async def run():
            return function(*arguments)

        return self._loop.call(run())

    def __enter__(self):
        self._loop.call(self.server.start())
        return self.server

    def __exit__(self, *_):
        self._loop.stop()
