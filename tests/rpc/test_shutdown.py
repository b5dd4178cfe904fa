"""`forebay serve` as a process: how it ends, and how it says that it cannot start."""

import asyncio
import json
import signal
import socket

import grpc
import pytest

from forebay.wire import frames_pb2 as pb
from forebay_server.service.cli import exit_codes
from forebay_server.service.clock import MonotonicClock
from forebay_server.service.signals import ONE_REQUEST_NS
from tests.support.guard import HANG_GUARD_S
from tests.support.loops import on_loop
from tests.support.real_server import RawStream, simulated
from tests.support.serve_process import serve, terminate_under_load


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@on_loop
async def test_a_signal_under_load_loses_nothing(tmp_path, number):
    assert await terminate_under_load(simulated(tmp_path, alpha_ms=1), number) >= 60


@on_loop
async def test_the_ready_line_and_file_say_where_it_listens_and_what_it_serves(tmp_path):
    repository = simulated(tmp_path / "models")
    ready_file, socket_path = tmp_path / "ready.json", tmp_path / "forebay.sock"
    arguments = ("--model-repository", repository, "--ready-file", ready_file, "--uds", socket_path)
    async with serve(*arguments) as server:
        address = await server.wait_ready()
        assert json.loads(ready_file.read_text()) == server.ready
        assert server.ready["models"] == {"sim": ["1"]}
        assert server.ready["pid"] == server.process.pid
        for target in (address, f"unix:{socket_path}"):
            async with grpc.aio.insecure_channel(target) as channel:
                stream = RawStream(channel)
                await stream.send_open()
                await stream.send(1)
                await stream.half_close()
                assert [r.status.code for r in await stream.results()] == [pb.STATUS_OK]
        assert await server.end() == 0


@on_loop
async def test_clients_that_never_half_close_are_cut_after_the_grace_with_everything_answered(tmp_path):
    (tmp_path / "forebay.toml").write_text("drain_grace_s = 0.3\n")
    repository = simulated(tmp_path / "models")
    async with serve("--model-repository", repository, "--config", tmp_path / "forebay.toml") as server:
        async with grpc.aio.insecure_channel(await server.wait_ready()) as channel:
            stream = RawStream(channel)
            await stream.send_open(max_in_flight=64)
            for seq in range(30):
                await stream.send(seq)
            first = await stream.results(1)
            server.signal(signal.SIGTERM)
            rest = await stream.results()
            assert [r.seq for r in first + rest] == list(range(30))
            assert await stream.status() == (grpc.StatusCode.OK, "")
        assert await server.wait() == 0


@on_loop
async def test_a_signal_that_comes_twice_at_once_is_one(tmp_path):
    """As `timeout`, a shell or a supervisor pass it on: to the process and to its group."""
    async with serve("--model-repository", simulated(tmp_path, alpha_ms=20, max_batch_size=1)) as server:
        async with grpc.aio.insecure_channel(await server.wait_ready()) as channel:
            stream = RawStream(channel)
            await stream.send_open(max_in_flight=64)
            for seq in range(10):
                await stream.send(seq)
            results = await stream.results(1)
            server.signal(signal.SIGTERM)
            while (message := await stream.receive()).WhichOneof("message") == "result":
                results.append(message.result)
            assert message.WhichOneof("message") == "reconnect"
            server.signal(signal.SIGTERM)
            await stream.half_close()
            results += await stream.results()
        assert [r.seq for r in results] == list(range(10))
        assert await server.wait() == 0


@pytest.mark.parametrize("more", [(), ("--supervise",), ("--front-ends", "2")])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@on_loop
async def test_signals_of_one_request_that_come_until_the_process_has_ended_are_one(tmp_path, more, number):
    """An idle server has drained at once, and takes longer to end."""
    clock = MonotonicClock()
    async with serve("--model-repository", simulated(tmp_path), *more) as server:
        await server.wait_ready()
        before_ns = clock.now_ns()  # the server's first request is later than this
        ended = asyncio.create_task(server.wait())
        while not ended.done() and clock.now_ns() < before_ns + ONE_REQUEST_NS // 2:  # a busy server sees them later
            server.signal(number)
            await asyncio.wait([ended], timeout=0.01)
        assert await ended == 0


@pytest.mark.parametrize("more", [(), ("--supervise",), ("--front-ends", "2")])
@on_loop
async def test_a_request_that_comes_after_a_second_ends_the_process_at_once(tmp_path, more):
    clock = MonotonicClock()
    async with serve("--model-repository", simulated(tmp_path), *more) as server:
        async with grpc.aio.insecure_channel(await server.wait_ready()) as channel:
            stream = RawStream(channel)
            await stream.send_open()
            await stream.receive()
            server.signal(signal.SIGTERM)
            assert (await stream.receive()).WhichOneof("message") == "reconnect"
            first_ns = clock.now_ns()  # the server's first request was not later than this
            while clock.now_ns() <= first_ns + ONE_REQUEST_NS:  # the rule is about time
                await asyncio.sleep(0.05)
            server.signal(signal.SIGINT)
            assert (await stream.status())[0] is grpc.StatusCode.UNAVAILABLE
        assert await server.wait() == 128 + signal.SIGINT


async def refusal(*arguments, environment=None):
    """The exit code and the one line of a server that does not start; log lines left out."""
    async with serve(*arguments, environment=environment) as server:
        code = await server.wait()
    assert server.output == ""
    assert "Traceback" not in server.errors, server.errors
    lines = [line for line in server.errors.splitlines() if line.startswith("forebay: ")]
    assert len(lines) == 1, server.errors
    return code, lines[0]


@on_loop
async def test_a_port_in_use_is_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, line = await refusal("--address", address, "--model-repository", simulated(tmp_path))
    assert code == exit_codes.UNAVAILABLE
    assert address in line


@on_loop
async def test_a_ready_file_that_cannot_be_written_is_one_line(tmp_path):
    flags = ["--model-repository", simulated(tmp_path / "models"), "--ready-file", tmp_path / "nowhere" / "ready"]
    code, line = await refusal(*flags)
    assert code == exit_codes.CANNOT_WRITE
    assert "--ready-file" in line


@on_loop
async def test_a_missing_repository_is_one_line(tmp_path):
    code, line = await refusal("--model-repository", tmp_path / "nowhere")
    assert code == exit_codes.MODEL
    assert str(tmp_path / "nowhere") in line


def broken_file(root):
    (root / "net" / "1").mkdir(parents=True)
    (root / "net" / "1" / "model.onnx").write_bytes(b"this is no model")


def broken_config(root):
    (root / "net" / "1").mkdir(parents=True)
    (root / "net" / "config.pbtxt").write_text('backend: "simulated" max_bach_size: 4')


def wrong_option(root):
    simulated(root, "net", alpha_ms="fast")


def failing_model(root):
    simulated(root, "net", fail_every=1)


BROKEN = {broken_file: "net", broken_config: "max_batch_size", wrong_option: "alpha_ms", failing_model: "net"}


@pytest.mark.parametrize("make", BROKEN)
@on_loop
async def test_a_broken_model_is_one_line(tmp_path, make):
    simulated(tmp_path, "whole")
    make(tmp_path)
    code, line = await refusal("--model-repository", tmp_path)
    assert code == exit_codes.MODEL
    assert BROKEN[make] in line
    assert "net" in line


@on_loop
async def test_fewer_permits_than_rows_of_a_batch_are_enough_to_start(tmp_path):
    (tmp_path / "forebay.toml").write_text("permits = 1\n")
    repository = simulated(tmp_path / "models", max_batch_size=32)
    async with serve("--model-repository", repository, "--config", tmp_path / "forebay.toml") as server:
        await server.wait_ready()
        assert await server.end() == 0


@on_loop
async def test_sigterm_while_models_load_ends_in_order(tmp_path):
    simulated(simulated(tmp_path, "a"), "b", alpha_ms=20)  # calibrates for 200 ms and more
    async with serve("--model-repository", tmp_path) as server:
        async with asyncio.timeout(HANG_GUARD_S):
            while b"model loaded" not in await server.process.stderr.readline():
                pass
        assert await server.end() == 0
        assert "Traceback" not in server.errors
