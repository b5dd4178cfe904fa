"""A server whose standard error cannot be written serves on; one that cannot say that it is ready ends in words."""

import asyncio
import os
import signal
import urllib.request

import grpc
import pytest

from forebay.wire import frames_pb2 as pb
from forebay.wire import health_pb2, health_pb2_grpc
from forebay_server.service.cli import exit_codes
from tests.support.broken_output import KINDS, broken
from tests.support.guard import HANG_GUARD_S
from tests.support.loops import on_loop
from tests.support.real_server import RawStream, simulated
from tests.support.serve_process import serve, terminate_under_load

FAIL_EVERY = 151  # after the executions that measure costs
FRAMES = 2 * FAIL_EVERY


async def metric(ready, name):
    def fetch():
        with urllib.request.urlopen(f"http://{ready['admin_address']}/metrics", timeout=HANG_GUARD_S) as answer:
            return answer.read().decode()

    lines = (await asyncio.to_thread(fetch)).splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


@pytest.mark.parametrize("kind", KINDS)
@on_loop
async def test_streams_batches_that_fail_health_and_the_signal_work_without_a_log(tmp_path, kind):
    repository = simulated(tmp_path, max_batch_size=1, fail_every=FAIL_EVERY)
    flags = ("--model-repository", repository, "--admin-address", "127.0.0.1:0")
    with broken(kind) as descriptor:
        async with serve(*flags, stderr=descriptor) as server:
            async with grpc.aio.insecure_channel(await server.wait_ready()) as channel:
                statuses = []
                for _ in range(2):
                    stream = RawStream(channel)
                    await stream.send_open(delivery=pb.DELIVERY_EVERY, max_in_flight=4)
                    for seq in range(FRAMES):
                        await stream.send(seq)
                        statuses += [result.status.code for result in await stream.results(1)]
                    await stream.half_close()
                    assert await stream.results() == []
                    assert await stream.status() == (grpc.StatusCode.OK, "")
                assert len(statuses) == 2 * FRAMES
                assert statuses.count(pb.STATUS_FAILED) == 2 * FRAMES - statuses.count(pb.STATUS_OK) > 0
                health = health_pb2_grpc.HealthStub(channel)
                answer = await health.Check(health_pb2.HealthCheckRequest())
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            dropped = await metric(server.ready, "forebay_log_lines_dropped_total")
            assert (dropped > 0) == (kind != "reader takes nothing")  # its lines still wait
            assert await server.end() == exit_codes.OK


@pytest.mark.parametrize("kind", KINDS)
@on_loop
async def test_a_signal_under_load_loses_nothing_without_a_log(tmp_path, kind):
    with broken(kind) as descriptor:
        await terminate_under_load(simulated(tmp_path, alpha_ms=1), signal.SIGTERM, stderr=descriptor)


@on_loop
async def test_a_reader_that_goes_and_comes_back_reads_what_is_logged_from_then_on(tmp_path):
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    first = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    descriptor = os.open(fifo, os.O_WRONLY)
    repository = simulated(tmp_path / "models")
    async with serve("--model-repository", repository, stderr=descriptor) as server:
        os.close(descriptor)
        async with grpc.aio.insecure_channel(await server.wait_ready()) as channel:
            os.close(first)
            for reader in (None, os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)):
                stream = RawStream(channel)
                await stream.send_open(stream_id="seen" if reader else "unseen")
                await stream.half_close()
                assert await stream.results() == []
                if reader is None:
                    continue
                assert await server.end() == 0
                text = os.read(reader, 1 << 16).decode()
                os.close(reader)
    assert '"stream": "seen"' in text
    assert "stopping" in text


@pytest.mark.parametrize("kind", ["closed", "full disk", "reader gone"])
@on_loop
async def test_a_ready_line_that_cannot_be_written_is_one_line_and_a_code(tmp_path, kind):
    with broken(kind) as descriptor:
        async with serve("--model-repository", simulated(tmp_path), stdout=descriptor) as server:
            assert await server.wait() == exit_codes.CANNOT_WRITE
    plain = [line for line in server.errors.splitlines() if not line.startswith("{")]
    assert len(plain) == 1
    assert plain[0].startswith("forebay: cannot write the ready line to standard output: ")
    assert "Traceback" not in server.errors


@on_loop
async def test_a_ready_line_that_nobody_reads_keeps_nobody_waiting(tmp_path):
    ready_file = tmp_path / "ready.json"
    flags = ("--model-repository", simulated(tmp_path / "models"), "--ready-file", ready_file)
    with broken("reader takes nothing") as descriptor:
        async with serve(*flags, stdout=descriptor, stderr=descriptor) as server:
            while not ready_file.exists():
                await asyncio.sleep(0.01)
            assert await server.end() == exit_codes.OK


@pytest.mark.parametrize("kind", ["closed", "full disk", "reader gone"])
@on_loop
async def test_a_ready_line_of_several_servers_that_cannot_be_written_ends_them_all(tmp_path, kind):
    flags = ("--model-repository", simulated(tmp_path), "--front-ends", "2")
    with broken(kind) as descriptor:
        async with serve(*flags, stdout=descriptor) as server:
            assert await server.wait() == exit_codes.CANNOT_WRITE
    assert server.errors.count("forebay: cannot write the ready line") == 1
    assert server.errors.count('"event": "stopping"') == 3
    assert "Traceback" not in server.errors


@pytest.mark.parametrize("more", [("--supervise",), ("--front-ends", "2")])
@pytest.mark.parametrize("kind", KINDS)
@on_loop
async def test_those_that_watch_over_servers_need_no_log_either(tmp_path, kind, more):
    with broken(kind) as descriptor:
        async with serve("--model-repository", simulated(tmp_path), *more, stderr=descriptor) as server:
            address = await server.wait_ready()
            if more == ("--supervise",):
                os.kill(server.ready["pid"], signal.SIGKILL)
                address = await server.wait_ready()  # the report about it waits for no reader
            async with grpc.aio.insecure_channel(address) as channel:
                stream = RawStream(channel)
                await stream.send_open()
                await stream.send(1)
                await stream.half_close()
                assert [result.status.code for result in await stream.results()] == [pb.STATUS_OK]
            assert await server.end() == exit_codes.OK


@pytest.mark.parametrize("streams", [{"stdout": None, "stderr": None}, {"stdout": None}])
@on_loop
async def test_no_standard_output_at_all_is_a_code(tmp_path, streams):
    async with serve("--model-repository", simulated(tmp_path), **streams) as server:
        assert await server.wait() == exit_codes.CANNOT_WRITE
