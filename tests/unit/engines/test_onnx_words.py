"""The public form of ONNX Runtime's messages; the raw ones are those of release 1.32."""

import random
import re

import onnxruntime
import pytest

from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.device_host import HostDevice
from forebay_server.engines.engine_onnxruntime import OnnxruntimeEngine
from forebay_server.engines.errors import ModelFileError
from forebay_server.engines.onnx_words import NO_MEMORY, NO_WORDS, public_words
from tests.support import models

SOURCES = "/onnxruntime_src/onnxruntime/core/"
INSIDE = re.compile(r"onnxruntime_src|\.(cc|cpp|h|hpp):\d|onnxruntime::|std::|ONNXRuntimeError|was false|[\x00-\x1f]")

MESSAGES = {
    "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load model from /srv/models/m/1/model.onnx failed:Protobuf parsing "
    "failed.": "Protobuf parsing failed.",
    f"[ONNXRuntimeError] : 1 : FAIL : Load model from /tmp/c.onnx failed:{SOURCES}graph/graph.cc:1471 "
    "onnxruntime::Graph::Graph(const onnxruntime::Model&, onnx::GraphProto*, const std::unordered_map<"
    "std::__cxx11::basic_string<char>, int>&, onnxruntime::Version, bool) This is an invalid model. Tensor 'bias' does "
    "not have valid data type.\n": "This is an invalid model. Tensor 'bias' does not have valid data type.",
    f"[ONNXRuntimeError] : 1 : FAIL : Load model from /tmp/c.onnx failed:{SOURCES}graph/graph.cc:1617 void "
    "onnxruntime::Graph::InitializeStateFromModelFileGraphProto() This is an invalid model. Graph output (y) does not "
    "exist in the graph.\n": "This is an invalid model. Graph output (y) does not exist in the graph.",
    f"[ONNXRuntimeError] : 1 : FAIL : Exception during initialization: {SOURCES}optimizer/initializer.cc:51 "
    "onnxruntime::Initializer::Initializer(const onnx::TensorProto&, const std::filesystem::__cxx11::path&) "
    "[ONNXRuntimeError] : 1 : FAIL : tensorprotoutils.cc:1805 ValidateEmbeddedTensorProtoDataSizeAndShape Initializer "
    "'table': data field count (0) does not match expected count from shape (2)\n": "Initializer 'table': data field "
    "count (0) does not match expected count from shape (2)",
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Reshape node. Name:'' Status "
    f"Message: {SOURCES}providers/cpu/tensor/reshape_helper.h:91 onnxruntime::ReshapeHelper::ReshapeHelper(const "
    "onnxruntime::TensorShape&, onnxruntime::TensorShapeVector&, bool) input_shape_size == requested_shape_size was "
    "false. The input tensor cannot be reshaped to the requested shape. Input shape:{1,4}, requested shape:{7,7}\n": (
        "Non-zero status code returned while running Reshape node. Name:'' Status Message: The input tensor cannot be "
        "reshaped to the requested shape. Input shape:{1,4}, requested shape:{7,7}"
    ),
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running MatMul node. Name:'' Status Message: "
    "matmul_helper.h:59 Compute MatMul dimension mismatch": "Non-zero status code returned while running MatMul node. "
    "Name:'' Status Message: MatMul dimension mismatch",
    "[ONNXRuntimeError] : 1 : FAIL : External data path validation failed for initializer: w. Error: External data "
    'path escapes model directory. External data path: "../w.bin" resolved path: "/w.bin" allowed directory: "/m"': (
        "External data path validation failed for initializer: w. Error: External data path escapes model directory. "
        'External data path: "../w.bin"'
    ),
    "[ONNXRuntimeError] : 10 : INVALID_GRAPH : Load model from /tmp/c.onnx failed:This is an invalid model. In Node, "
    '("", Cas\x12\u202e, "", -1)': 'This is an invalid model. In Node, ("", Cas??, "", -1)',
    f"{SOURCES}framework/bfc_arena.cc:360 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, "
    "onnxruntime::Stream*) Failed to allocate memory for requested buffer of size 36000000000": NO_MEMORY,
    "std::bad_alloc": NO_MEMORY,
    f"{SOURCES}graph/graph.cc:1 bool onnxruntime::Graph::Check() const a == b was false.": NO_WORDS,
    f"{SOURCES}graph/graph.cc:1 void onnxruntime::F(std::function<void(int)>": NO_WORDS,
    f"{SOURCES}graph/graph.cc:1 no signature": "no signature",
    "": NO_WORDS,
}


@pytest.mark.parametrize("message", MESSAGES)
def test_places_in_the_sources_are_left_out_and_what_is_wrong_stays(message):
    assert public_words(RuntimeError(message)) == MESSAGES[message]


def test_python_running_out_of_memory_is_no_other_thing():
    assert public_words(MemoryError()) == NO_MEMORY


def open_model(path):
    engine = OnnxruntimeEngine(
        model_path=path,
        device=HostDevice(clock=MonotonicClock()),
        clock=MonotonicClock(),
        options={},
        max_batch_size=None,
    )
    engine.close()


def test_what_this_release_says_of_mutated_models_shows_nothing_of_the_inside(tmp_path, capsys):
    source = random.Random(14)  # noqa: S311 - not a secret
    whole = [model.SerializeToString() for model in (models.conv_net(), models.add_sub(), models.failing())]
    messages = []
    for _ in range(300):
        data = bytearray(source.choice(whole))
        data[source.randrange(len(data))] = source.randrange(256)
        (tmp_path / "model.onnx").write_bytes(data)
        try:
            open_model(tmp_path / "model.onnx")
        except ModelFileError as error:
            messages.append(str(error).replace(str(tmp_path), ""))
    assert len(messages) > 50, onnxruntime.__version__
    assert [message for message in messages if INSIDE.search(message)] == []
    assert capsys.readouterr().out == ""  # standard output is the ready line's
