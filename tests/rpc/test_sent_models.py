"""Models that clients send with a load: `file:` parameters, as tritonclient's load_model(files=...) sends them."""

import tempfile

import grpc
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from forebay.wire import inference_pb2 as pb
from tests.rpc.test_inference_lifecycle import add_sub, code_of, states, unload
from tests.support import models
from tests.support.inference import add_sub_request, array_of, request_of, stub_of
from tests.support.loops import on_loop
from tests.support.real_server import LEAK, eventually, real_server

CONFIG = '{"backend": "onnxruntime", "max_batch_size": 8}'
ALLOWED = {"model_control_mode": "explicit", "allow_model_files": True}


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory, monkeypatch):
    """Where the server unpacks: left as it was found."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def scaling(factor):
    """y = x * factor."""
    node = helper.make_node("Mul", ["x", "factor"], ["y"])
    weight = numpy_helper.from_array(np.full((4,), factor, np.float32), "factor")
    shape = ("batch", 4)
    return models.build([node], [models.tensor("x", shape)], [models.tensor("y", shape)], [weight])


async def send(stub, name, files, config=CONFIG):
    request = pb.RepositoryModelLoadRequest(model_name=name)
    if config is not None:
        request.parameters["config"].string_param = config
    for path, content in files.items():
        request.parameters[f"file:{path}"].bytes_param = content
    await stub.RepositoryModelLoad(request)


async def scaled(stub, name="sent"):
    response = await stub.ModelInfer(request_of(name, x=np.ones((2, 4), np.float32)))
    return response.model_version, float(array_of(response, "y")[0, 0])


@on_loop
async def test_a_model_that_is_nowhere_in_the_repository_is_served(tmp_path):
    async with real_server(add_sub(tmp_path), **ALLOWED) as running:
        stub = stub_of(running)
        files = {"1/model.onnx": scaling(3).SerializeToString(), "2/model.onnx": scaling(5).SerializeToString()}
        await send(stub, "sent", files)
        assert await scaled(stub) == ("2", 5.0)
        assert (await states(stub))[("sent", "2")] == ("READY", "")
        await send(stub, "sent", {"1/model.onnx": scaling(7).SerializeToString()})
        assert await scaled(stub) == ("1", 7.0)
        await unload(stub, "sent")
        await eventually(lambda: not running.server.registry.unloading())
        code, message = await code_of(stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="sent")))
        assert code is grpc.StatusCode.INTERNAL
        assert "no model 'sent' in the repository" in message, "nothing is kept"


@on_loop
async def test_a_model_of_the_repository_is_replaced_until_it_is_loaded_from_there_again(tmp_path):
    async with real_server(add_sub(tmp_path, version=3), **ALLOWED, load_model=("*",)) as running:
        stub = stub_of(running)
        await send(stub, "simple", {"1/model.onnx": scaling(2).SerializeToString()})
        assert await scaled(stub, "simple") == ("1", 2.0)
        assert (await stub.ModelReady(pb.ModelReadyRequest(name="simple", version="1"))).ready
        await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="simple"))
        response = await stub.ModelInfer(add_sub_request())
        assert (response.model_version, array_of(response, "OUTPUT0")[0, 3]) == ("3", 4)


@on_loop
async def test_weights_and_labels_come_beside_the_model_and_stay_when_the_files_are_gone(tmp_path):
    model = scaling(4)
    models.save(model, tmp_path / "build" / "model.onnx")
    onnx.save_model(
        model,
        str(tmp_path / "build" / "model.onnx"),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    files = {f"1/{name}": (tmp_path / "build" / name).read_bytes() for name in ("model.onnx", "weights.bin")}
    files["names.txt"] = b"first\nsecond\n"
    config = '{"max_batch_size": 8, "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [4], ' + (
        '"label_filename": "names.txt"}]}'
    )
    async with real_server(add_sub(tmp_path / "root"), **ALLOWED) as running:
        stub = stub_of(running)
        await send(stub, "sent", files, config)
        assert await scaled(stub) == ("1", 4.0)
        request = request_of("sent", x=np.float32([[1, 0, 0, 0]]))
        request.outputs.add(name="y").parameters["classification"].int64_param = 1
        assert b":first" in (await stub.ModelInfer(request)).raw_output_contents[0]


@pytest.mark.parametrize(
    "path",
    ["../x", "/etc/passwd", "1/../../x", "1//model.onnx", "1/", "", ".", "1/a\\b", "1/" + "x" * 300, "1/model.onnx/x"],
)
@on_loop
async def test_a_path_that_is_none_is_refused(tmp_path, path):
    async with real_server(add_sub(tmp_path), **ALLOWED) as running:
        files = {"1/model.onnx": scaling(3).SerializeToString(), path: b"x"}
        code, message = await code_of(send(stub_of(running), "sent", files))
        assert code is grpc.StatusCode.INTERNAL
        assert "plain file name" in message or "shorten it" in message or "cannot be written" in message
        assert str(tmp_path) not in message


@on_loop
async def test_a_path_of_many_folders_is_refused(tmp_path):
    """Removing 900 of them took 900 file handles at once; 1900 were more than Python goes down."""
    async with real_server(add_sub(tmp_path), **ALLOWED) as running:
        for count in (8, 900, 1900):
            files = {"1/model.onnx": scaling(3).SerializeToString(), "a/" * count + "x": b"x"}
            code, message = await code_of(send(stub_of(running), "sent", files))
            assert code is grpc.StatusCode.INTERNAL
            assert message.endswith("has more than 8 parts: use fewer folders")


@on_loop
async def test_a_server_without_a_place_for_files_says_so(tmp_path, temporary, monkeypatch):
    async with real_server(add_sub(tmp_path), **ALLOWED) as running:
        monkeypatch.setattr(tempfile, "tempdir", str(temporary / "gone"))
        code, message = await code_of(send(stub_of(running), "sent", {"1/model.onnx": scaling(3).SerializeToString()}))
        assert code is grpc.StatusCode.INTERNAL
        assert message.endswith("sent: the server has no place for its files: No such file or directory")


@pytest.mark.parametrize(
    ("name", "files", "config", "words"),
    [
        ("sent", {"1/model.onnx": b"x"}, None, "failed to poll from model repository"),
        ("../sent", {"1/model.onnx": b"x"}, CONFIG, "cannot be a model's name"),
        ("sent", {"1/model.onnx": b"no model"}, CONFIG, "sent"),
        ("sent", {"model.onnx": b"x"}, CONFIG, "no version folder"),
        ("sent", {"1/model.pt": b"x"}, "{}", "files of backend 'torch' may hold code"),
        ("sent", {"1/model.plan": b"x"}, "{}", "files of backend 'tensorrt' may hold code"),
        ("sent", {"1/net.onnx": b"x"}, CONFIG, "no model.onnx"),
    ],
)
@on_loop
async def test_what_cannot_be_loaded_is_refused_and_what_served_serves_on(tmp_path, name, files, config, words):
    async with real_server(add_sub(tmp_path, "sent"), **ALLOWED, load_model=("*",)) as running:
        stub = stub_of(running)
        code, message = await code_of(send(stub, name, files, config))
        assert code is grpc.StatusCode.INTERNAL
        assert words in message
        assert tempfile.tempdir not in message
        assert array_of(await stub.ModelInfer(add_sub_request("sent")), "OUTPUT0")[0, 3] == 4


@on_loop
async def test_files_are_refused_unless_the_operator_allows_them(tmp_path):
    async with real_server(add_sub(tmp_path), model_control_mode="explicit") as running:
        files = {"1/model.onnx": scaling(3).SerializeToString()}
        code, message = await code_of(send(stub_of(running), "sent", files))
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert not LEAK.search(message)


@on_loop
async def test_a_file_is_bytes(tmp_path):
    async with real_server(add_sub(tmp_path), **ALLOWED) as running:
        request = pb.RepositoryModelLoadRequest(model_name="sent")
        request.parameters["file:1/model.onnx"].string_param = "x"
        assert await code_of(stub_of(running).RepositoryModelLoad(request)) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "invalid value type for 'file:1/model.onnx' parameter, expected bytes_param.",
        )


@on_loop
async def test_a_sent_model_is_rehearsed_like_any_other(tmp_path):
    async with real_server(add_sub(tmp_path), **ALLOWED, rehearse_loads=True) as running:
        stub = stub_of(running)
        await send(stub, "sent", {"1/model.onnx": scaling(3).SerializeToString()})
        assert await scaled(stub) == ("1", 3.0)
