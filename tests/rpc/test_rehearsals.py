"""Loads that hang, crash or take too much, asked of a real server process: it goes on, and ends as it should."""

import asyncio
import contextlib
import os
import signal
from contextlib import asynccontextmanager

import grpc
import psutil
import pytest

from forebay.wire.inference_pb2_grpc import GRPCInferenceServiceStub
from forebay_server.service.cli import exit_codes
from tests.rpc.test_inference_lifecycle import add_sub, code_of, load, states, unload
from tests.support import hostile_models, models
from tests.support.guard import HANG_GUARD_S
from tests.support.inference import add_sub_request, array_of
from tests.support.loops import on_loop
from tests.support.real_server import simulated
from tests.support.serve_process import serve

MIB = 1 << 20
HANGS = '{"backend": "simulated", "parameters": {"hang_at": {"string_value": "1"}}}'


def endless(root, name="endless"):
    models.save(hostile_models.endless(), root / name / "1" / "model.onnx")
    return root


def settings(**given):
    return {**os.environ, **{f"FOREBAY_{name.upper()}": str(value) for name, value in given.items()}}


@asynccontextmanager
async def explicit_server(root, **given):
    """A server process that loads models on request, and its stub."""
    environment = settings(model_control_mode="explicit", **given)
    async with (
        serve("--model-repository", root, environment=environment) as server,
        grpc.aio.insecure_channel(await server.wait_ready()) as channel,
    ):
        yield server, GRPCInferenceServiceStub(channel)


def rehearsals(server):
    """The processes that rehearse; one that has just been forked is still a copy of the server, environment and all."""
    found = []
    for child in psutil.Process(server.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie too
            if any("rehears" in word for word in child.cmdline()):
                found.append(child)
    return found


async def until(condition):
    """Wait until the asynchronous `condition()` holds."""
    async with asyncio.timeout(HANG_GUARD_S):
        while not await condition():
            await asyncio.sleep(0.01)


async def loading(server, stub, name, **parameters):
    """Ask for a load that does not end, and return the call once its rehearsal is under way."""
    call = asyncio.ensure_future(code_of(load(stub, name, **parameters)))

    async def is_loading():
        return (await states(stub)).get((name, ""), ("", ""))[0] == "LOADING"

    await until(is_loading)
    await until(lambda: asyncio.to_thread(rehearsals, server))
    return call


async def gone(processes):
    async def are_gone():
        return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)

    await until(are_gone)


@on_loop
async def test_others_load_and_serve_beside_a_load_that_does_not_end_and_unloading_ends_it(tmp_path):
    async with explicit_server(endless(add_sub(tmp_path))) as (server, stub):
        call = await loading(server, stub, "endless")
        again = asyncio.ensure_future(code_of(load(stub, "endless")))  # waits for the first
        await load(stub, "simple")
        assert array_of(await stub.ModelInfer(add_sub_request()), "OUTPUT0")[0, 3] == 4
        children = rehearsals(server)
        assert len(children) == 1
        await unload(stub, "endless")
        code, message = await call
        assert code is grpc.StatusCode.INTERNAL
        assert "unloaded while it was loading" in message
        assert "unloaded while it was loading" in (await again)[1]
        await gone(children)
        assert (await states(stub))[("endless", "")] == ("UNAVAILABLE", "unloaded")
        assert await server.end() == 0


@pytest.mark.parametrize("parameters", [{}, {"config": HANGS}], ids=["a loop in the graph", "an engine that hangs"])
@on_loop
async def test_sigterm_ends_a_load_and_the_process_in_order(tmp_path, parameters):
    async with explicit_server(endless(tmp_path)) as (server, stub):
        call = await loading(server, stub, "endless", **parameters)
        children = rehearsals(server)
        assert await server.end() == 0
        assert "the server is shutting down" in (await call)[1]
        await gone(children)
        assert "Traceback" not in server.errors


@on_loop
async def test_sigterm_during_a_load_with_files_leaves_none_of_them(tmp_path, monkeypatch):
    (temporary := tmp_path / "temporary").mkdir()
    sent = {"config": '{"backend": "onnxruntime"}', "file:1/model.onnx": hostile_models.endless().SerializeToString()}
    monkeypatch.setenv("TMPDIR", str(temporary))
    async with explicit_server(add_sub(tmp_path / "models"), allow_model_files="true") as (server, stub):
        call = await loading(server, stub, "sent", **sent)
        assert len(list(temporary.iterdir())) == 1
        assert await server.end() == 0
        assert "the server is shutting down" in (await call)[1]
        assert list(temporary.iterdir()) == []


@on_loop
async def test_a_load_has_a_deadline(tmp_path):
    async with explicit_server(endless(add_sub(tmp_path)), load_timeout_s=2.5) as (server, stub):
        code, message = await code_of(load(stub, "endless"))
        assert code is grpc.StatusCode.INTERNAL
        assert "endless: not loaded within 2.5 s: " in message
        assert rehearsals(server) == []
        state, reason = (await states(stub))[("endless", "")]
        assert state == "UNAVAILABLE"
        assert "not loaded within 2.5 s" in reason
        assert await server.end() == 0


@on_loop
async def test_a_load_that_takes_too_much_memory_takes_it_from_nobody(tmp_path):
    models.save(hostile_models.greedy(9), tmp_path / "greedy" / "1" / "model.onnx")
    async with explicit_server(tmp_path, model_memory_bytes=200 * MIB) as (server, stub):
        server_process = psutil.Process(server.process.pid)
        before = server_process.memory_info().rss
        code, message = await code_of(load(stub, "greedy"))
        assert code is grpc.StatusCode.INTERNAL
        assert "memory" in message or "MiB" in message
        assert server_process.memory_info().rss - before < 100 * MIB
        assert await server.end() == 0


@on_loop
async def test_memory_that_is_set_aside_and_not_used_counts_for_nothing(tmp_path):
    simulated(tmp_path, input_bytes=MIB)
    given = {"permits": 2048, "model_memory_bytes": 200 * MIB}  # 2 GB of frames, of which none is there
    async with explicit_server(tmp_path, **given) as (server, stub):
        await load(stub, "sim")
        assert (await states(stub))[("sim", "1")] == ("READY", "")
        assert await server.end() == 0


@on_loop
async def test_a_load_whose_process_is_killed_is_an_error_of_that_load(tmp_path):
    async with explicit_server(endless(tmp_path)) as (server, stub):
        call = await loading(server, stub, "endless")
        for child in rehearsals(server):
            child.kill()
        code, message = await call
        assert code is grpc.StatusCode.INTERNAL
        assert "endless: the system ended the process that loaded it" in message
        assert await server.end() == 0


@on_loop
async def test_a_rehearsal_does_not_outlive_a_server_that_is_killed(tmp_path):
    async with explicit_server(endless(tmp_path)) as (server, stub):
        call = await loading(server, stub, "endless")

        async def has_begun():  # binding to its parent is its first action
            return any(child.nice() > psutil.Process().nice() for child in rehearsals(server))

        await until(has_begun)
        children = rehearsals(server)
        await server.end(signal.SIGKILL)
        await call
        await gone(children)


@on_loop
async def test_the_secrets_of_the_service_are_not_given_to_a_rehearsal(tmp_path):
    secret = {"restricted_protocol": "logging:admin=s3cret"}
    async with explicit_server(endless(tmp_path), **secret) as (server, stub):
        call = await loading(server, stub, "endless")
        assert not [name for name in rehearsals(server)[0].environ() if name.startswith("FOREBAY_")]
        await unload(stub, "endless")
        await call
        assert await server.end() == 0


@on_loop
async def test_polling_follows_the_other_folders_while_one_model_does_not_end(tmp_path):
    add_sub(tmp_path, "first")
    polling = settings(model_control_mode="poll", repository_poll_s=0.2)
    async with serve("--model-repository", tmp_path, environment=polling) as server:
        async with grpc.aio.insecure_channel(await server.wait_ready()) as channel:
            stub = GRPCInferenceServiceStub(channel)
            endless(tmp_path)

            async def has(name, version, state):
                return (await states(stub)).get((name, version), ("", ""))[0] == state

            await until(lambda: has("endless", "", "LOADING"))
            add_sub(tmp_path, "second")
            await until(lambda: has("second", "1", "READY"))
            assert await has("endless", "", "LOADING")
            children = rehearsals(server)
            assert await server.end() == 0
        await gone(children)


@on_loop
async def test_without_rehearsals_a_load_that_hangs_is_given_up_and_holds_up_nothing(tmp_path):
    given = {"rehearse_loads": "false", "load_timeout_s": 2.5}
    async with explicit_server(endless(add_sub(tmp_path)), **given) as (server, stub):
        assert "not loaded within 2.5 s" in (await code_of(load(stub, "endless")))[1]
        await load(stub, "simple")
        assert array_of(await stub.ModelInfer(add_sub_request()), "OUTPUT0")[0, 3] == 4
        assert await server.end() == 0


@on_loop
async def test_sigterm_ends_a_start_that_does_not_end(tmp_path):
    add_sub(tmp_path, "a")
    async with serve("--model-repository", endless(tmp_path)) as server:
        async with asyncio.timeout(HANG_GUARD_S):
            while b"model loaded" not in await server.process.stderr.readline():
                pass
        assert await server.end() == 0
        assert server.output == ""
        assert "Traceback" not in server.errors


@on_loop
async def test_a_start_that_does_not_end_has_a_deadline(tmp_path):
    simulated(tmp_path, hang_at=1)
    async with serve("--model-repository", tmp_path, environment=settings(load_timeout_s=0.5)) as server:
        assert await server.wait() == exit_codes.MODEL
        lines = [line for line in server.errors.splitlines() if line.startswith("forebay: ")]
        assert lines == [
            "forebay: sim: not loaded within 0.5 s: look at what the model does when it is warmed up, or raise "
            "load_timeout_s"
        ]


@on_loop
async def test_a_start_without_the_models_that_do_not_end_serves_the_others_and_ends_in_order(tmp_path):
    given = settings(load_timeout_s=2.5, exit_on_error="false")
    async with serve("--model-repository", endless(add_sub(tmp_path)), environment=given) as server:
        async with grpc.aio.insecure_channel(await server.wait_ready()) as channel:
            stub = GRPCInferenceServiceStub(channel)
            assert array_of(await stub.ModelInfer(add_sub_request()), "OUTPUT0")[0, 3] == 4
            assert (await states(stub))[("endless", "")][0] == "UNAVAILABLE"
        assert await server.end() == 0
