"""A stream's view of failures in the server: no permit, a batch that fails, a device that is lost."""

import asyncio
import threading
from dataclasses import replace

import grpc
import pytest

from forebay.wire import frames_pb2 as pb
from forebay_server.engines.device_simulated import FaultPlan, SimulatedDevice
from forebay_server.engines.errors import DeviceLostError, ExecutionError, RaceError
from forebay_server.service.life import EXIT_FATAL, EXIT_OK, FATAL_TIMEOUT_S
from forebay_server.service.models.lifecycle import LoadError
from forebay_server.service.results.wants import Wants
from forebay_server.service.watchdog import Watchdog
from tests.support.clock import ManualClock
from tests.support.guard import HANG_GUARD_S
from tests.support.loops import on_loop
from tests.support.real_server import LEAK, SimulatedDevices, assert_quiescent, eventually, real_server, simulated


@on_loop
async def test_frames_without_a_permit_are_overloaded_and_say_when_to_come_back(tmp_path):
    async with real_server(simulated(tmp_path), devices=SimulatedDevices(), permits=4) as running:
        stream, other = await running.open(), await running.open()
        await running.occupy(stream)
        for seq in range(2, 11):
            await stream.send(seq)
        await running.received(10)
        await other.send(1)
        refused = await other.result()  # at once: no frame of its stream is in front of it
        assert running.server.permits.taken_count == 4
        running.release()
        results = await stream.results(10)
        await stream.send(11)  # there is room again
        assert (await stream.result()).status.code == pb.STATUS_OK
        for each in (stream, other):
            await each.half_close()
            assert await each.results() == []
    assert [r.seq for r in results] == list(range(1, 11))
    assert [r.status.code for r in results] == [pb.STATUS_OK] * 4 + [pb.STATUS_OVERLOADED] * 6
    for result in (refused, *results[4:]):
        assert result.status.code == pb.STATUS_OVERLOADED
        assert result.status.retry_after_ms > 0
        assert result.status.message


@on_loop
async def test_more_streams_than_the_limit_are_refused_until_one_leaves(tmp_path):
    async with real_server(simulated(tmp_path), max_streams=2) as running:
        first, second = await running.open(), await running.open()
        third = running.stream()
        await third.send_open()
        assert (await third.status())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        await first.half_close()
        assert await first.results() == []
        await assert_left(running, 1)
        fourth = await running.open()
        for stream in (second, fourth):
            await stream.half_close()
            assert await stream.results() == []


async def assert_left(running, count):
    await eventually(lambda: len(running.server.frames.streams) <= count)


FAULTS = {
    "upload": FaultPlan(fail={("copy_h2d", 5): ExecutionError("the upload fails")}),
    "execution": FaultPlan(fail={("execute", 5): ExecutionError("secret detail of /a/path")}),
    "execution, seen later": FaultPlan(fail_late={("execute", 5): ExecutionError("seen late")}),
    "download": FaultPlan(fail={("copy_d2h", 5): ExecutionError("the download fails")}),
    "download, seen later": FaultPlan(fail_late={("copy_d2h", 5): ExecutionError("seen late")}),
    "a bug below the service": FaultPlan(fail={("execute", 5): RaceError("not ordered")}),
}


@pytest.mark.parametrize("case", FAULTS)
@on_loop
async def test_a_batch_that_fails_fails_its_own_frames_only(tmp_path, case):
    devices = SimulatedDevices()
    async with real_server(simulated(tmp_path, max_batch_size=1), devices=devices) as running:
        stream = await running.open()
        devices.devices[0].arm(FAULTS[case])
        for seq in range(20):
            await stream.send(seq)
        await stream.half_close()
        results = await stream.results()
    assert [r.seq for r in results] == list(range(20))
    assert [r.seq for r in results if r.status.code == pb.STATUS_FAILED] == [5]
    assert {r.status.code for r in results if r.seq != 5} == {pb.STATUS_OK}
    failed = results[5]
    assert failed.status.message == "the model failed on this batch; send the frame again"
    assert not failed.tensors
    t = failed.timings
    assert t.server_total_us == sum(
        (t.receive_us, t.decode_us, t.queue_us, t.h2d_us, t.execute_us, t.d2h_us, t.deliver_us)
    )


@pytest.mark.parametrize("failing_executions", [1, 40])
@on_loop
async def test_frames_of_a_failed_batch_run_once_more_alone_and_then_fail(tmp_path, failing_executions):
    devices = SimulatedDevices()
    async with real_server(simulated(tmp_path, max_batch_size=8), devices=devices) as running:
        streams = [await running.open(stream_id=f"camera {i}") for i in range(6)]
        faults = {("execute", 1 + i): ExecutionError("fails") for i in range(failing_executions)}
        devices.devices[0].arm(FaultPlan(fail=faults))
        await running.occupy(streams[0])
        for stream in streams[1:]:
            await stream.send(1)
        await running.received(6)
        running.release()
        results = [await stream.result() for stream in streams]
        devices.devices[0].arm(FaultPlan())
        for stream in streams:
            await stream.send(2)
            await stream.half_close()
            assert [r.status.code for r in await stream.results()] == [pb.STATUS_OK]
    codes = [r.status.code for r in results]
    failed = codes.count(pb.STATUS_FAILED)
    assert codes[0] == pb.STATUS_OK
    assert failed == 5 if failing_executions == 40 else failed <= 1  # a frame that was alone is not run again
    assert set(codes) <= {pb.STATUS_OK, pb.STATUS_FAILED}


@on_loop
async def test_a_lost_device_ends_the_process_and_no_client_sees_unknown(tmp_path):
    devices = SimulatedDevices()
    async with real_server(simulated(tmp_path), devices=devices, is_checked=False) as running:
        streams = [await running.open(), await running.open()]
        devices.devices[0].arm(FaultPlan(fail={("execute", 0): DeviceLostError("sticky error of /dev/gpu")}))
        await streams[0].send(1)
        await asyncio.wait_for(running.server.wait(), HANG_GUARD_S)
        assert await running.server.close() == EXIT_FATAL
        for stream in streams:
            for result in await stream.drain():
                assert result.status.code == pb.STATUS_FAILED
                assert not LEAK.search(result.status.message)
            assert await stream.call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
            assert not LEAK.search(await stream.call.details())


@on_loop
async def test_a_bug_while_a_result_is_written_ends_the_stream_of_a_client_that_waits_for_it(tmp_path):
    async with real_server(simulated(tmp_path), is_checked=False) as running:
        stream = await running.open()
        session = running.sessions[0].session
        no_such_output = Wants(options=None, tensor_indices=(7,))
        session.config = replace(session.config, wants=no_such_output)
        await stream.send(1)  # and no more: the server cannot count on another message of this client
        code, message = await asyncio.wait_for(stream.status(), HANG_GUARD_S)
    assert code is grpc.StatusCode.INTERNAL
    assert not LEAK.search(message)


@on_loop
async def test_quiescence_is_noticed_when_it_is_not_there(tmp_path):
    async with real_server(simulated(tmp_path), devices=SimulatedDevices()) as running:
        stream = await running.open()
        await running.occupy(stream)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(assert_quiescent(running), 0.05)
        running.release()
        await stream.half_close()
        assert len(await stream.results()) == 1


class HangingMemory(SimulatedDevice):
    """Its driver does not answer the question how full its memory is until `let_go` is set."""

    def __init__(self, clock, asked, let_go):
        super().__init__(clock=clock)
        self._asked = asked
        self._let_go = let_go

    def memory(self):
        self._asked.set()
        self._let_go.wait()
        return super().memory()


@on_loop
async def test_after_a_fatal_error_the_end_does_not_wait_for_an_observer_that_hangs(tmp_path):
    asked, let_go = threading.Event(), threading.Event()
    hanging = {
        "devices": lambda _, clock: HangingMemory(clock, asked, let_go),
        "admin_address": "127.0.0.1:0",
        "is_checked": False,
    }
    try:
        async with real_server(simulated(tmp_path), **hanging) as running:
            _, writer = await asyncio.open_connection(*running.server.admin_address.split(":"))
            writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
            await asyncio.to_thread(asked.wait, HANG_GUARD_S)
            running.server.on_fatal(DeviceLostError("lost"))
            assert await asyncio.wait_for(running.server.close(), FATAL_TIMEOUT_S) == EXIT_FATAL
            writer.close()
            let_go.set()
            assert await running.server.admin.thread.close(HANG_GUARD_S)
    finally:
        let_go.set()


@on_loop
async def test_a_fatal_error_starts_the_guard_before_anything_is_closed(tmp_path):
    async with real_server(simulated(tmp_path), is_checked=False) as running:
        armed = []
        running.server.life.guard = lambda: armed.append(running.server.life.stopping.is_set())
        running.server.on_fatal(DeviceLostError("lost"))
        assert armed == [False]


@on_loop
async def test_a_model_that_hangs_while_it_is_loaded_does_not_hold_up_the_end(tmp_path, monkeypatch):
    asked, let_go = threading.Event(), threading.Event()

    def hanging(_, clock):
        asked.set()
        let_go.wait()
        return SimulatedDevice(clock=clock)

    explicit = {"model_control_mode": "explicit", "devices": hanging, "is_checked": False}
    monkeypatch.setattr("forebay_server.service.model_side.GIVEN_UP_LOAD_S", 0.05)
    async with real_server(simulated(tmp_path), **explicit) as running:
        server = running.server
        loading = asyncio.ensure_future(asyncio.to_thread(server.lifecycle.load, "sim"))
        try:
            await asyncio.to_thread(asked.wait, HANG_GUARD_S)
            assert await server.close() == EXIT_OK
            assert server.has_hung_loads
        finally:
            let_go.set()
        with pytest.raises(LoadError, match="the server is shutting down"):
            await loading
        assert await asyncio.to_thread(server.models.loader.wait_ended, HANG_GUARD_S, server.clock)
        assert not server.registry.versions()


@on_loop
async def test_a_watchdog_that_fails_ends_the_process_as_any_bug_of_ours(tmp_path):
    async with real_server(simulated(tmp_path), is_checked=False) as running:
        bug = RuntimeError("our bug")

        def fail():
            raise bug

        running.server.models.watchdog._look = fail
        await running.server.wait()
        assert running.server.life.fatal is bug


@on_loop
async def test_a_version_on_its_way_out_is_watched_until_it_has_gone(tmp_path):
    explicit = {"model_control_mode": "explicit", "devices": SimulatedDevices()}
    async with real_server(simulated(tmp_path), **explicit) as running:
        registry, reported = running.server.registry, []
        await asyncio.to_thread(running.server.lifecycle.load, "sim")
        stream = await running.open()
        await running.occupy(stream)
        version, held = running.version(), running.compute_streams()
        await asyncio.to_thread(running.server.lifecycle.unload, "sim")
        clock = ManualClock(running.server.clock.now_ns())
        watchdog = Watchdog(registry.running, clock, reported.append, dict)
        for _ in range(2 + version.hang_limit_ns // 500_000_000):
            clock.advance(500_000_000)
            watchdog.look()
        assert "has hung" in str(reported[0])
        for device_stream in held:
            device_stream.release()
        await stream.half_close()
        assert [result.status.code for result in await stream.results()] == [pb.STATUS_OK]
        await eventually(lambda: not registry.running())


@on_loop
async def test_a_look_at_the_repository_that_fails_is_not_the_last_one(tmp_path):
    polling = {"model_control_mode": "poll", "repository_poll_s": 0.1}
    async with real_server(simulated(tmp_path), **polling) as running:
        looks = []

        def fail():
            looks.append(1)
            raise RuntimeError("our bug")

        running.server.lifecycle.look = fail
        await eventually(lambda: len(looks) >= 2)


@on_loop
async def test_an_end_that_fails_after_a_fatal_error_keeps_the_exit_code(tmp_path, monkeypatch):
    async with real_server(simulated(tmp_path), is_checked=False) as running:
        running.server.on_fatal(DeviceLostError("lost"))
        with monkeypatch.context() as patch:
            patch.setattr(running.server.front_end, "abort", None)  # calling it raises
            assert await running.server.close() == EXIT_FATAL
