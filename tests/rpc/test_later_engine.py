"""An engine process of several, without the others: its ways when the first one comes, goes and asks."""

import asyncio
import contextlib
import json
import socket
import threading

from forebay.wire import inference_pb2 as pb
from forebay_server.service.group.engine_server import EngineServer
from forebay_server.service.group.memory_file import MemoryFile
from forebay_server.service.group.memory_layout import PAGE_BYTES
from forebay_server.service.group.messages import Calls, Counted, CountsWanted, RpcAnswer, RpcCall
from forebay_server.service.group.talk import Talk
from forebay_server.service.models.instances import Part
from forebay_server.service.settings import ServeSettings
from tests.support.guard import HANG_GUARD_S
from tests.support.loops import on_loop
from tests.support.real_server import SimulatedDevices, eventually, simulated

LOAD = pb.RepositoryModelLoadRequest(model_name="sim").SerializeToString()
UNLOAD = pb.RepositoryModelUnloadRequest(model_name="sim").SerializeToString()


class HeldDevices(SimulatedDevices):
    """A load waits where it opens its device, while `may_go_on` is not set."""

    def __init__(self):
        super().__init__()
        self.is_waiting, self.may_go_on = threading.Event(), threading.Event()

    def __call__(self, kind, clock):
        self.is_waiting.set()
        assert self.may_go_on.wait(HANG_GUARD_S)
        return super().__call__(kind, clock)


class First:
    """The first engine process, as the other one has it: its talk and the messages that have come."""

    def __init__(self, control):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            socket.send_fds(control, [json.dumps({"first": 0}).encode()], [theirs.fileno()])
        self.messages = []
        self.talk = Talk(ours, lambda message, _: self.messages.append(message), lambda: None)

    def got(self, kind):
        return [message for message in self.messages if isinstance(message, kind)]


@contextlib.asynccontextmanager
async def later_engine(root, **settings):
    """The second of two engine processes, not started, its devices, and a function that makes a first one."""
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    given = ServeSettings(
        model_repository=(root,),
        rehearse_loads=False,
        admin_address="",
        front_ends=1,
        permits=8,
        model_control_mode="explicit",
        **settings,
    )
    devices, firsts = HeldDevices(), []
    file = MemoryFile.create("permits", PAGE_BYTES)
    engine = EngineServer(given, theirs, open_device=devices, part=Part(1, 2), permits_file=file)

    def first():
        firsts.append(First(control))
        return firsts[-1]

    try:
        yield engine, devices, first
    finally:
        devices.may_go_on.set()
        for each in firsts:
            each.talk.close()
        await engine.close()
        control.close()


@on_loop
async def test_loads_and_unloads_of_the_group_wait_for_the_models_of_the_start(tmp_path):
    async with later_engine(simulated(tmp_path), load_model=("sim",)) as (engine, devices, first):
        starting = asyncio.create_task(engine.start())
        assert await asyncio.to_thread(devices.is_waiting.wait, HANG_GUARD_S)
        leader = first()
        leader.talk.send(Calls((RpcCall(0, "RepositoryModelUnload", UNLOAD),)))
        leader.talk.send(CountsWanted())
        await eventually(lambda: leader.got(Counted))  # so the unload has begun, too
        devices.may_go_on.set()
        ready = await starting
        assert ready.models == {"sim": ["1"]}, "the load of the start was not given up"
        await eventually(lambda: engine.registry.versions() == {})


@on_loop
async def test_answers_go_to_the_process_that_asked_and_a_new_one_learns_what_is_under_way(tmp_path):
    async with later_engine(simulated(tmp_path)) as (engine, devices, first):
        await engine.start()
        earlier = first()
        earlier.talk.send(RpcCall(7, "RepositoryModelLoad", LOAD))
        assert await asyncio.to_thread(devices.is_waiting.wait, HANG_GUARD_S)
        earlier.talk.close()
        leader = first()
        await eventually(lambda: leader.got(Calls))
        assert leader.got(Calls) == [Calls((RpcCall(0, "RepositoryModelLoad", LOAD),))]
        devices.may_go_on.set()
        await eventually(lambda: engine.registry.versions() == {"sim": ["1"]})
        leader.talk.send(RpcCall(1, "RepositoryModelUnload", UNLOAD))
        await eventually(lambda: leader.got(RpcAnswer))
        assert [(answer.id, answer.code) for answer in leader.got(RpcAnswer)] == [(1, "OK")]
