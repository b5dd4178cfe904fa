"""A front-end process without a front end, before a real engine process's parts on the test's own loop."""

import contextlib
import json
import socket
from dataclasses import dataclass

from forebay_server.service.group.engine_server import EngineServer
from forebay_server.service.group.memory_file import MemoryFile
from forebay_server.service.group.memory_layout import MemoryLayout
from forebay_server.service.group.messages import Hello, Published, Welcome
from forebay_server.service.group.shared_counts import PermitCounts
from forebay_server.service.group.talk import Talk
from forebay_server.service.settings import ServeSettings
from tests.support.far_front_end import FarFrontEnd
from tests.support.guard import HANG_GUARD_S
from tests.support.real_server import SimulatedDevices, eventually

FRONT_ENDS = 2


@dataclass
class Mapped:
    """A version's memory as a front-end process has it."""

    layout: MemoryLayout
    file: MemoryFile

    @property
    def memory(self):
        return self.file.memory


class FarProcess:
    """One front-end process: says hello, keeps its messages, and has a `FarFrontEnd` for each version."""

    def __init__(self, control, front_end, *, greets=True):
        self.front_end = front_end
        self.data, data = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours, talk = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with data, talk:
            message = json.dumps({"front_end": front_end}).encode()
            socket.send_fds(control, [message], [data.fileno(), talk.fileno()])
        self.messages = []
        self.versions = {}
        self.permits = None
        self.is_lost = False
        self._files = []
        self.talk = Talk(ours, self._on_message, self._on_end)
        if greets:
            self.talk.send(Hello(0))

    def _on_message(self, message, descriptors):
        self.messages.append(message)
        files = [MemoryFile.attach(each) for each in descriptors]
        self._files += files
        match message:
            case Welcome():
                self.permits = PermitCounts(files[0].memory, FRONT_ENDS)
            case Published():
                self.versions[message.name, message.version] = FarFrontEnd(
                    Mapped(message.layout, files[0]),
                    front_end=self.front_end,
                    number=message.number,
                    connection=self.data,
                )

    def _on_end(self):
        self.is_lost = True

    def got(self, kind):
        return [message for message in self.messages if isinstance(message, kind)]

    async def told(self, kind, count=1):
        """The messages of one kind, once there are so many."""
        await eventually(lambda: len(self.got(kind)) >= count)
        return self.got(kind)

    async def far(self, name="sim", version="1"):
        """A version, once it is published; its first stream is open."""
        await eventually(lambda: (name, version) in self.versions)
        far = self.versions[name, version]
        far.open_stream()
        return far

    def forget_files(self):
        """Let go of all memory that it has."""
        if self.permits is not None:
            self.permits.close()
            self.permits = None
        for file in self._files:
            file.close()

    def die(self):
        """End as a killed process does."""
        self.talk.close()
        self.data.close()


@contextlib.asynccontextmanager
async def engine_process(root, *, devices=None, permits=8, **settings):
    """The parts of an engine process and the parent's end of its control socket; ends in order."""
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    given = ServeSettings(
        model_repository=(root,),
        rehearse_loads=False,
        admin_address="",
        front_ends=FRONT_ENDS,
        permits=permits,
        drain_grace_s=HANG_GUARD_S,
        **settings,
    )
    engine = EngineServer(given, theirs, open_device=devices or SimulatedDevices())
    processes = []

    def process(front_end=0, **options):
        processes.append(FarProcess(control, front_end, **options))
        return processes[-1]

    try:
        await engine.start()
        yield engine, process
    finally:
        release(engine)
        for each in processes:
            each.die()
        engine.code = await engine.close()
        control.close()
        for each in processes:
            each.forget_files()


def _compute_streams(engine):
    return [lane.execute.device_stream for version in engine.registry.running() for lane in version.lanes]


def hold(engine):
    """Let no execution end (simulated devices)."""
    for device_stream in _compute_streams(engine):
        device_stream.hold()


def release(engine):
    for device_stream in _compute_streams(engine):
        device_stream.release()
