"""A client that takes all it can get leaves the others their needs; a client that has left leaves everything."""

import asyncio
import json
import sys
import threading
from contextlib import asynccontextmanager

import grpc
import pytest

from forebay.wire import frames_pb2 as pb
from tests.support.guard import HANG_GUARD_S
from tests.support.loops import on_loop
from tests.support.real_server import METHOD, SimulatedDevices, eventually, open_message, real_server, row, simulated
from tests.support.repository import ROOT

FRAMES = 40
LEAST_SHARE = 0.95
ROUNDS = 3  # the others only where the machine was too busy in the first


@asynccontextmanager
async def client(address, kind, number):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.support.sharing_clients", address, kind, str(number)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        yield process
        process.stdin.close()
        await asyncio.wait_for(process.communicate(), HANG_GUARD_S)
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def jain(shares):
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "number"), [("stream", 256), ("calls", 400)])
@on_loop
async def test_ten_cameras_beside_a_greedy_client_get_what_they_need(tmp_path, kind, number):
    """No deadline counts here: a camera loses only its refused frames."""
    root = simulated(tmp_path, max_batch_size=8, alpha_ms=20)
    async with (
        real_server(root, devices=SimulatedDevices(), permits=32) as running,
        client(running.address, kind, number) as greedy,
    ):
        running.hold()  # until it has all that it can get, however slow its process is
        if kind == "stream":  # whose refusals come behind the answers that are held
            await running.received(2 * 32)
            running.release()
        assert await asyncio.wait_for(greedy.stdout.readline(), HANG_GUARD_S) == b"refused\n"
        running.release()
        async with client(running.address, "cameras", FRAMES) as cameras:
            executed = json.loads(await asyncio.wait_for(cameras.stdout.readline(), 2 * HANG_GUARD_S))
    shares = [count / FRAMES for count in executed]
    assert min(shares) >= LEAST_SHARE
    assert jain(shares) >= LEAST_SHARE


@on_loop
async def test_a_stream_that_wants_little_is_promised_it_and_one_that_ends_leaves_everything(tmp_path):
    async with real_server(simulated(tmp_path), devices=SimulatedDevices(), permits=16) as running:
        camera = await running.open(stream_id="camera")
        await camera.send(1)
        assert (await camera.result()).status.code == pb.STATUS_OK
        running.hold()
        greedy = await running.open(stream_id="greedy", max_in_flight=64)
        for seq in range(1, 41):
            await greedy.send(seq)
        await running.received(41)
        assert running.server.permits.taken_count == 15
        await camera.half_close()
        await camera.drain()
        await eventually(lambda: len(running.sessions) == 1)
        await greedy.send(41)
        await eventually(lambda: running.server.permits.taken_count == 16)
        running.release()
        await greedy.half_close()
        codes = [result.status.code for result in await greedy.results()]
        assert codes.count(pb.STATUS_OVERLOADED) == len(codes) - codes.count(pb.STATUS_OK) > 0


class Sender(threading.Thread):
    """A client on a separate thread, which goes on while the server's event loop does not.

    It opens two streams; when `go` is set it sends `many` frames on the first and then one on the second.
    """

    def __init__(self, address, many):
        super().__init__(name="sender")
        self.go, self._many_sent, self.all_sent, self.leave = (threading.Event() for _ in range(4))
        self._address = address
        self._many = many

    def run(self):
        with grpc.insecure_channel(self._address) as channel:
            method = channel.stream_stream(METHOD)
            calls = [
                method(self._messages("flood", self._many, self.go, self._many_sent)),
                method(self._messages("camera", 1, self._many_sent, self.all_sent)),
            ]
            self.leave.wait(HANG_GUARD_S)
            for call in calls:
                list(call)

    def _messages(self, name, frames, begin, end):
        opening = open_message(stream_id=name, max_in_flight=256)
        yield pb.ClientMessage(open=opening).SerializeToString()
        begin.wait(HANG_GUARD_S)
        for seq in range(1, frames + 1):
            yield pb.ClientMessage(frame=pb.Frame(seq=seq, payload=row(seq))).SerializeToString()
        end.set()  # asked for the next: all are written
        self.leave.wait(HANG_GUARD_S)


async def read_before(root):
    """How many of 200 frames, all of them in the transport, are read before the one of another stream."""
    async with real_server(root, devices=SimulatedDevices()) as running:
        running.hold()
        sender = Sender(running.address, 200)
        sender.start()
        await eventually(lambda: len(running.sessions) == 2)
        sender.go.set()
        assert sender.all_sent.wait(HANG_GUARD_S)  # here, on the event loop, so that no message is read meanwhile
        await running.received(201)
        outboxes = {stream.names["stream"]: list(stream.session._outbox) for stream in running.sessions}
        (camera,) = [entry.timeline.received_ns for entry in outboxes["camera"]]
        running.release()
        sender.leave.set()
        await asyncio.to_thread(sender.join, HANG_GUARD_S)
        assert not sender.is_alive()
        return sum(entry.timeline.received_ns < camera for entry in outboxes["flood"])


@on_loop
async def test_streams_are_read_in_turn_however_much_one_of_them_has_sent(tmp_path):
    """A few are read first, more on a busy machine: written frames take their time to arrive.

    In the order of arrival it would be all of them, in every round.
    """
    root = simulated(tmp_path)
    counts = [await read_before(root)]
    while counts[-1] > 60 and len(counts) < ROUNDS:
        counts.append(await read_before(root))
    assert counts[-1] <= 60, counts
