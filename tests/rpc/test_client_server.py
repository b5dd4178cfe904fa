"""The client library and the real server, together."""

import asyncio
import time

import cv2
import numpy as np
import pytest

import forebay
import forebay.aio
from forebay import Status
from forebay.client.clock import MonotonicClock
from tests.support.loops import LoopClock, on_loop
from tests.support.real_server import ROW_BYTES, SimulatedDevices, eventually, real_server, row, simulated
from tests.support.repository import ROOT

SIM = {"model": "sim", "encoding": "tensor"}
ASTRONAUT = ROOT / "tests" / "model" / "astronaut.jpg"
EAGER = forebay.Reconnection(backoff_base_s=0.01, backoff_cap_s=0.02, reopenings_per_s=100)


def tensor(number):
    return np.frombuffer(row(number), np.uint8)


async def rows(count):
    for number in range(1, count + 1):
        yield tensor(number)


@on_loop
async def test_every_frame_comes_back_with_its_own_output(tmp_path):
    async with real_server(simulated(tmp_path)) as running, forebay.aio.Client(running.address) as client:
        stream = client.stream("door", **SIM, delivery="every", queue_frames=4)
        results = [result async for result in stream.map(rows(150))]
        await stream.close()
    assert [result.seq for result in results] == list(range(1, 151))
    assert all(result.is_ok for result in results)
    assert all(result.tensors["output"].tobytes() == row(result.seq) for result in results)
    assert all(sum(stages(result)) == result.timings.server_total_us for result in results)
    assert all(0 < result.round_trip_ms <= result.age_ms for result in results)


def stages(result):
    times = result.timings
    return (
        times.receive_us,
        times.decode_us,
        times.queue_us,
        times.h2d_us,
        times.execute_us,
        times.d2h_us,
        times.deliver_us,
    )


@on_loop
async def test_slow_server_replaces_the_frames_that_wait(tmp_path):
    devices = SimulatedDevices()
    async with (
        real_server(simulated(tmp_path, max_batch_size=1), devices=devices) as running,
        forebay.aio.Client(running.address) as client,
    ):
        stream = client.stream("door", **SIM, budget_ms=60_000)
        running.hold()
        for number in range(1, 8):
            await stream.send(tensor(number))
            await running.received(number)
            if number == 1:  # it executes before the next one can take its place
                await eventually(lambda: running.version().former.statistics().in_flight == 1)
        running.release()
        await stream.close()
        results = [result async for result in stream]
    statuses = [result.status for result in results]
    assert [result.seq for result in results] == list(range(1, 8))
    assert statuses[0] is Status.OK
    assert statuses[-1] is Status.OK
    assert Status.SUPERSEDED in statuses
    assert set(statuses) == {Status.OK, Status.SUPERSEDED}


@on_loop
async def test_lifetime_of_a_stream_ends_without_a_loss(tmp_path):
    async with (
        real_server(simulated(tmp_path), stream_lifetime_s=0.02) as running,
        forebay.aio.Client(running.address, reconnection=EAGER) as client,
    ):
        stream = client.stream("door", **SIM, delivery="every", resend=False)
        sent = 0
        seqs = []
        while stream.statistics().opened < 3:
            await stream.send(tensor(1))
            sent += 1
            result = await stream.receive()
            assert result.is_ok, result
            seqs.append(result.seq)
        await stream.close()
        assert seqs == list(range(1, sent + 1))
        assert stream.statistics().out_of_order == 0


@on_loop
async def test_drain_answers_what_was_sent_and_the_next_server_goes_on(tmp_path):
    results = []

    async def collect(stream):
        async for result in stream:
            results.append(result)  # noqa: PERF401  # read while it grows

    async with real_server(simulated(tmp_path), is_checked=False) as running:  # left while the stream is open
        address = running.address
        client = forebay.aio.Client(address, reconnection=EAGER)
        stream = client.stream("door", **SIM, delivery="every", resend=False)
        collecting = asyncio.create_task(collect(stream))
        for _ in range(20):
            await stream.send(tensor(1))
    async with real_server(tmp_path, address=address) as running:
        for _ in range(20):
            await stream.send(tensor(2))
        await stream.close()
        await collecting
        await client.close()
    assert [result.seq for result in results] == list(range(1, 41))
    assert all(result.is_ok for result in results)
    assert stream.statistics().opened == 2


@on_loop
async def test_pictures_are_checked_on_both_sides(tmp_path):
    async with real_server(simulated(tmp_path)) as running, forebay.aio.Client(running.address) as client:
        stream = client.stream("door", **SIM, delivery="every")
        await stream.send(bytes(ROW_BYTES - 1))
        await stream.send(tensor(3))
        first, second = await stream.receive(), await stream.receive()
        await stream.close()
    assert (first.status, second.status) == (Status.INVALID, Status.OK)
    assert str(ROW_BYTES) in first.message


@pytest.mark.parametrize(
    ("keywords", "code"), [({"model": "nothing"}, "NOT_FOUND"), ({"model": "sim", "version": "9"}, "NOT_FOUND")]
)
@on_loop
async def test_unknown_model_is_refused_at_once(tmp_path, keywords, code):
    async with real_server(simulated(tmp_path)) as running, forebay.aio.Client(running.address) as client:
        with pytest.raises(forebay.StreamRefusedError) as caught:
            await client.stream("door", encoding="tensor", **keywords).open()
    assert caught.value.code == code


@on_loop
async def test_full_server_is_waited_for_as_long_as_it_asks(tmp_path):
    clock = LoopClock()
    async with (
        real_server(simulated(tmp_path), max_streams=1) as running,
        forebay.aio.Client(running.address, clock=clock, draw=lambda: 0.0) as client,
    ):
        first, second = client.stream("first", **SIM), client.stream("second", **SIM)
        await first.open()
        opening = asyncio.create_task(second.open())
        await clock.slept(1.0)  # as the server asks
        await first.close()
        clock.advance(1.0)
        await opening
        await second.close()


@on_loop
async def test_streams_that_are_abandoned_leave_nothing_behind(tmp_path):
    async with real_server(simulated(tmp_path)) as running, forebay.aio.Client(running.address) as client:
        tasks = len(asyncio.all_tasks())
        for number in range(60):
            stream = client.stream("door", **SIM)
            if number % 3:
                await stream.send(tensor(1))
            if number % 3 == 2:
                await stream.receive()
            await stream.abort()
        await eventually(lambda: not running.server.frames.streams)
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
        assert not client._streams


@on_loop
async def test_one_picture_of_any_form_has_its_result(tmp_path, tmp_path_factory):
    pixels = cv2.imread(str(ASTRONAUT))
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), pixels)
    costs = tmp_path_factory.getbasetemp() / "costs"
    async with real_server(cache_folder=costs) as running, forebay.aio.Client(running.address) as client:
        forms = [(pixels, None), (pixels[:, :, ::-1], "rgb8"), (path, None), (path.read_bytes(), None)]
        results = [await client.infer(form, model="faces", encoding=encoding) for form, encoding in forms]
        with forebay.Client(running.address) as other:
            results.append(await asyncio.to_thread(other.infer, pixels, model="faces"))
        grey = await client.infer(pixels[:, :, 0], model="faces", score_threshold=0.99)
        with pytest.raises(forebay.StreamRefusedError, match="NOT_FOUND"):
            await client.infer(pixels, model="none")
        broken = await client.infer(ASTRONAUT.read_bytes()[:900], model="faces")
    first = results[0].detections
    assert len(first) >= 1
    assert all(result.detections == first for result in results)
    assert (grey.is_ok, broken.status, bool(broken.message)) == (True, Status.INVALID, True)


class OtherClock(MonotonicClock):
    """The clock of a machine that started at another time."""

    def __init__(self, ahead_ns):
        self.ahead_ns = ahead_ns

    def now_ns(self):
        return super().now_ns() + self.ahead_ns


@pytest.mark.parametrize("days", [1, 300])
@on_loop
async def test_clocks_of_client_and_server_may_differ(tmp_path, days):
    """Budgets and ages are durations, each on one clock; a camera's stamps come back as they are."""
    ahead_ns = days * 86_400 * 10**9
    clocks = {"clock": OtherClock(ahead_ns), "capture_clock_ns": lambda: time.time_ns() - ahead_ns}
    async with real_server(simulated(tmp_path)) as running, forebay.aio.Client(running.address, **clocks) as client:
        stream = client.stream("door", **SIM, delivery="every", queue_frames=4, budget_ms=3_600_000.0)
        results = [result async for result in stream.map(rows(20))]
        await stream.close()
    assert [(result.seq, result.status) for result in results] == [(seq, Status.OK) for seq in range(1, 21)]
    assert all(0 < result.round_trip_ms <= result.age_ms < 3_600_000 for result in results)
    assert all(result.late_by_ms == 0 for result in results)


@on_loop
async def test_models_of_a_server_are_listed(tmp_path):
    async with real_server(simulated(tmp_path)) as running, forebay.aio.Client(running.address) as client:
        models = await client.models()
        with forebay.Client(running.address) as other:
            assert await asyncio.to_thread(other.models) == models
    assert [(model.name, model.version, model.is_ready) for model in models] == [("sim", "1", True)]


@on_loop
async def test_a_server_that_is_away_has_no_models():
    async with forebay.aio.Client("127.0.0.1:1") as client:
        with pytest.raises(forebay.UnreachableError, match=r"no answer from 127\.0\.0\.1:1"):
            await client.models()
