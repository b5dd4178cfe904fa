"""The admin port of a real server: metrics, trace and events while frames flow."""

import asyncio
import json
import re
from itertools import pairwise

import grpc
import numpy as np
import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from forebay_server.engines.device_simulated import CopyCosts, SimulatedDevice
from forebay_server.service.journal.events import REQUESTS
from forebay_server.service.observe.site import MAX_WATCHERS
from tests.rpc.test_slow_readers import NARROW, big, fill, open_on
from tests.support.guard import HANG_GUARD_S
from tests.support.inference import request_of, stub_of
from tests.support.loops import on_loop
from tests.support.observing import check_format, lanes
from tests.support.real_server import SimulatedDevices, eventually, real_server, simulated

AWKWARD = 'quo"te <b>\n\N{PILE OF POO} </script>'


async def get(address, path, *, method="GET", host=None):
    reader, writer = await asyncio.open_connection(*address.split(":"))
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: {host or address}\r\n\r\n".encode())
    head, _, body = (await asyncio.wait_for(reader.read(), HANG_GUARD_S)).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), head.decode(), body.decode()


class Watcher:
    """A reader of events."""

    def __init__(self, reader, writer):
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, address):
        watcher = cls(*await asyncio.open_connection(*address.split(":")))
        watcher._writer.write(b"GET /events HTTP/1.1\r\n\r\n")
        await watcher._reader.readuntil(b"\r\n\r\n")
        return watcher

    async def next(self):
        """The next event: its name and its data. None at the end."""
        name = None
        while line := (await asyncio.wait_for(self._reader.readline(), HANG_GUARD_S)).decode():
            if line.startswith("event: "):
                name = line.removeprefix("event: ").strip()
            elif line.startswith("data: "):
                return name, json.loads(line.removeprefix("data: "))
        return None

    async def close(self):
        self._writer.close()
        await self._writer.wait_closed()


async def send_frames(running, count=12, **fields):
    stream = await running.open(**fields)
    for seq in range(count):
        await stream.send(seq, capture_time_us=seq + 1)
    results = await stream.results(count)
    return stream, results


@on_loop
async def test_metrics_count_what_clients_were_told(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path, admin_address="127.0.0.1:0") as running:
        stream, _ = await send_frames(running, stream_id=AWKWARD)
        await running.told()
        _, _, text = await get(running.server.admin_address, "/metrics")
        found = {family.name: family.samples for family in text_string_to_metric_families(text)}
        outcomes = {sample.labels["outcome"]: sample.value for sample in found["forebay_frames"]}
        assert outcomes["ok"] == 12
        assert [s.value for s in found["forebay_frame_latency_seconds"] if s.name.endswith("_count")] == [12] * 8
        assert [s.value for s in found["forebay_batch_size"] if s.name.endswith("_sum")] == [12]
        assert found["forebay_stream_frames_per_second"][0].labels["stream"] == AWKWARD
        assert found["forebay_streams"][0].value == 1
        assert "forebay_device_memory_used_bytes" not in found  # the CPU's memory is the machine's
        await stream.half_close()
        await stream.drain()


@on_loop
async def test_requests_of_the_other_protocol_are_counted_together(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path, admin_address="127.0.0.1:0") as running:
        _, _, text = await get(running.server.admin_address, "/metrics")
        assert "forebay_stream_frames_per_second" not in text
        stub = stub_of(running)
        rows = np.zeros((1, 64), np.uint8)
        for _ in range(3):
            await stub.ModelInfer(request_of("sim", input=rows))
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.ModelInfer(request_of("sim", input=rows, parameters={"timeout": 1}))
        await running.told()
        _, _, text = await get(running.server.admin_address, "/metrics")
        found = {family.name: family.samples for family in text_string_to_metric_families(text)}
        outcomes = {sample.labels["outcome"]: sample.value for sample in found["forebay_frames"] if sample.value}
        assert outcomes == {"ok": 3, "expired": 1}
        assert found["forebay_stream_frames_per_second"][0].labels["stream"] == REQUESTS
        total = [s for s in found["forebay_frame_latency_seconds"] if s.labels.get("stage") == "total"]
        assert 0 < next(s.value for s in total if s.name.endswith("_sum")) < 3


@on_loop
async def test_a_trace_of_the_last_seconds_has_frames_and_batches(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path, admin_address="127.0.0.1:0") as running:
        stream, _ = await send_frames(running, stream_id=AWKWARD)
        await running.told()
        status, head, body = await get(running.server.admin_address, "/trace?seconds=5")
        assert status == 200
        assert "attachment" in head
        check_format(json.loads(body))
        events = json.loads(body)["traceEvents"]
        assert sum(event.get("args", {}).get("rows", 0) for event in events if event["ph"] == "X") == 3 * 12
        assert {event["name"] for event in events if event["ph"] == "b"} == {AWKWARD, "queue and device"}
        assert (await get(running.server.admin_address, "/trace?seconds=never"))[0] == 400
        assert (await get(running.server.admin_address, "/trace?seconds=nan"))[0] == 400
        await stream.half_close()
        await stream.drain()


@on_loop
async def test_stages_of_successive_batches_are_under_way_at_once_and_the_trace_has_each_of_them(tmp_path):
    """Copies of 3 ms and executions of 6 ms on a separate device, held until the next batch is in progress.

    The overlap in a trace is exact in virtual time (tests/pipeline/test_observed_lane.py): on a real clock the d2h
    thread may notice an end late.
    """
    devices = []

    def slow_copies(kind, clock):
        devices.append(SimulatedDevice(clock=clock, cost=CopyCosts(copy_latency_ns=3_000_000)))
        return devices[-1]

    simulated(tmp_path, max_batch_size=1, alpha_ms=6)
    async with real_server(tmp_path, admin_address="127.0.0.1:0", devices=slow_copies) as running:
        stream = await running.open()
        lane = running.version().lanes[0]
        uploads, executions, downloads = (each.device_stream for each in lane.stages)

        def done(device_stream):
            return [each for each in devices[0].history if each.queue == device_stream.name]

        before = [len(done(each)) for each in (uploads, executions, downloads)]
        for seq in range(0, 16, 2):
            executions.hold()
            downloads.hold()
            await stream.send(seq)
            await stream.send(seq + 1)
            await eventually(lambda seq=seq: len(done(uploads)) == before[0] + seq + 2)
            executions.release()  # only now: the second upload did not wait for it
            await eventually(lambda seq=seq: len(done(executions)) == before[1] + seq + 2)
            downloads.release()  # only now: the second execution did not wait for it
            assert [result.seq for result in await stream.results(2)] == [seq, seq + 1]
        ran = [done(each)[count:] for each, count in zip((uploads, executions, downloads), before, strict=True)]
        for first in range(0, 16, 2):
            assert ran[0][first + 1].start_ns < ran[1][first].end_ns
            assert ran[1][first + 1].start_ns < ran[2][first].end_ns
        await running.told()
        _, _, body = await get(running.server.admin_address, "/trace?seconds=20")
        check_format(json.loads(body))
        slices = lanes(json.loads(body))
        assert [len(slices[stage]) for stage in ("h2d", "execute", "d2h")] == [16, 16, 16]
        for stage in slices.values():
            # A late one pushes the next: they touch, except for rounding of sums.
            assert all(before[1] <= after[0] + NANOSECOND_US for before, after in pairwise(stage))
        for h2d, execute, d2h in zip(slices["h2d"], slices["execute"], slices["d2h"], strict=True):
            assert h2d[1] <= execute[0] + 1
            assert execute[1] <= d2h[0] + 1
        await stream.half_close()
        await stream.drain()


@on_loop
async def test_the_memory_of_a_device_is_told(tmp_path):
    simulated(tmp_path)
    devices = SimulatedDevices()
    async with real_server(tmp_path, admin_address="127.0.0.1:0", devices=devices) as running:
        _, _, text = await get(running.server.admin_address, "/metrics")
        found = {family.name: family.samples for family in text_string_to_metric_families(text)}
        used, total = found["forebay_device_memory_used_bytes"][0], found["forebay_device_memory_total_bytes"][0]
        assert used.labels == total.labels == {"device": "simulated"}
        devices.devices[0].attach_thread()
        assert 0 < used.value == devices.devices[0].memory().used_bytes < total.value


@on_loop
async def test_the_page_is_static_and_allows_only_its_own_scripts(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path, admin_address="127.0.0.1:0") as running:
        for path, kind in (("/", "text/html"), ("/live.js", "text/javascript"), ("/live.css", "text/css")):
            status, head, _ = await get(running.server.admin_address, path)
            assert status == 200
            assert kind in head
            assert "default-src 'none'; script-src 'self'" in head


@on_loop
async def test_events_tell_history_and_then_every_second(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path, admin_address="127.0.0.1:0") as running:
        stream, _ = await send_frames(running, stream_id=AWKWARD)
        watcher = await Watcher.open(running.server.admin_address)
        assert (await watcher.next())[0] == "history"
        name, state = await watcher.next()
        while not state["streams"]:  # the first may have been made before the frames were taken in
            name, state = await watcher.next()
        assert name == "state"
        assert [each["name"] for each in state["streams"]] == [AWKWARD]
        assert state["models"][0]["name"] == "sim.1"
        await watcher.close()
        await stream.half_close()
        await stream.drain()


@on_loop
async def test_readers_that_take_nothing_hold_up_no_frame_and_no_end(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path, admin_address="127.0.0.1:0") as running:
        watchers = [await Watcher.open(running.server.admin_address) for _ in range(MAX_WATCHERS)]
        for watcher in watchers:
            await watcher.next()
        one_more = await Watcher.open(running.server.admin_address)
        assert await one_more.next() is None
        scrapes = [asyncio.create_task(get(running.server.admin_address, "/metrics")) for _ in range(20)]
        stream, results = await send_frames(running)
        assert len(results) == 12
        assert {status for status, _, _ in await asyncio.gather(*scrapes)} == {200}
        await stream.half_close()
        await stream.drain()
    for watcher in (*watchers, one_more):
        await watcher.close()


@on_loop
async def test_no_answer_tells_a_path_a_secret_or_what_is_in_a_frame(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path, admin_address="127.0.0.1:0") as running:
        stream, _ = await send_frames(running, stream_id="gate")
        await stream.send(100, payload=b"\xff" * 3)  # refused, and its reason with it
        await stream.results(1)
        address = running.server.admin_address
        paths = ["/metrics", "/healthz", "/readyz", "/trace?seconds=9", "/trace?seconds=x", "/picture?stream=1"]
        paths += ["/../../etc/passwd", "/%2e%2e/etc/passwd", "/page/live.js", "/live.js/", "//", "/?x"]
        for path in paths:
            status, head, body = await get(address, path)
            assert status in (200, 400, 404), path
            assert str(tmp_path) not in head + body
            assert not re.search(r"Traceback|\.py\b|service\.|/home|/root|/usr|root:", head + body), path
            assert "Server:" not in head
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"):
            assert (await get(address, "/metrics", method=method))[0] == 405
        await stream.half_close()
        await stream.drain()


@on_loop
async def test_without_an_admin_port_nothing_is_recorded(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path) as running:
        assert running.server.journal is None
        stream, results = await send_frames(running)
        assert len(results) == 12
        await stream.half_close()
        await stream.drain()


@on_loop
@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example", "10.0.0.1", "x" * 4000])
async def test_a_name_that_is_not_this_machines_gets_nothing(tmp_path, host):
    """A page from elsewhere may give its own name the address of this port, and would read along then."""
    simulated(tmp_path)
    async with real_server(tmp_path, admin_address="127.0.0.1:0") as running:
        for path in ("/metrics", "/events", "/"):
            status, _, body = await get(running.server.admin_address, path, host=host)
            assert status == 403
            assert "forebay_" not in body
        for own in ("localhost:8002", "LOCALHOST", "127.0.0.1", "[::1]:8002", "127.8.9.1:1"):
            assert (await get(running.server.admin_address, "/healthz", host=own))[0] == 200


NANOSECOND_US = 1e-3
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - for the length of one test


@pytest.mark.parametrize("host", ["127.0.0.1", EVERY_ADDRESS])
@on_loop
async def test_an_admin_port_that_other_machines_reach_is_a_warning(tmp_path, host):
    with structlog.testing.capture_logs() as logs:
        async with real_server(simulated(tmp_path), admin_address=f"{host}:0", insecure=True):
            pass
    warnings = [each["event"] for each in logs if each["log_level"] == "warning"]
    assert any("admin port" in each for each in warnings) == (host == EVERY_ADDRESS)


@on_loop
async def test_a_camera_that_went_away_stays_with_how_its_stream_ended(tmp_path):
    simulated(tmp_path)
    devices = SimulatedDevices()
    async with real_server(tmp_path, devices=devices, admin_address="127.0.0.1:0") as running:
        names = ("ended", "lost", "refused", "back")
        streams = {name: await running.open(stream_id=name) for name in names}
        for name in ("ended", "back"):
            await streams[name].half_close()
            await streams[name].drain()
        running.hold()
        await streams["lost"].send(1)  # with nothing to answer a stream may have ended before gRPC tells of the cancel
        await eventually(lambda: running.server.permits.taken_count == 1)
        streams["lost"].call.cancel()
        await streams["refused"].send_open(stream_id="refused")  # a second open ends a stream
        await eventually(lambda: not running.server.frames.streams)
        running.release()
        again = await running.open(stream_id="back")
        await running.told()
        watcher = await Watcher.open(running.server.admin_address)
        assert (await watcher.next())[0] == "history"
        name, state = await watcher.next()
        await watcher.close()
        assert name == "state"
        assert [each["name"] for each in state["streams"]] == ["back"]
        assert {each["name"]: each["level"] for each in state["gone"]} == {
            "ended": "quiet",
            "lost": "bad",
            "refused": "bad",
        }
        assert all(each["text"].startswith("gone ") for each in state["gone"])
        _, _, text = await get(running.server.admin_address, "/metrics")
        counts = re.findall(r'^forebay_streams_gone\{ending="(\w+)"\} (\d)', text, re.MULTILINE)
        assert dict(counts) == {"ended": "1", "lost": "1", "slow": "0", "refused": "1"}
        await again.half_close()
        await again.drain()


@on_loop
async def test_the_page_has_where_a_camera_is_and_what_it_sends(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path, admin_address="127.0.0.1:0") as running:
        stream, _ = await send_frames(running, stream_id="gate", latency_budget_ms=10_000)
        await running.told()
        watcher = await Watcher.open(running.server.admin_address)
        _, history = await watcher.next()
        _, state = await watcher.next()
        await watcher.close()
        (camera,) = state["streams"]
        assert (camera["encoding"], camera["in_time"], camera["level"]) == ("tensor", 1, "good")
        assert re.fullmatch(r"127\.0\.0\.1:\d+", camera["address"])
        assert camera["ok"] == camera["offered"] > 0
        assert list(history["worst"]) == [str(camera["id"])]
        (model,) = state["models"]
        assert model["name"] == "sim.1"
        assert state["version"]
        assert state["processes"][0]["memory_mb"] > 0
        await stream.half_close()
        await stream.drain()


@on_loop
async def test_a_camera_that_takes_no_results_is_gone_for_that_reason(tmp_path):
    given = {"write_deadline_s": 0.3, "admin_address": "127.0.0.1:0"}
    async with (
        real_server(big(tmp_path), **given) as running,
        grpc.aio.insecure_channel(running.address, options=NARROW) as channel,
    ):
        stream = await open_on(channel)
        sending = fill(stream)
        await eventually(lambda: running.server.frames.streams)
        await eventually(lambda: not running.server.frames.streams)
        await running.told()
        _, _, text = await get(running.server.admin_address, "/metrics")
        assert 'forebay_streams_gone{ending="slow"} 1' in text
        stream.call.cancel()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
