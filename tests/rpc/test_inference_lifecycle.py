"""Models that are loaded, unloaded, reloaded and switched while requests come."""

import asyncio
import errno
import re
import shutil
import threading

import grpc
import numpy as np
import pytest
import structlog
from onnx import TensorProto, helper, numpy_helper

from forebay.wire import inference_pb2 as pb
from forebay_server.engines.device_simulated import SimulatedDevice
from forebay_server.service.models import load_queue
from tests.support import models
from tests.support.guard import HANG_GUARD_S
from tests.support.inference import add_sub_request, array_of, request_of, stub_of
from tests.support.loops import on_loop
from tests.support.real_server import SimulatedDevices, eventually, real_server, row, simulated


def add_sub(root, name="simple", version=1):
    models.save(models.add_sub(), root / name / str(version) / "model.onnx")
    return root


async def code_of(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details()


async def load(stub, name, **parameters):
    request = pb.RepositoryModelLoadRequest(model_name=name)
    for key, value in parameters.items():
        kind = "bytes_param" if isinstance(value, bytes) else "string_param"
        setattr(request.parameters[key], kind, value)
    await stub.RepositoryModelLoad(request)


async def unload(stub, name):
    await stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name=name))


async def states(stub):
    index = await stub.RepositoryIndex(pb.RepositoryIndexRequest())
    return {(model.name, model.version): (model.state, model.reason) for model in index.models}


@on_loop
async def test_without_explicit_control_nothing_is_loaded_or_unloaded(tmp_path):
    async with real_server(add_sub(tmp_path)) as running:
        stub = stub_of(running)
        expected = (grpc.StatusCode.UNAVAILABLE, "explicit model load / unload is not allowed if polling is enabled")
        assert await code_of(load(stub, "simple")) == expected
        assert await code_of(unload(stub, "simple")) == expected
        assert await states(stub) == {("simple", "1"): ("READY", "")}


@on_loop
async def test_a_model_is_loaded_and_unloaded_on_request(tmp_path):
    async with real_server(add_sub(tmp_path), model_control_mode="explicit") as running:
        stub = stub_of(running)
        assert await states(stub) == {("simple", ""): ("", "")}
        code, message = await code_of(stub.ModelInfer(add_sub_request()))
        assert (code, message) == (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'simple' is not found")
        await load(stub, "simple")
        assert (await stub.ModelReady(pb.ModelReadyRequest(name="simple"))).ready
        assert array_of(await stub.ModelInfer(add_sub_request()), "OUTPUT0")[0, 3] == 4
        await unload(stub, "simple")
        assert (await code_of(stub.ModelInfer(add_sub_request())))[0] is grpc.StatusCode.NOT_FOUND
        await eventually(lambda: not running.server.registry.unloading())
        assert await states(stub) == {("simple", ""): ("UNAVAILABLE", "unloaded")}


@on_loop
async def test_what_load_cannot_do_it_says(tmp_path):
    async with real_server(add_sub(tmp_path), model_control_mode="explicit") as running:
        stub = stub_of(running)
        code, message = await code_of(load(stub, "nobody"))
        assert code is grpc.StatusCode.INTERNAL
        assert message == (
            "failed to load 'nobody', failed to poll from model repository: no model 'nobody' in the repository"
        )
        for nothing in ("../simple", ""):
            code, message = await code_of(load(stub, nothing))
            assert code is grpc.StatusCode.INTERNAL
            assert message.startswith(f"failed to load '{nothing}', failed to poll from model repository")
        assert await code_of(load(stub, "simple", colour="red")) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "unrecognized load parameter 'colour'.",
        )
        request = pb.RepositoryModelLoadRequest(model_name="simple")
        request.parameters["file:1/model.onnx"].bytes_param = b"x"
        assert (await code_of(stub.RepositoryModelLoad(request)))[0] is grpc.StatusCode.UNIMPLEMENTED
        named = pb.RepositoryIndexRequest(repository_name="other")
        assert (await code_of(stub.RepositoryIndex(named)))[0] is grpc.StatusCode.UNIMPLEMENTED


@on_loop
async def test_a_configuration_in_the_request_takes_the_place_of_the_file(tmp_path):
    async with real_server(add_sub(tmp_path), model_control_mode="explicit") as running:
        stub = stub_of(running)
        await load(stub, "simple", config='{"max_batch_size": 3, "backend": "onnxruntime"}')
        config = (await stub.ModelConfig(pb.ModelConfigRequest(name="simple"))).config
        assert config.max_batch_size == 3
        code, message = await code_of(load(stub, "simple", config="{"))
        assert code is grpc.StatusCode.INTERNAL
        assert message.startswith("load failed for model 'simple': ")
        assert "the configuration in the request" in message


@on_loop
async def test_a_broken_model_is_refused_and_the_old_one_keeps_serving(tmp_path):
    add_sub(tmp_path)
    async with real_server(tmp_path, model_control_mode="explicit", load_model=("*",)) as running:
        stub = stub_of(running)
        (tmp_path / "simple" / "1" / "model.onnx").write_bytes(b"no model")
        with structlog.testing.capture_logs() as logs:
            code, message = await code_of(load(stub, "simple"))
        [told] = [line for line in logs if line["event"] == "model not loaded"]
        assert (told["model"], told["log_level"]) == ("simple", "warning")
        assert str(tmp_path) in told["error"], "the operator may read where"
        assert code is grpc.StatusCode.INTERNAL
        assert message.startswith("load failed for model 'simple': ")
        assert "/tmp" not in message  # noqa: S108 - where the test's folder is
        assert str(tmp_path) not in message
        assert array_of(await stub.ModelInfer(add_sub_request()), "OUTPUT0")[0, 3] == 4
        index = await states(stub)
        assert index[("simple", "1")][0] == "READY"
        assert index[("simple", "")][0] == "UNAVAILABLE"


@on_loop
async def test_what_onnx_runtime_says_of_a_model_is_told_without_its_sources_and_folders(tmp_path):
    """The second one fails in an assertion of its C++ code, which names file, line, function and condition."""
    unknown = models.add_sub()
    unknown.graph.node[0].op_type = "Ad\nd"
    empty = models.failing()
    empty.graph.initializer[0].raw_data = b""
    models.save(unknown, tmp_path / "unknown" / "1" / "model.onnx")
    models.save(empty, tmp_path / "empty" / "1" / "model.onnx")
    async with real_server(tmp_path, model_control_mode="explicit") as running:
        for name, words in (("unknown", "This is an invalid model."), ("empty", "Initializer 'table'")):
            code, message = await code_of(load(stub_of(running), name))
            assert code is grpc.StatusCode.INTERNAL
            assert words in message
            assert not re.search(r"onnxruntime|\.cc|\.h:|::|\n|/tmp", message), message


@on_loop
async def test_an_engine_that_takes_for_ever_is_refused_before_it_runs(tmp_path):
    async with real_server(simulated(tmp_path), model_control_mode="explicit") as running:
        override = '{"backend": "simulated", "parameters": {"alpha_ms": {"string_value": "1000000000"}}}'
        code, message = await code_of(load(stub_of(running), "sim", config=override))
        assert code is grpc.StatusCode.INTERNAL
        assert "option alpha_ms is '1000000000', but must be a number of milliseconds from 0 to 600000" in message


@on_loop
async def test_a_new_version_is_warmed_up_as_its_configuration_says_before_it_takes_over(tmp_path):
    table = numpy_helper.from_array(np.arange(10, dtype=np.float32), "table")
    gather = models.build(
        [helper.make_node("Gather", ["table", "index"], ["value"])],
        [models.tensor("index", ["batch", 1], TensorProto.INT64)],
        [models.tensor("value", ["batch", 1])],
        [table],
    )
    models.save(gather, tmp_path / "simple" / "1" / "model.onnx")
    (tmp_path / "simple" / "warmup").mkdir()
    index = tmp_path / "simple" / "warmup" / "index"
    async with real_server(tmp_path, model_control_mode="explicit", load_model=("*",)) as running:
        stub = stub_of(running)
        before = running.version("simple")
        (tmp_path / "simple" / "config.pbtxt").write_text(
            'model_warmup { name: "last" batch_size: 2 count: 3 inputs { key: "index" value { data_type: TYPE_INT64 '
            'dims: 1 input_data_file: "index" } } }'
        )
        index.write_bytes(np.int64(10).tobytes())
        code, message = await code_of(load(stub, "simple"))
        assert code is grpc.StatusCode.INTERNAL
        assert "simple/config.pbtxt: model_warmup 'last': the model fails on it: " in message
        assert str(tmp_path) not in message
        assert running.version("simple") is before
        index.write_bytes(np.int64(9).tobytes())
        await load(stub, "simple")
        assert running.version("simple") is not before


@on_loop
async def test_a_new_version_takes_over_and_no_request_is_lost(tmp_path):
    add_sub(tmp_path)
    async with real_server(tmp_path, model_control_mode="explicit", load_model=("simple",)) as running:
        stub = stub_of(running)
        is_done = False
        versions = []

        async def keep_asking():
            while not is_done:
                versions.append((await stub.ModelInfer(add_sub_request(rows=2))).model_version)

        clients = [asyncio.create_task(keep_asking()) for _ in range(4)]
        for version in range(2, 6):
            add_sub(tmp_path, version=version)
            await load(stub, "simple")
            assert (await stub.ModelInfer(add_sub_request())).model_version == str(version)
        is_done = True
        await asyncio.gather(*clients)
        assert versions
        assert set(versions) <= {"1", "2", "3", "4", "5"}
        await eventually(lambda: not running.server.registry.unloading())


@on_loop
async def test_the_old_version_answers_what_it_has_before_it_closes(tmp_path):
    simulated(tmp_path, alpha_ms=100, max_batch_size=1)
    async with real_server(tmp_path, model_control_mode="explicit", load_model=("sim",)) as running:
        stub = stub_of(running)
        values = np.frombuffer(row(3), np.uint8).reshape(1, -1)
        pending = [asyncio.ensure_future(_infer(stub, values)) for _ in range(3)]
        await eventually(lambda: running.server.permits.taken_count > 0)
        await unload(stub, "sim")
        assert (await states(stub))[("sim", "1")] == ("UNLOADING", "")
        for response in await asyncio.gather(*pending):
            np.testing.assert_array_equal(array_of(response, "output"), values)
        await eventually(lambda: not running.server.registry.unloading())


async def _infer(stub, values):
    return await stub.ModelInfer(request_of("sim", input=values))


@on_loop
async def test_frame_streams_of_an_unloaded_model_are_asked_to_reconnect(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path, model_control_mode="explicit", load_model=("sim",)) as running:
        stub = stub_of(running)
        stream = await running.open()
        await load(stub, "sim")
        message = await stream.receive()
        assert message.WhichOneof("message") == "reconnect"
        await stream.send(1)
        await stream.half_close()
        assert [result.seq for result in await stream.results()] == [1]
        await eventually(lambda: not running.server.registry.unloading())


@on_loop
async def test_polling_keeps_what_serves_when_its_folder_breaks_and_takes_it_up_again_when_it_is_mended(tmp_path):
    add_sub(tmp_path)
    async with real_server(tmp_path, model_control_mode="poll", repository_poll_s=3600) as running:
        lifecycle, before = running.server.lifecycle, running.version("simple")
        (tmp_path / "simple" / "02").mkdir()
        await asyncio.to_thread(lifecycle.poll)
        assert running.version("simple") is before
        (tmp_path / "simple" / "02").rename(tmp_path / "simple" / "2")
        await asyncio.to_thread(lifecycle.poll)
        assert running.version("simple") is before
        state, reason = (await states(stub_of(running)))[("simple", "")]
        assert state == "UNAVAILABLE"
        assert reason == "simple/2: no model.onnx: put the model file there"
        add_sub(tmp_path, version=2)
        await asyncio.to_thread(lifecycle.poll)
        assert running.version("simple").version == "2"
        await eventually(lambda: not running.server.registry.unloading())
        assert await states(stub_of(running)) == {("simple", "2"): ("READY", "")}


@on_loop
async def test_polling_follows_more_folders_than_loads_may_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(load_queue, "MOST_WAITING", 2)
    add_sub(tmp_path, "m0")
    async with real_server(tmp_path, model_control_mode="poll", repository_poll_s=3600) as running:
        for index in range(1, 6):
            add_sub(tmp_path, f"m{index}")
        await asyncio.to_thread(running.server.lifecycle.poll)
        assert sorted(running.server.registry.versions()) == [f"m{index}" for index in range(6)]


@on_loop
async def test_polling_serves_on_while_a_folder_is_emptied_and_filled_again(tmp_path):
    add_sub(tmp_path)
    async with real_server(tmp_path, model_control_mode="poll", repository_poll_s=3600) as running:
        lifecycle, before = running.server.lifecycle, running.version("simple")
        (tmp_path / "simple" / "1").rename(tmp_path / ".old")
        await asyncio.to_thread(lifecycle.poll)
        assert running.version("simple") is before
        add_sub(tmp_path)
        await asyncio.to_thread(lifecycle.poll)
        assert running.version("simple") is not before


@on_loop
async def test_polling_follows_a_version_that_is_a_link(tmp_path):
    for number in (1, 2):
        models.save(models.identity(("batch", number)), tmp_path / ".data" / str(number) / "model.onnx")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "1").symlink_to(tmp_path / ".data" / "1")
    async with real_server(tmp_path, model_control_mode="poll", repository_poll_s=3600) as running:
        (tmp_path / "next").symlink_to(tmp_path / ".data" / "2")
        (tmp_path / "next").replace(tmp_path / "m" / "1")
        await asyncio.to_thread(running.server.lifecycle.poll)
        assert running.version("m").specs.inputs[0].shape == (2,)
        models.save(models.identity(("batch", 7)), tmp_path / ".data" / "2" / "model.onnx")
        await asyncio.to_thread(running.server.lifecycle.poll)
        assert running.version("m").specs.inputs[0].shape == (7,)


@on_loop
async def test_what_a_look_finds_wrong_is_told_once(tmp_path):
    add_sub(tmp_path)
    for name in ("lost+found", "@eaDir", "simple/02"):
        (tmp_path / name).mkdir()
    with structlog.testing.capture_logs() as logs:
        async with real_server(tmp_path, model_control_mode="poll", repository_poll_s=3600) as running:
            for _ in range(3):
                await asyncio.to_thread(running.server.lifecycle.poll)
            (tmp_path / "@eaDir").rmdir()
            await asyncio.to_thread(running.server.lifecycle.poll)
            (tmp_path / "@eaDir").mkdir()
            await asyncio.to_thread(running.server.lifecycle.poll)
    details = [line["detail"].split()[0] for line in logs if line["event"] == "model repository"]
    assert sorted(details) == ["'@eaDir'", "'@eaDir'", "'lost+found'", "simple/02"]


@on_loop
async def test_polling_follows_the_folders(tmp_path):
    add_sub(tmp_path, "first")
    async with real_server(tmp_path, model_control_mode="poll", repository_poll_s=3600) as running:
        stub, lifecycle = stub_of(running), running.server.lifecycle
        before = running.version("first")
        add_sub(tmp_path, "second")
        await asyncio.to_thread(lifecycle.poll)
        assert running.version("first") is before
        assert (await stub.ModelReady(pb.ModelReadyRequest(name="second"))).ready
        add_sub(tmp_path, "first", 2)
        await asyncio.to_thread(lifecycle.poll)
        assert running.version("first").version == "2"
        shutil.rmtree(tmp_path / "first")
        (tmp_path / "second" / "1" / "model.onnx").write_bytes(b"broken")
        await asyncio.to_thread(lifecycle.poll)
        index = await states(stub)
        assert index[("first", "")] == ("UNAVAILABLE", "unloaded")
        assert index[("second", "1")][0] == "READY"
        assert index[("second", "")][0] == "UNAVAILABLE"
        await eventually(lambda: not running.server.registry.unloading())


@on_loop
async def test_polling_loads_what_serves_anew_if_its_configuration_changed_in_a_load_that_failed(tmp_path):
    add_sub(tmp_path)
    async with real_server(tmp_path, model_control_mode="poll", repository_poll_s=3600) as running:
        registry, lifecycle = running.server.registry, running.server.lifecycle
        (tmp_path / "simple" / "config.pbtxt").write_text("version_policy { all { } } max_batch_size: 3")
        broken = tmp_path / "simple" / "2" / "model.onnx"
        broken.parent.mkdir()
        broken.write_bytes(b"no model")
        await asyncio.to_thread(lifecycle.poll)
        assert registry.find("simple", "1").specs.max_batch_size == 8
        add_sub(tmp_path, version=2)
        await asyncio.to_thread(lifecycle.poll)
        assert [registry.find("simple", version).specs.max_batch_size for version in ("1", "2")] == [3, 3]
        serving = registry.find("simple", "1")
        await asyncio.to_thread(lifecycle.poll)
        assert registry.find("simple", "1") is serving


@on_loop
async def test_what_changes_while_the_server_starts_is_seen_by_the_first_poll(tmp_path):
    simulated(tmp_path, "simple", max_batch_size=4)
    config = tmp_path / "simple" / "config.pbtxt"

    def change_while_loading(kind, clock):
        config.write_text(config.read_text().replace("max_batch_size: 4", "max_batch_size: 2"))
        return SimulatedDevice(clock=clock)

    polled = {"model_control_mode": "poll", "repository_poll_s": 3600}
    async with real_server(tmp_path, devices=change_while_loading, **polled) as running:
        assert running.version("simple").specs.max_batch_size == 4
        await asyncio.to_thread(running.server.lifecycle.poll)
        assert running.version("simple").specs.max_batch_size == 2


UNFORESEEN = [
    (OSError(errno.EMFILE, "Too many open files"), "new cannot be read: Too many open files"),
    (RuntimeError("/etc/secret"), "internal error; the server's log has the details"),
]


@pytest.mark.parametrize(("error", "reason"), UNFORESEEN)
@on_loop
async def test_a_load_that_fails_in_a_way_that_nobody_foresaw_is_told_and_changes_nothing(tmp_path, error, reason):
    simulated(tmp_path, "old")
    devices = SimulatedDevices()

    def fail_for_the_new(kind, clock):
        if (tmp_path / "new").exists():
            raise error
        return devices(kind, clock)

    explicit = {"model_control_mode": "explicit", "load_model": ("*",)}
    async with real_server(tmp_path, devices=fail_for_the_new, **explicit) as running:
        stub = stub_of(running)
        simulated(tmp_path, "new")
        assert await code_of(load(stub, "new")) == (
            grpc.StatusCode.INTERNAL,
            f"load failed for model 'new': {reason}",
        )
        assert await states(stub) == {("new", ""): ("UNAVAILABLE", reason), ("old", "1"): ("READY", "")}


@pytest.mark.parametrize(("error", "reason"), UNFORESEEN)
@on_loop
async def test_polling_goes_on_after_a_load_that_fails_in_a_way_that_nobody_foresaw(tmp_path, error, reason):
    simulated(tmp_path, "old")
    devices, errors = SimulatedDevices(), []

    def fail_once(kind, clock):
        if errors:
            raise errors.pop()
        return devices(kind, clock)

    polled = {"model_control_mode": "poll", "repository_poll_s": 3600}
    async with real_server(tmp_path, devices=fail_once, **polled) as running:
        errors.append(error)
        simulated(tmp_path, "new")
        await asyncio.to_thread(running.server.lifecycle.poll)
        assert (await states(stub_of(running)))[("new", "")] == ("UNAVAILABLE", reason)
        (tmp_path / "new" / "touched").write_bytes(b"")
        await asyncio.to_thread(running.server.lifecycle.poll)
        assert (await states(stub_of(running)))[("new", "1")] == ("READY", "")


@on_loop
async def test_slow_loads_hold_up_nothing_else(tmp_path):
    simulated(tmp_path, "old")
    devices, may_go_on = SimulatedDevices(), threading.Event()

    def slow_for_the_new(kind, clock):
        if (tmp_path / "new").exists():
            may_go_on.wait(HANG_GUARD_S)
        return devices(kind, clock)

    explicit = {"model_control_mode": "explicit", "load_model": ("*",)}
    async with real_server(tmp_path, devices=slow_for_the_new, **explicit) as running:
        stub = stub_of(running)
        simulated(tmp_path, "new")
        loads = [asyncio.create_task(load(stub, "new")) for _ in range(33)]  # asyncio's own pool has at most 32 threads
        try:
            async with asyncio.timeout(HANG_GUARD_S / 2):
                while (await states(stub))[("new", "")][0] != "LOADING":
                    await asyncio.sleep(0)
                response = await stub.ModelInfer(request_of("old", input=np.zeros((1, 64), np.uint8)))
                assert response.model_name == "old"
        finally:
            may_go_on.set()
            await asyncio.gather(*loads)
        await eventually(lambda: not running.server.registry.unloading())
