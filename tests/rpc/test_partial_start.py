"""A server that starts although a model is broken: its serving models, its readiness, and the return of the model."""

import asyncio

import grpc
import pytest
import structlog

from forebay.wire import health_pb2, health_pb2_grpc
from forebay.wire import inference_pb2 as pb
from forebay_server.engines.errors import DeviceMemoryError, EngineError
from forebay_server.service.models.repository import RepositoryError
from tests.rpc.test_inference_lifecycle import add_sub, load, states, unload
from tests.support import models
from tests.support.inference import add_sub_request, array_of, stub_of
from tests.support.loops import on_loop
from tests.support.real_server import SimulatedDevices, eventually, real_server, simulated

LENIENT = {"exit_on_error": False}
POLLED = {**LENIENT, "model_control_mode": "poll", "repository_poll_s": 3600}
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def repository(root):
    """One good model, and one of every kind of broken ones."""
    add_sub(root, "good")
    models.save(models.add_sub(), root / "garbage" / "1" / "model.onnx").write_bytes(b"no model")
    (root / "misspelt").mkdir()
    (root / "misspelt" / "config.pbtxt").write_text("max_batchsize: 1")
    (root / "no_file" / "1").mkdir(parents=True)
    (root / "loose").mkdir()
    (root / "loose" / "model.onnx").write_bytes(b"")
    for name in ("lost+found", "__MACOSX"):
        (root / name).mkdir()
    return root


NO_MODELS = "no model in "
BROKEN = ["garbage", "loose", "misspelt", "no_file"]


async def is_ready(running):
    """As both protocols and the admin port say, which must agree."""
    ready = (await stub_of(running).ServerReady(pb.ServerReadyRequest())).ready
    assert (await health_of(running, "") == SERVING) == ready
    return ready


async def health_of(running, name):
    stub = health_pb2_grpc.HealthStub(running.channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status


async def answers(running, name="good"):
    response = await stub_of(running).ModelInfer(add_sub_request(model=name))
    return array_of(response, "OUTPUT0")[0, 3] == 4


@on_loop
async def test_a_broken_model_ends_the_start_unless_told_otherwise(tmp_path):
    for name in BROKEN:
        root = repository(tmp_path / name)
        for other in set(BROKEN) - {name}:
            for path in sorted((root / other).rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            (root / other).rmdir()
        with pytest.raises((RepositoryError, EngineError), match=name):
            async with real_server(root):
                pass


@on_loop
async def test_a_model_that_is_asked_for_by_name_is_missed_though_its_folder_is_there(tmp_path):
    (tmp_path / "empty").mkdir()
    asked = {"model_control_mode": "explicit", "load_model": ("empty",)}
    with pytest.raises(RepositoryError, match=r"empty: no config\.pbtxt and no version folder"):
        async with real_server(tmp_path, **asked):
            pass
    async with real_server(tmp_path, **asked, **LENIENT) as running:
        assert not await is_ready(running)


@pytest.mark.parametrize("is_strict", [True, False])
@on_loop
async def test_the_others_serve_and_the_server_is_ready_as_asked(tmp_path, is_strict):
    async with real_server(repository(tmp_path), **LENIENT, strict_readiness=is_strict) as running:
        stub = stub_of(running)
        assert await answers(running)
        assert (await stub.ServerLive(pb.ServerLiveRequest())).live
        assert await is_ready(running) is not is_strict
        assert running.ready.models == {"good": ["1"]}
        found = await states(stub)
        assert found.pop(("good", "1")) == ("READY", "")
        assert {name for name, _ in found} == set(BROKEN)
        for (name, _), (state, reason) in found.items():
            assert state == "UNAVAILABLE"
            assert name in reason
            assert str(tmp_path) not in reason
            assert await health_of(running, name) == NOT_SERVING
        assert await health_of(running, "good") == SERVING


@on_loop
async def test_the_log_says_why_a_server_is_not_ready(tmp_path):
    with structlog.testing.capture_logs() as logs:
        async with real_server(repository(tmp_path), **LENIENT):
            pass
    [told] = [line for line in logs if line["event"] == "not ready"]
    assert told["models"] == BROKEN
    assert "--strict-readiness false" in told["detail"]


@on_loop
async def test_without_broken_models_the_server_is_ready(tmp_path):
    with structlog.testing.capture_logs() as logs:
        async with real_server(add_sub(tmp_path), **LENIENT) as running:
            assert await is_ready(running)
    assert not [line for line in logs if line["event"].startswith(("not ready", NO_MODELS))]


@on_loop
async def test_a_repository_without_models_ends_the_start_and_its_contents_are_named(tmp_path):
    (tmp_path / "camera.jpg").touch()
    with pytest.raises(RepositoryError, match=r"it holds camera.jpg, and no model; put NAME.onnx or NAME/1/model.onnx"):
        async with real_server(tmp_path):
            pass


@pytest.mark.parametrize("settings", [{"model_control_mode": "poll"}, {"exit_on_error": False}])
@on_loop
async def test_a_repository_that_may_fill_later_is_served_with_a_warning(tmp_path, settings):
    with structlog.testing.capture_logs() as logs:
        async with real_server(tmp_path, **settings) as running:
            assert await is_ready(running)
    assert any(line["event"].startswith(NO_MODELS) for line in logs)


@on_loop
async def test_a_model_of_the_start_that_a_client_loads_or_unloads_makes_the_server_ready(tmp_path):
    explicit = {**LENIENT, "model_control_mode": "explicit", "load_model": ("good", "late", "never")}
    async with real_server(add_sub(tmp_path, "good"), **explicit) as running:
        stub = stub_of(running)
        assert not await is_ready(running)
        await load(stub, "late") if add_sub(tmp_path, "late") else None
        assert not await is_ready(running)
        with pytest.raises(grpc.aio.AioRpcError):
            await unload(stub, "never")
        add_sub(tmp_path, "never")
        await load(stub, "never")
        assert await is_ready(running)
        await unload(stub, "never")
        assert await is_ready(running), "a client unloaded it on purpose"


@on_loop
async def test_polling_takes_up_a_broken_model_that_is_mended_or_taken_away(tmp_path):
    async with real_server(repository(tmp_path), **POLLED) as running:
        poll = running.server.lifecycle.poll
        add_sub(tmp_path, "garbage")
        add_sub(tmp_path, "no_file")
        (tmp_path / "misspelt" / "config.pbtxt").unlink()
        (tmp_path / "loose" / "model.onnx").unlink()
        await asyncio.to_thread(poll)
        assert await answers(running, "garbage")
        assert not await is_ready(running)
        for name in ("misspelt", "loose"):
            (tmp_path / name).rmdir()
        await asyncio.to_thread(poll)
        await eventually(lambda: not running.server.lifecycle.lacking())
        assert await is_ready(running)
        assert set(await states(stub_of(running))) == {(name, "1") for name in ("good", "garbage", "no_file")}


@on_loop
async def test_polling_tries_a_model_again_that_has_not_changed_after_ever_more_looks(tmp_path):
    tries = []

    class NoMemoryAtFirst(SimulatedDevices):
        def __call__(self, kind, clock):
            tries.append(looks)
            if len(tries) < 5:
                raise DeviceMemoryError("no memory")
            return super().__call__(kind, clock)

    looks = 0
    async with real_server(simulated(tmp_path), devices=NoMemoryAtFirst(), **POLLED) as running:
        assert not await is_ready(running)
        for looks in range(1, 20):  # noqa: B007 - the device sees it
            await asyncio.to_thread(running.server.lifecycle.poll)
        assert tries == [0, 1, 3, 7, 15]
        assert await is_ready(running)
