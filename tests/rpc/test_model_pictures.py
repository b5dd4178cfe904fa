"""A model as its exporter wrote it gets frames as numbers, over a stream."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from forebay.wire import frames_pb2 as pb
from tests.support.loops import on_loop
from tests.support.models import build, tensor
from tests.support.real_server import real_server

CONFIG = """parameters { key: "resize" value { string_value: "letterbox" } }
parameters { key: "scale" value { string_value: "1/255" } }
parameters { key: "mean" value { string_value: "0.5" } }
"""
FOLD = 'parameters { key: "fold" value { string_value: "%s" } }'


def echo(root, datatype, config=CONFIG):
    """A detector's inputs, given back: images [N, 3, 8, 8] and orig_target_sizes [N, 2]."""
    inputs = [tensor("orig_target_sizes", ("N", 2), TensorProto.INT64), tensor("images", ("N", 3, 8, 8), datatype)]
    outputs = [tensor("sizes", ("N", 2), TensorProto.INT64), tensor("pixels", ("N", 3, 8, 8), datatype)]
    nodes = [helper.make_node("Identity", [each.name], [out.name]) for each, out in zip(inputs, outputs, strict=True)]
    (root / "echo" / "1").mkdir(parents=True)
    onnx.save(build(nodes, inputs, outputs), root / "echo" / "1" / "model.onnx")
    (root / "echo" / "config.pbtxt").write_text(config)
    return root


@on_loop
@pytest.mark.parametrize("fold", ["off", "on"])
@pytest.mark.parametrize(("datatype", "dtype"), [(TensorProto.FLOAT, "f4"), (TensorProto.FLOAT16, "f2")])
async def test_a_letterboxed_frame_arrives_as_numbers(tmp_path, datatype, dtype, fold):
    frame = np.random.default_rng(3).integers(0, 256, (4, 8, 3), np.uint8)
    expected = np.full((8, 8, 3), 114.0)
    expected[2:6] = frame
    async with real_server(echo(tmp_path, datatype, CONFIG + FOLD % fold)) as running:
        stream = await running.open(model="echo", encoding=pb.ENCODING_RGB8, width=8, height=4)
        for seq in range(1, 4):
            await stream.send(seq, payload=frame.tobytes())
        for result in await stream.results(3):
            sizes, pixels = (np.frombuffer(result.tensors[at].data, kind) for at, kind in enumerate(("i8", dtype)))
            assert sizes.tolist() == [8, 8]
            wanted = (expected / 255 - 0.5).transpose(2, 0, 1).astype(dtype).reshape(-1)
            assert np.array_equal(pixels, wanted) if fold == "off" else np.allclose(pixels, wanted, atol=2e-7)
        await stream.half_close()
        await stream.drain()


@on_loop
async def test_tensors_are_taken_as_the_model_has_them(tmp_path):
    row = np.arange(8 * 8 * 3, dtype="f4")
    async with real_server(echo(tmp_path, TensorProto.FLOAT, CONFIG + FOLD % "off")) as running:
        stream = await running.open(model="echo", encoding=pb.ENCODING_TENSOR)
        await stream.send(1, payload=np.array([3, 4], "i8").tobytes() + row.tobytes())
        (result,) = await stream.results(1)
        assert result.tensors[1].data == row.tobytes()
        await stream.half_close()
        await stream.drain()
