"""A real server inside the test: every part of `forebay serve`, on the test's own event loop, and a raw client.

The client sends bytes and generated messages only, so it can send messages that no client library would. When the block
of a server ends, `assert_quiescent` checks it: every frame has one outcome, no resource is held, no work runs.
"""

import asyncio
import re
from contextlib import asynccontextmanager

import grpc

from forebay.wire import frames_pb2 as pb
from forebay_server.engines.device_simulated import SimulatedDevice
from forebay_server.service.pipeline.slots import SlotState
from forebay_server.service.settings import ServeSettings
from tests.support.forms import make_server
from tests.support.guard import HANG_GUARD_S

LEAK = re.compile(r"/|Traceback|\.py\b|Error\b|service\.|engines\.|0x[0-9a-f]{6}|localhost")
"""Text that no message to a client may contain: paths, tracebacks, internal names."""

METHOD = "/forebay.v1.FrameInference/Stream"
ROW_BYTES = 64


def simulated(root, name="sim", *, version=1, max_batch_size=4, instances=1, **options):
    """Add a simulated model that gives its input back to the repository `root`, and return `root`."""
    options = {"input_bytes": ROW_BYTES, "output": "copy", **options}
    lines = [f'name: "{name}"', 'backend: "simulated"', f"max_batch_size: {max_batch_size}"]
    lines.append(f"instance_group {{ count: {instances} kind: KIND_CPU }}")
    lines += [f'parameters {{ key: "{k}" value {{ string_value: "{v}" }} }}' for k, v in options.items()]
    (root / name / str(version)).mkdir(parents=True)
    (root / name / "config.pbtxt").write_text("\n".join(lines))
    return root


class SimulatedDevices:
    """Gives every model version a simulated device. `hold` keeps executions from ending until `release`."""

    def __init__(self):
        self.devices = []

    def __call__(self, kind, clock):
        self.devices.append(SimulatedDevice(clock=clock))
        return self.devices[-1]


class RawStream:
    """One call of forebay.v1.FrameInference/Stream."""

    def __init__(self, channel, metadata=None):
        self.call = channel.stream_stream(METHOD)(metadata=metadata)
        self.opened = None
        self.controls = []  # Reconnect and Heartbeat messages that came between the results

    async def send_bytes(self, data):
        await self.call.write(data)

    async def send_open(self, **fields):
        await self.send_bytes(pb.ClientMessage(open=open_message(**fields)).SerializeToString())

    async def send(self, seq, payload=None, **fields):
        payload = row(seq) if payload is None else payload
        await self.send_bytes(pb.ClientMessage(frame=pb.Frame(seq=seq, payload=payload, **fields)).SerializeToString())

    async def half_close(self):
        await self.call.done_writing()

    async def receive(self):
        """The next message of the server, or None at the end of the stream."""
        data = await self.call.read()
        return None if data is grpc.aio.EOF else pb.ServerMessage.FromString(data)

    async def result(self):
        """The next result; None at the end."""
        while (message := await self.receive()) is not None:
            if message.WhichOneof("message") == "result":
                return message.result
            self.controls.append(message)
        return None

    async def results(self, count=None):
        """The next `count` results, or all to the end."""
        results = []
        while count is None or len(results) < count:
            result = await self.result()
            if result is None:
                break
            results.append(result)
        return results

    async def status(self):
        """Read to the end; the code and the message of the RPC. Safe after any error."""
        await self.drain()
        return await self.call.code(), await self.call.details()

    async def drain(self):
        """Everything that still comes, errors of the RPC left out."""
        results = []
        try:
            while (result := await self.result()) is not None:
                results.append(result)
        except grpc.aio.AioRpcError:
            pass  # the caller asks for the code
        except asyncio.CancelledError:
            if not self.call.cancelled():  # by this client's own doing
                raise
        return results


class Running:
    """A server that listens."""

    def __init__(self, server, ready, channel):
        self.server = server
        self.ready = ready
        self.address = ready.address
        self.channel = channel

    def stream(self, metadata=None):
        return RawStream(self.channel, metadata)

    async def open(self, metadata=None, **fields):
        """An open stream whose Opened has come."""
        stream = self.stream(metadata)
        await stream.send_open(**fields)
        message = await stream.receive()
        assert message is not None, await stream.status()
        stream.opened = message.opened
        return stream

    def version(self, model="sim"):
        return self.server.registry.find(model, "")

    def served(self, model="sim"):
        """A version as the front end has it: in the second form another object than `version`."""
        return getattr(self.server, "served", self.server.registry).find(model, "")

    async def told(self):
        """Wait until the admin port knows what the front end has done: in the second form it learns that later."""
        if hasattr(self.server, "told"):
            await self.server.told()

    @property
    def versions(self):
        return [self.server.registry.find(n, v) for n, vs in self.server.registry.versions().items() for v in vs]

    def compute_streams(self, model="sim"):
        return [lane.execute.device_stream for lane in self.version(model).lanes]

    def hold(self, model="sim"):
        """Let no execution end (simulated devices only)."""
        for device_stream in self.compute_streams(model):
            device_stream.hold()

    def release(self, model="sim"):
        for device_stream in self.compute_streams(model):
            device_stream.release()

    async def occupy(self, stream, seq=1):
        """Send a frame whose execution does not end before `release`; it is the head of its stream until then."""
        self.hold()
        await stream.send(seq)
        last_stages = [lane.stages[-1] for lane in self.version().lanes]
        # Formed is not yet begun: the last stage waits for the execution that does not end.
        await eventually(lambda: any(stage.busy_since_ns for stage in last_stages))
        assert self.version().former.statistics().in_flight == 1

    async def received(self, frames):
        """Wait until the server has read so many frames on the streams that are open."""
        await eventually(lambda: sum(s.session.frames_received for s in self.sessions) >= frames)

    @property
    def sessions(self):
        return [stream for stream in self.server.frames.streams if stream.session is not None]


def open_message(**fields):
    defaults = {"model": "sim", "stream_id": "camera", "encoding": pb.ENCODING_TENSOR, "delivery": pb.DELIVERY_EVERY}
    return pb.Open(**{**defaults, **fields})


def row(seq):
    """The payload of a simulated model's frame: every byte identifies the frame."""
    return bytes([seq % 251]) * ROW_BYTES


async def eventually(condition):
    """Wait until `condition()` holds; for facts that another thread or the transport brings about."""
    async with asyncio.timeout(HANG_GUARD_S):
        while not condition():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def real_server(*repositories, devices=None, is_checked=True, before_execution=None, **settings):
    """A server that serves the repositories (none: the bundled one) on a free port; ends like `forebay serve`.

    Args:
        devices: opens devices; the default opens real ones.
        before_execution: called before every batch runs, see service.pipeline.execute.
        is_checked: whether the server must be quiescent when the block ends, and end with 0.
        settings: of the server. By default loads are not rehearsed; tests/rpc/test_rehearsals.py tests rehearsals.
    """
    defaults = {
        "rehearse_loads": False,
        "address": "127.0.0.1:0",
        "heartbeat_interval_s": 0,
        "drain_grace_s": 5.0,
        "worker_threads": 2,
    }
    given = ServeSettings(**{**defaults, "model_repository": repositories, **settings})
    parts = {} if devices is None else {"open_device": devices}
    server = make_server(given, before_execution=before_execution, **parts)
    try:
        ready = await server.start()
        async with grpc.aio.insecure_channel(ready.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            running = Running(server, ready, channel)
            yield running
            if is_checked:
                await assert_quiescent(running)
    finally:
        versions = [version for model in server.registry._versions.values() for version in model.values()]
        if devices is not None:  # a test that failed must not hang
            for version in versions:
                for lane in version.lanes:
                    lane.execute.device_stream.release()
        code = await server.close()
        await asyncio.to_thread(server.pool.close)
        if server.life.fatal is not None:
            await asyncio.to_thread(server.registry.close, HANG_GUARD_S)
    if is_checked:
        assert code == 0
        assert not server.frames.streams
        assert sum(server.frames.outcomes.values()) == server.frames.frames_received
        assert not [lane for version in versions for lane in version.lanes for s in lane.stages if not s.join(0)]


async def assert_quiescent(running):
    """Nothing is under way any more: every frame that was read has one outcome, and everything is given back."""
    frames, permits, pool = running.server.frames, running.server.permits, running.server.pool
    await eventually(lambda: not frames.streams)
    assert sum(frames.outcomes.values()) == frames.frames_received, frames.outcomes
    await eventually(lambda: permits.taken_count == 0)
    await eventually(lambda: not pool.ring and not pool.busy_count)
    for arena in getattr(running.server, "arenas", ()):
        await eventually(lambda arena=arena: arena.leased_count == 0)
    for version in running.versions:
        statistics = version.former.statistics
        await eventually(lambda statistics=statistics: statistics().in_flight == statistics().pending_requests == 0)
        assert version.arena.leased_count == 0
        for lane in version.lanes:
            await eventually(lambda lane=lane: lane.pool.free_count == lane.slot_count)
            assert {slot.state for slot in lane.pool.slots} == {SlotState.FREE}
            assert all(channel.depth == 0 for channel in lane.channels)
