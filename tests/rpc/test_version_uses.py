"""A version that is unloaded closes when its last user has gone: it waits for no other, and forgets none."""

import asyncio
import threading

import grpc

from forebay.wire import frames_pb2 as pb
from forebay_server.engines.device_simulated import SimulatedDevice
from forebay_server.engines.simulated.handles import SimulatedHostBuffer
from tests.support.guard import HANG_GUARD_S
from tests.support.loops import on_loop
from tests.support.real_server import eventually, open_message, real_server, simulated

LARGE_BYTES = 2 << 20  # a plain copy of this size is a worker's


class HeldBuffer(SimulatedHostBuffer):
    """A worker that is about to write into it waits, as if its copy took long."""

    def write_view(self):
        view = super().write_view()
        if threading.current_thread().name.startswith("worker-"):
            self.device.is_writing.set()
            assert self.device.may_go_on.wait(HANG_GUARD_S)
            self.device.were_open.append(not self.is_closed)
        return view


class HeldDevice(SimulatedDevice):
    def __init__(self, clock):
        super().__init__(clock=clock)
        self.is_writing, self.may_go_on, self.were_open = threading.Event(), threading.Event(), []

    def alloc_host(self, nbytes):
        with self._core.lock:
            buffer = HeldBuffer(self._core, "held", nbytes)
        buffer.device = self
        return buffer


class HeldDevices:
    def __init__(self):
        self.devices = []

    def __call__(self, kind, clock):
        self.devices.append(HeldDevice(clock))
        return self.devices[-1]


async def unload(running):
    await asyncio.to_thread(running.server.lifecycle.unload, "sim")


async def a_frame_that_a_worker_copies(running, device):
    """Return the stream of a frame that a worker is copying into its buffer."""
    stream = await running.open()
    await stream.send(1, bytes(LARGE_BYTES))
    assert await asyncio.to_thread(device.is_writing.wait, HANG_GUARD_S)
    return stream


@on_loop
async def test_a_version_stays_open_while_a_worker_fills_the_buffer_of_a_client_that_has_left(tmp_path):
    simulated(tmp_path, input_bytes=LARGE_BYTES, output="checksum")
    devices = HeldDevices()
    settings = {"model_control_mode": "explicit", "load_model": ("sim",)}
    async with real_server(tmp_path, devices=devices, permits=2, **settings) as running:
        (device,) = devices.devices
        version = running.version()
        stream = await a_frame_that_a_worker_copies(running, device)
        stream.call.cancel()
        await eventually(lambda: not running.server.frames.streams)
        await unload(running)
        closing = running.server.registry.unloading
        await eventually(lambda: closing() == [("sim", "1")])
        assert not version.wait_unused(0), "it has no user, though a worker writes into its memory"
        device.may_go_on.set()
        await eventually(lambda: not closing())
        assert device.were_open == [True]
        assert version.arena.leased_count == 0


class SlowToBegin:
    """The context of a call whose initial metadata take long. Its client opens a stream, and leaves when asked to."""

    def __init__(self):
        self.is_beginning, self.may_begin, self.is_asked_to_leave = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._sent = [pb.ClientMessage(open=open_message()).SerializeToString()]

    def peer(self):
        return "ipv4:127.0.0.1:1"

    def invocation_metadata(self):
        return ()

    async def send_initial_metadata(self, metadata):
        self.is_beginning.set()
        await self.may_begin.wait()

    async def read(self):
        if self._sent:
            return self._sent.pop()
        await self.is_asked_to_leave.wait()
        return grpc.aio.EOF

    async def write(self, data):
        if pb.ServerMessage.FromString(data).HasField("reconnect"):
            self.is_asked_to_leave.set()


@on_loop
async def test_a_stream_that_is_being_opened_while_its_version_is_unloaded_is_asked_to_leave(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path, model_control_mode="explicit", load_model=("sim",)) as running:
        context = SlowToBegin()
        stream = asyncio.create_task(running.server.frames.stream(None, context))
        await context.is_beginning.wait()
        await unload(running)  # and `send_away` has run: it was posted to this loop before that ended
        context.may_begin.set()
        async with asyncio.timeout(HANG_GUARD_S):
            await stream
        await eventually(lambda: not running.server.registry.unloading())
