"""Several versions, several repositories, and a memory that cannot hold all: the clients' view."""

import grpc
import numpy as np
import onnx
import pytest

from forebay.wire import inference_pb2 as pb
from forebay_server.engines.errors import DeviceMemoryError
from forebay_server.service.models.repository import RepositoryError
from tests.rpc.test_inference_lifecycle import code_of, load, states, unload
from tests.support import models
from tests.support.inference import add_sub_request, array_of, stub_of
from tests.support.loops import on_loop
from tests.support.real_server import eventually, real_server, simulated

MIB = 1 << 20


def constant(root, version, value):
    """`simple`, version `version`: OUTPUT0 is the sum of the inputs and `value`."""
    nodes = [
        models.helper.make_node("Add", ["INPUT0", "INPUT1"], ["sum"]),
        models.helper.make_node("Add", ["sum", "value"], ["OUTPUT0"]),
    ]
    inputs = [models.tensor(name, ("batch", 16), models.TensorProto.INT32) for name in ("INPUT0", "INPUT1")]
    outputs = [models.tensor("OUTPUT0", ("batch", 16), models.TensorProto.INT32)]
    weights = [models.numpy_helper.from_array(np.full((1, 16), value, np.int32), "value")]
    models.save(models.build(nodes, inputs, outputs, weights), root / "simple" / str(version) / "model.onnx")


async def answer(stub, version=""):
    response = await stub.ModelInfer(add_sub_request(version=version))
    return response.model_version, int(array_of(response, "OUTPUT0")[0, 0])


@on_loop
async def test_several_versions_serve_at_once_and_the_newest_answers_who_names_none(tmp_path):
    for version in (2, 9, 10):
        constant(tmp_path, version, 100 * version)
    (tmp_path / "simple" / "config.pbtxt").write_text("version_policy { specific { versions: [ 2, 10 ] } }")
    async with real_server(tmp_path) as running:
        stub = stub_of(running)
        assert await answer(stub, "2") == ("2", 201)
        assert await answer(stub, "10") == await answer(stub) == ("10", 1001)
        assert await code_of(answer(stub, "9")) == (
            grpc.StatusCode.NOT_FOUND,
            "Request for unknown model: 'simple' version 9 is not found",
        )
        metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name="simple"))
        assert list(metadata.versions) == ["2", "10"]
        assert set(await states(stub)) == {("simple", "2"), ("simple", "10")}


@on_loop
async def test_a_policy_that_changes_loads_and_unloads_what_it_says(tmp_path):
    for version in (1, 2, 3):
        constant(tmp_path, version, 100 * version)
    async with real_server(tmp_path, model_control_mode="explicit", load_model=("*",)) as running:
        stub = stub_of(running)
        assert await answer(stub) == ("3", 301)
        config = tmp_path / "simple" / "config.pbtxt"
        for text, versions in (("all { }", {"1", "2", "3"}), ("latest { num_versions: 2 }", {"2", "3"})):
            config.write_text(f"version_policy {{ {text} }}")
            await load(stub, "simple")
            await eventually(lambda: not running.server.registry.unloading())
            assert {version for _, version in await states(stub)} == versions
        config.write_text("version_policy { specific { versions: 7 } }")
        code, message = await code_of(load(stub, "simple"))
        assert code is grpc.StatusCode.INTERNAL
        assert "no version to serve: there are [1, 2, 3]" in message
        assert await answer(stub, "2") == ("2", 201)


@on_loop
async def test_several_repositories_are_served_as_one(tmp_path):
    simulated(tmp_path / "a", "first")
    simulated(tmp_path / "b", "second")
    async with real_server(tmp_path / "a", tmp_path / "b", model_control_mode="explicit", load_model=("*",)) as running:
        stub = stub_of(running)
        assert {name for name, _ in await states(stub)} == {"first", "second"}
        await load(stub, "second")
        await eventually(lambda: not running.server.registry.unloading())
        simulated(tmp_path / "b", "first")
        code, message = await code_of(load(stub, "first"))
        assert (code, message) == (
            grpc.StatusCode.INTERNAL,
            "failed to load 'first', failed to poll from model repository: model 'first' is there 2 times "
            "(a/first, b/first): rename or remove all but one",
        )
        assert (await states(stub))[("first", "1")][0] == "READY"


@on_loop
async def test_a_name_in_two_repositories_stops_the_start(tmp_path):
    for folder in ("a", "b"):
        simulated(tmp_path / folder, "same")
    with pytest.raises(RepositoryError, match=r"'same' is there 2 times \(a/same, b/same\): rename"):
        async with real_server(tmp_path / "a", tmp_path / "b"):
            pass


@on_loop
async def test_a_load_that_cannot_fit_is_refused_and_says_why_and_what_was_there_serves_on(tmp_path):
    simulated(tmp_path, "small", max_batch_size=4, input_bytes=MIB)  # 4 slots of 4 rows, in and out: 32 MiB
    simulated(tmp_path, "large", max_batch_size=8, input_bytes=MIB)
    explicit = {"model_control_mode": "explicit", "load_model": ("small",)}
    async with real_server(tmp_path, **explicit, model_memory_bytes=80 * MIB) as running:
        stub, account = stub_of(running), running.server.registry.context.memory
        code, message = await code_of(load(stub, "large"))
        assert (code, message) == (
            grpc.StatusCode.INTERNAL,
            "load failed for model 'large': large: needs 64 MiB (slots 64), but 48 MiB are left: lower max_batch_size "
            "or the count of instance_group, or unload another model",
        )
        assert (await states(stub))[("large", "")] == (
            "UNAVAILABLE",
            message.removeprefix("load failed for model 'large': "),
        )
        assert (await stub.ModelReady(pb.ModelReadyRequest(name="small"))).ready
        assert account.reserved_bytes == 32 * MIB
        for _ in range(3):  # the account does not leak
            await load(stub, "small")
            await eventually(lambda: not running.server.registry.unloading())
        await unload(stub, "small")
        await eventually(lambda: not running.server.registry.unloading())
        await load(stub, "large")
        assert account.reserved_bytes == 64 * MIB


@on_loop
async def test_a_model_that_cannot_fit_stops_the_start(tmp_path):
    simulated(tmp_path, "large", max_batch_size=8, input_bytes=MIB)
    with pytest.raises(DeviceMemoryError, match=r"large: needs 64 MiB \(slots 64\), but 1 MiB are left"):
        async with real_server(tmp_path, model_memory_bytes=MIB):
            pass


@on_loop
async def test_weights_that_cannot_fit_are_refused_before_they_are_read(tmp_path):
    folder = tmp_path / "broken" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"no model")
    with (folder / "model.onnx.data").open("wb") as file:
        file.truncate(3 * MIB)
    (tmp_path / "broken" / "config.pbtxt").write_text("instance_group { count: 2 }")
    with pytest.raises(DeviceMemoryError, match=r"broken: needs 6 MiB \(model 6\), but 5 MiB are left"):
        async with real_server(tmp_path, model_memory_bytes=5 * MIB):
            pass


def with_weights_elsewhere(root, location):
    """`simple` with its weights in a file at `location`, relative to the version's folder."""
    constant(root, 1, 5)
    path = root / "simple" / "1" / "model.onnx"
    model = onnx.load(path)
    (weight,) = model.graph.initializer
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "64")):
        weight.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("location", ["../../../secret", "link", "../../../models/simple/1/../../../secret"])
@on_loop
async def test_weights_outside_the_models_folder_are_refused_in_words_without_paths(tmp_path, location):
    root, secret = tmp_path / "models", tmp_path / "secret"
    with_weights_elsewhere(root, location)
    secret.write_bytes(bytes(64))
    (root / "simple" / "1" / "link").symlink_to(secret)
    async with real_server(root, model_control_mode="explicit") as running:
        code, message = await code_of(load(stub_of(running), "simple"))
        assert code is grpc.StatusCode.INTERNAL
        assert message.startswith("load failed for model 'simple': simple: ")
        assert "escapes model directory" in message
        assert str(tmp_path) not in message
        assert tmp_path.name not in message


@on_loop
async def test_a_refused_load_tells_no_folder_whose_name_has_spaces(tmp_path):
    root, secrets = tmp_path / "our models", tmp_path / "our: old secrets"
    with_weights_elsewhere(root, "../../../our: old secrets/weights")
    secrets.mkdir()
    (secrets / "weights").write_bytes(bytes(64))
    async with real_server(root, model_control_mode="explicit") as running:
        _, message = await code_of(load(stub_of(running), "simple"))
        assert message.endswith('External data path: "../../../our: old secrets/weights"')  # as in the model
        assert "our models" not in message


@on_loop
async def test_weights_beside_the_model_are_read(tmp_path):
    with_weights_elsewhere(tmp_path, "weights")
    (tmp_path / "simple" / "1" / "weights").write_bytes(np.full(16, 7, np.int32).tobytes())
    async with real_server(tmp_path) as running:
        assert await answer(stub_of(running)) == ("1", 8)


@pytest.mark.parametrize("link", ["model", "version", "file", "config"])
@on_loop
async def test_links_that_lead_out_of_the_repository_are_refused(tmp_path, link):
    root, elsewhere = tmp_path / "models", tmp_path / "elsewhere"
    constant(elsewhere, 1, 0)
    (elsewhere / "simple" / "config.pbtxt").write_text("max_batch_size: 2")
    if link == "model":
        root.mkdir()
        (root / "simple").symlink_to(elsewhere / "simple")
    elif link == "version":
        (root / "simple").mkdir(parents=True)
        (root / "simple" / "1").symlink_to(elsewhere / "simple" / "1")
    else:
        constant(root, 1, 0)
        (root / "simple" / "1" / "model.onnx").unlink(missing_ok=link == "file")
        name = {"file": "1/model.onnx", "config": "config.pbtxt"}[link]
        (root / "simple" / name).symlink_to(elsewhere / "simple" / name)
    async with real_server(root, model_control_mode="explicit") as running:
        code, message = await code_of(load(stub_of(running), "simple"))
        assert code is grpc.StatusCode.INTERNAL
        assert "a link that leads out of the repository: put the file itself there" in message
        assert str(tmp_path) not in message


NO_NAMES = ("../simple", "a/../simple", "/etc", "", ".", "..", "simple/1", "si\0mple", "x" * 5000)


@pytest.mark.parametrize("name", NO_NAMES)
@on_loop
async def test_names_that_are_no_models_are_refused(tmp_path, name):
    constant(tmp_path / "models", 1, 0)
    async with real_server(tmp_path / "models", model_control_mode="explicit", load_model=("*",)) as running:
        stub = stub_of(running)
        for call in (load, unload):
            code, message = await code_of(call(stub, name))
            assert code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT)
            assert len(message) < 500
            assert str(tmp_path) not in message
        assert await answer(stub) == ("1", 1)


@on_loop
async def test_a_load_from_a_repository_that_has_gone_is_refused_without_its_path(tmp_path):
    root = simulated(tmp_path / "models")
    async with real_server(root, model_control_mode="explicit") as running:
        root.rename(tmp_path / "elsewhere")
        code, details = await code_of(load(stub_of(running), "sim"))
        assert code is grpc.StatusCode.INTERNAL
        assert details == "failed to load 'sim', the model repository is gone"
