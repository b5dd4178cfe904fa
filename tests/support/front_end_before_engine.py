"""A server in its second form, on one event loop: see `tests.support.forms`."""

import asyncio
import json
import socket

from forebay.wire import inference_pb2 as pb
from forebay_server.service.group.engine_server import EngineServer
from forebay_server.service.group.front_end_server import FrontEndServer
from forebay_server.service.group.group_settings import engine_settings, front_end_settings
from forebay_server.service.group.parent import reserved
from forebay_server.service.ready import Ready

FRONT_ENDS, INDEX = 2, 1


class FrontEndBeforeEngine:
    """Has the attributes of `service.server.Server` that tests use, each from the side that it is on."""

    def __init__(self, settings, clock=None, before_execution=None, **parts):
        self._reserved = reserved(settings.address)
        address = self._reserved.__enter__()
        control, self._control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.settings = settings
        self.engine = EngineServer(
            engine_settings(settings, FRONT_ENDS), control, clock, before_execution=before_execution, **parts
        )
        own = front_end_settings(settings, FRONT_ENDS, address)
        whole = ("uds", "worker_threads", "max_connections", "reception_bytes")  # the other process never comes
        own = own.model_copy(update={name: getattr(settings, name) for name in whole})
        data, their_data = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        talk, their_talk = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with their_data, their_talk:
            message = json.dumps({"front_end": INDEX}).encode()
            socket.send_fds(self._control, [message], [their_data.fileno(), their_talk.fileno()])
        self.front = FrontEndServer(own, INDEX, (data, talk), clock)
        self.clock = self.front.clock
        self.registry, self.lifecycle, self.models = self.engine.registry, self.engine.lifecycle, self.engine.models
        self.admin, self.life, self.pool = self.engine.admin, self.engine.life, self.front.pool
        self.on_fatal = self.engine.on_fatal

    @property
    def has_hung_loads(self):
        return self.engine.has_hung_loads

    @property
    def journal(self):
        return self.engine.journal

    @property
    def admin_address(self):
        return self.engine.admin.address

    @property
    def permits(self):
        return self.front.engine.permits

    @property
    def frames(self):
        return self.front.parts.frames

    @property
    def inference(self):
        return self.front.parts.inference

    @property
    def regions(self):
        return self.front.parts.regions

    @property
    def receptions(self):
        return self.front.parts.receptions

    @property
    def front_end(self):
        return self.front.parts.front_end

    @property
    def is_ready(self):
        return self.front.is_ready

    @property
    def served(self):
        """The versions as the front end has them."""
        return self.front.engine.registry

    @property
    def arenas(self):
        """Of the front end, beside those of the engine."""
        return [version.arena for version in self.front.engine.registry.published()]

    async def start(self):
        starting = asyncio.create_task(self.front.start())
        try:
            ready = await self.engine.start()
            listening = await starting
        except BaseException:
            self.front.life.stopping.set()
            await asyncio.wait([starting])
            raise
        return Ready(listening.address, listening.uds, self.admin_address, listening.pid, ready.models)

    async def told(self):
        """Both sides have taken in the messages that the other one has sent before."""
        front = self.front.engine
        front._shipper.tell_all()
        await front.forwarded._ask("LogSettings", pb.LogSettingsRequest())

    async def wait(self):
        await self.engine.wait()

    def stop(self, *number):
        self.front.stop(*number)
        self.engine.stop(*number)

    async def close(self):
        """End as the processes do: both at once, and the engine process after the front end."""
        try:
            if self.life.fatal is None:
                return max(await asyncio.gather(self.front.close(), self.engine.close()))
            code = await self.engine.close()
            await self.front.wait()  # it finds that the other one has gone
            return max(code, await self.front.close())
        finally:
            await asyncio.to_thread(self.engine.links.stop)  # a process that ends at once has no need to
            await asyncio.to_thread(self.engine.pool.close)
            self._let_go()

    async def close_unstarted(self):
        await self.front.close_unstarted()
        await self.engine.close_unstarted()
        self._let_go()

    def _let_go(self):
        self._control.close()
        self._reserved.__exit__(None, None, None)
