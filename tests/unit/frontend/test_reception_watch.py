"""Which calls the watch ends, over a kernel whose numbers the test says and a clock that it moves."""

import asyncio

import pytest
from structlog.testing import capture_logs

from forebay_server.service.frontend.connections import normal
from forebay_server.service.frontend.open_inference.errors import INFERENCE_STATUS
from forebay_server.service.frontend.reception.reading import Reading
from forebay_server.service.frontend.reception.receptions import Receptions
from forebay_server.service.frontend.reception.watch import ADVICE, ReceptionWatch
from forebay_server.service.settings import ServeSettings
from tests.support.clock import ManualClock
from tests.support.loops import on_loop

MB, S = 1 << 20, 1_000_000_000
DEADLINE_S = 30.0
SETTINGS = ServeSettings(message_deadline_s=DEADLINE_S)


class Socket:
    """The kernel's counts of one connection."""

    def __init__(self, port):
        self.there = normal("127.0.0.1", port)
        self.received = 0
        self.is_cut = False

    def received_bytes(self):
        return self.received

    def end(self):
        self.is_cut = True


class WatchHarness:
    """A watch, the event loop's side, and sockets."""

    def __init__(self, settings=SETTINGS):
        self.clock = ManualClock()
        self.receptions = Receptions(settings, self.clock, INFERENCE_STATUS)
        self.watch = ReceptionWatch(
            self.receptions, settings, self.clock, asyncio.get_running_loop(), ["127.0.0.1:8001"]
        )
        self.sockets = []
        self.checks = 0
        self.watch._sockets = self

    def accepted_on(self, addresses, but_of):
        self.checks += 1
        return self.sockets

    def connect(self):
        socket = Socket(5000 + len(self.sockets))
        self.sockets.append(socket)
        return socket, self.receptions.account_of(f"ipv4:127.0.0.1:{socket.there[1]}")

    def begin(self, account, *, is_single=False):
        reading = Reading(account, is_single=is_single)
        reading.is_reading = True
        account.begin(reading)
        return reading

    async def look(self, seconds=0.1):
        for _ in range(round(seconds / 0.1)):
            self.clock.advance(S // 10)
            self.watch.look()
            await asyncio.sleep(0)  # the loop ends the named calls


@on_loop
async def test_calls_that_are_ended_take_nothing_with_them_of_what_the_others_hold():
    harness = WatchHarness()
    socket, account = harness.connect()
    decoy = harness.begin(account, is_single=True)
    await harness.look(1)
    others = [harness.begin(account) for _ in range(8)]
    await harness.look(DEADLINE_S)
    socket.received += 100 * MB
    await harness.look()
    assert decoy.is_stopped
    assert not any(reading.is_stopped for reading in others)
    account.end(decoy)
    await harness.look()
    assert account.tally.most_bytes > 99 * MB
    assert account.tally.held_bytes > 80 * MB  # a message's worth is forgiven


@on_loop
async def test_a_call_whose_message_came_meanwhile_is_spared_and_its_connection_is_judged_anew():
    harness = WatchHarness()
    _, account = harness.connect()
    reading = harness.begin(account, is_single=True)
    await harness.look(DEADLINE_S)
    harness.clock.advance(S // 10)
    harness.watch.look()  # the watch asks the loop to end the call
    reading.reads += 1
    await asyncio.sleep(0)
    assert not reading.is_stopped
    assert harness.watch.ended.total() == 0
    await harness.look(DEADLINE_S + 1)
    assert reading.is_stopped
    assert harness.watch.ended == {"late": 1}


@on_loop
async def test_the_log_names_the_setting_that_keeps_clients_in_order_from_being_ended():
    harness = WatchHarness()
    many = [harness.connect() for _ in range(20)]
    for _, account in many:
        harness.begin(account)
    await harness.look(1)
    with capture_logs() as logs:
        for socket, _ in many:
            socket.received += 10 * MB
        await harness.look(0.2)
    (line,) = logs
    assert line["full"] > 0
    assert line["advice"] == f"if these clients were in order: {ADVICE['full']}"
    assert "reception_bytes" in ADVICE["full"]
    assert set(ADVICE) == {"full", "cut", "late"}


@on_loop
async def test_cameras_that_sent_for_hours_are_not_ended_when_memory_grows(monkeypatch):
    harness = WatchHarness()
    cameras = [harness.connect() for _ in range(48)]
    readings = [harness.begin(account) for _, account in cameras]
    resident = [1000 * MB]
    monkeypatch.setattr("forebay_server.service.frontend.reception.watch.resident_bytes", lambda: resident[0])
    for _ in range(600):
        for socket, account in cameras:
            socket.received += 180 * (602_112 + 55)  # six seconds of frames, with the headers of HTTP/2
            for _ in range(180):
                account.take(602_112)
        await harness.look()
    resident[0] += 300 * MB
    await harness.look(1)
    assert not any(reading.is_stopped for reading in readings)


@on_loop
async def test_where_messages_may_be_compressed_a_request_has_a_second_while_others_wait():
    harness = WatchHarness(ServeSettings(message_deadline_s=DEADLINE_S, allow_compression=True))
    gate = harness.receptions.gate
    _, account = harness.connect()
    slow = harness.begin(account, is_single=True)
    stream = harness.begin(account)
    while gate.enter(account):
        pass
    await harness.look(DEADLINE_S / 2)
    waiting = asyncio.create_task(gate.wait(account))
    await asyncio.sleep(0)
    assert not slow.is_stopped
    await harness.look()
    assert slow.is_stopped
    assert slow.refusal.message == "a message that was begun did not end within 1 s"
    assert not stream.is_stopped
    waiting.cancel()
    await asyncio.wait([waiting])


@pytest.mark.parametrize(("connections", "most_checks"), [(100, 100), (1000, 15)])
@on_loop
async def test_checks_of_many_connections_are_so_far_apart_that_they_cost_little(connections, most_checks):
    harness = WatchHarness()
    for _ in range(connections):
        harness.begin(harness.connect()[1])
    await harness.look(10)
    assert most_checks * 0.9 <= harness.checks <= most_checks


@on_loop
async def test_memory_that_fills_is_found_at_once_among_many_connections(monkeypatch):
    harness = WatchHarness()
    resident = [1000 * MB]
    monkeypatch.setattr("forebay_server.service.frontend.reception.watch.resident_bytes", lambda: resident[0])
    many = [harness.connect() for _ in range(1000)]
    readings = [harness.begin(account) for _, account in many]
    await harness.look(10)
    for socket, _ in many[:20]:
        socket.received += 10 * MB
    resident[0] += 200 * MB
    await harness.look(0.1)
    assert sum(reading.is_stopped for reading in readings) > 5
    assert not any(reading.is_stopped for reading in readings[20:])
