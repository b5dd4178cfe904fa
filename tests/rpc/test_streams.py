"""Streams against a real server: opening, answers, their order, and back-pressure."""

import asyncio

import grpc

from forebay.wire import frames_pb2 as pb
from tests.support.guard import HANG_GUARD_S
from tests.support.loops import on_loop
from tests.support.real_server import ROW_BYTES, SimulatedDevices, real_server, row, simulated


@on_loop
async def test_every_frame_is_answered_in_order_with_its_own_output(tmp_path):
    async with real_server(simulated(tmp_path)) as running:
        stream = await running.open()
        for seq in range(1, 101):
            await stream.send(seq, capture_time_us=-seq)
        await stream.half_close()
        results = await stream.results()
    assert [r.seq for r in results] == list(range(1, 101))
    assert [r.capture_time_us for r in results] == [-seq for seq in range(1, 101)]
    assert {r.status.code for r in results} == {pb.STATUS_OK}
    assert [r.tensors[0].data for r in results] == [row(seq) for seq in range(1, 101)]


@on_loop
async def test_opened_says_what_serves_the_stream(tmp_path):
    simulated(tmp_path, version=7)
    async with real_server(tmp_path, max_window=8, heartbeat_interval_s=4.0, stream_lifetime_s=100) as running:
        stream = await running.open(max_in_flight=500, latency_budget_ms=250.0)
        opened = stream.opened
        await stream.half_close()
        assert await stream.results() == []
    assert opened.session_id
    assert (opened.model, opened.model_version) == ("sim", "7")
    assert [(s.name, s.datatype, list(s.shape)) for s in opened.inputs] == [("input", "UINT8", [ROW_BYTES])]
    assert [(s.name, s.datatype, list(s.shape)) for s in opened.outputs] == [("output", "UINT8", [ROW_BYTES])]
    assert opened.window == 8
    assert opened.delivery == pb.DELIVERY_EVERY
    assert opened.latency_budget_ms == 250
    assert opened.heartbeat_interval_s == 4
    assert 80 <= opened.stream_lifetime_s <= 120


@on_loop
async def test_latest_is_the_default_and_has_a_budget(tmp_path):
    async with real_server(simulated(tmp_path)) as running:
        stream = await running.open(delivery=pb.DELIVERY_UNSPECIFIED)
        await stream.half_close()
        assert await stream.results() == []
    assert stream.opened.delivery == pb.DELIVERY_LATEST
    assert stream.opened.latency_budget_ms >= 100
    assert stream.opened.window == 16


@on_loop
async def test_session_ids_differ_and_the_newest_version_serves(tmp_path):
    simulated(tmp_path, version=3)
    (tmp_path / "sim" / "12").mkdir()
    config = tmp_path / "sim" / "config.pbtxt"
    config.write_text(config.read_text() + "\nversion_policy { all {} }\n")
    async with real_server(tmp_path) as running:
        newest, named = await running.open(), await running.open(version="3")
        for stream in (newest, named):
            await stream.send(1)
            await stream.half_close()
        results = [(await stream.results())[0] for stream in (newest, named)]
    assert newest.opened.session_id != named.opened.session_id
    assert [r.model_version for r in results] == ["12", "3"]


@on_loop
async def test_every_never_holds_more_than_the_window(tmp_path):
    devices = SimulatedDevices()
    async with real_server(simulated(tmp_path), devices=devices) as running:
        stream = await running.open(max_in_flight=3)
        running.hold()
        sender = asyncio.create_task(send_all(stream, 40))
        await running.received(3)
        (live,) = running.sessions
        for _ in range(50):  # more would be read now, if anything more were
            await asyncio.sleep(0)
        assert live.session.in_flight == live.session.frames_received == 3
        running.release()
        results = []
        async with asyncio.timeout(HANG_GUARD_S):
            while (result := await stream.result()) is not None:
                results.append(result)
                assert live.session.in_flight <= 3
        await sender
    assert [r.seq for r in results] == list(range(1, 41))
    assert {r.status.code for r in results} == {pb.STATUS_OK}
    assert devices.devices[0].races == ()


async def send_all(stream, last, first=1):
    for seq in range(first, last + 1):
        await stream.send(seq)
    await stream.half_close()


@on_loop
async def test_latest_answers_every_frame_and_executes_the_newest(tmp_path):
    async with real_server(simulated(tmp_path, max_batch_size=1), devices=SimulatedDevices()) as running:
        stream = await running.open(delivery=pb.DELIVERY_LATEST, latency_budget_ms=10_000, max_in_flight=8)
        await running.occupy(stream)
        for seq in range(2, 17):
            await stream.send(seq)
        await running.received(16)
        await stream.half_close()
        running.release()
        results = await stream.results()
    assert [r.seq for r in results] == list(range(1, 17))
    codes = [r.status.code for r in results]
    assert codes[0] == codes[-1] == pb.STATUS_OK
    assert codes.count(pb.STATUS_SUPERSEDED) == 16 - codes.count(pb.STATUS_OK)
    assert codes.count(pb.STATUS_OK) <= 5  # one waits beside those executing, of which there are at most DEPTH
    superseded = [r for r in results if r.status.code == pb.STATUS_SUPERSEDED]
    assert all(r.status.message and not r.tensors and not r.batch_size and not r.model_version for r in superseded)


@on_loop
async def test_a_latest_stream_stops_reading_when_nothing_leaves_the_outbox(tmp_path):
    async with real_server(simulated(tmp_path), devices=SimulatedDevices()) as running:
        stream = await running.open(delivery=pb.DELIVERY_LATEST, latency_budget_ms=10_000, max_in_flight=2)
        await running.occupy(stream)
        sender = asyncio.create_task(send_all(stream, 30, first=2))
        await running.received(4)
        for _ in range(50):
            await asyncio.sleep(0)
        assert running.sessions[0].session.in_flight == 4  # twice the window
        running.release()
        results = await stream.results()
        await sender
    assert [r.seq for r in results] == list(range(1, 31))


@on_loop
async def test_streams_do_not_wait_for_each_other(tmp_path):
    simulated(simulated(tmp_path, "slow"), "fast")
    async with real_server(tmp_path, devices=SimulatedDevices()) as running:
        slow, fast = await running.open(model="slow"), await running.open(model="fast")
        running.hold("slow")
        await slow.send(1)
        await fast.send(1)
        assert (await fast.result()).status.code == pb.STATUS_OK
        running.release("slow")
        assert (await slow.result()).status.code == pb.STATUS_OK
        for stream in (slow, fast):
            await stream.half_close()
            assert await stream.results() == []


@on_loop
async def test_many_streams_on_several_instances_get_their_own_frames_back(tmp_path):
    devices = SimulatedDevices()
    async with real_server(simulated(tmp_path, instances=3, max_batch_size=8), devices=devices) as running:
        streams = [await running.open(stream_id=f"camera {i}", max_in_flight=1 + i) for i in range(8)]

        async def run(base, stream):
            sent = asyncio.create_task(send_all(stream, base + 39, base))
            results = await stream.results()
            await sent
            return results

        by_stream = await asyncio.gather(*(run(1000 * i, stream) for i, stream in enumerate(streams)))
    for base, results in enumerate(by_stream):
        assert [r.seq for r in results] == list(range(1000 * base, 1000 * base + 40))
        assert all(r.tensors[0].data == row(r.seq) for r in results)
    assert devices.devices[0].races == ()


@on_loop
async def test_stage_timings_add_up_to_the_total(tmp_path):
    async with real_server(simulated(tmp_path, alpha_ms=2)) as running:
        stream = await running.open(max_in_flight=64)
        await send_all(stream, 20)
        results = await stream.results()
    for result in results:
        t = result.timings
        parts = (t.receive_us, t.decode_us, t.queue_us, t.h2d_us, t.execute_us, t.d2h_us, t.deliver_us)
        assert sum(parts) == t.server_total_us
        assert t.execute_us >= 2000
        assert 1 <= result.batch_size <= 4
        assert result.late_by_us == 0


@on_loop
async def test_the_silent_server_sends_heartbeats(tmp_path):
    async with real_server(simulated(tmp_path), heartbeat_interval_s=0.1) as running:
        stream = await running.open()
        await stream.send(5)
        await stream.result()
        message = await stream.receive()
        assert message.heartbeat == pb.Heartbeat(frames_received=1)
        await stream.half_close()
        await stream.results()


@on_loop
async def test_a_stream_whose_lifetime_is_over_is_asked_to_leave_and_answered_to_its_end(tmp_path):
    async with real_server(simulated(tmp_path), stream_lifetime_s=0.1, drain_grace_s=3) as running:
        stream = await running.open()
        message = await stream.receive()
        assert message.reconnect == pb.Reconnect(reason=pb.Reconnect.REASON_REBALANCE, grace_ms=3000)
        await send_all(stream, 5)
        assert [r.seq for r in await stream.results()] == [1, 2, 3, 4, 5]
        assert stream.controls == []  # it is asked once


@on_loop
async def test_a_stream_that_outstays_its_lifetime_and_the_grace_is_ended_by_the_server(tmp_path):
    async with real_server(simulated(tmp_path), stream_lifetime_s=0.5, drain_grace_s=0.5) as running:
        stream = await running.open()
        await stream.send(1)
        assert [r.seq for r in await stream.results()] == [1]
        assert await stream.status() == (grpc.StatusCode.OK, "")
