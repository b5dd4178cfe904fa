"""Any file that ONNX Runtime opens, with any metadata, labels and parameters: served, or refused in one line."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from forebay_server.engines.errors import EngineError
from forebay_server.service.models.check import check_repositories
from forebay_server.service.models.config import describe
from forebay_server.service.models.dry_run import config_text
from forebay_server.service.models.parameters import OWN_KEYS
from forebay_server.service.models.repository import Repository, RepositoryError
from tests.support.models import save

MOST_CHARACTERS = 900  # of a line for a person
INPUTS = st.sampled_from(
    [
        *[[1, 3, 64, 64], ["batch", 3, 64, 64], ["n", 3, "h", "w"], ["n", 3, "s", "s"], [None, 3, None, None]],
        *[[1, 64, 64, 3], ["n", 64, 96, 1], [3, 64, 64], [1, 3], [], [1, 3, 3, 3], [2, 3, 64, 64], [1, 3, 70_000, 1]],
    ]
)
OUTPUTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["output0", "boxes", "scores", "class_ids", "labels", "logits", "pred_boxes", "dets", "num_dets"]
        ),
        st.sampled_from(
            [
                *[(1, 6, 84), (1, 84, 7), (1, 300, 6), (1, 57, 84), (1, 100, 92), (1, 100, 4), (1, 10), (1, 1), (2, 5)],
                *[(1, 32, 16, 16), (1, 38, 84), (1, 4, 84), (1, 0, 6), (10,), (), (1, 2, 3, 4, 5)],
            ]
        ),
        st.sampled_from([np.float32, np.float16, np.float64, np.int64, np.uint8, np.bool_]),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda output: output[0],
)
VALUES = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            *[
                "[64, 64]",
                "[-1, 5]",
                "nan",
                "64",
                "{0: 'a', 1: 'b'}",
                "{0: 'a'}",
                "{}",
                "[]",
                "True",
                "[17, 3]",
                "[9, 9]",
            ],
            *["detect", "segment", "pose", "obb", "classify", "RTDETRDecoder", "{0: '', 1: ' '}", "['x', '\\u2028']"],
            *["{0: 1e999}", "{'nms': True}", "{0: __import__('os')}", "((((((", "\x00", "3", "1", "\ud7ff"],
        ]
    ),
)
METADATA = st.dictionaries(
    st.sampled_from(["names", "stride", "task", "imgsz", "kpt_shape", "channels", "end2end", "head", "args", "other"]),
    VALUES,
)
PARAMETERS = st.dictionaries(
    st.sampled_from([*OWN_KEYS, "intra_op_threads", "heads", "x"]),
    st.one_of(
        VALUES,
        st.sampled_from(
            [
                *["detection", "segmentation", "pose", "oriented", "classification", "tensors", "yolo", "end_to_end"],
                *["detr", "rf_detr", "boxes_scores", "1/255", "0", "17x3", "2x2", "letterbox", "center_crop", "NHWC"],
                *["RGB", "GRAY", "on", "off", "64x64", "softmax", "class", "a,b", '["a", "b"]', '["a"', "0.5", "1e400"],
            ]
        ),
    ),
    max_size=4,
)
LABELS = st.one_of(
    st.none(), st.sampled_from(["a\nb", "a\r\nb\r\n", "a\n\nb\n", "\n", "", "a\u2028b\x85c"]), st.text(max_size=20)
)


def model_of(dtype, shape, outputs, metadata):
    """A model whose outputs are constants; its input has no effect."""
    weights = [numpy_helper.from_array(np.ones(dims, kind), f"{name}_value") for name, dims, kind in outputs]
    nodes = [helper.make_node("Identity", [f"{name}_value"], [name]) for name, _, _ in outputs]
    kinds = {name: helper.np_dtype_to_tensor_dtype(np.dtype(kind)) for name, _, kind in outputs}
    graph = helper.make_graph(
        nodes,
        "any",
        [helper.make_tensor_value_info("images", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)],
        [helper.make_tensor_value_info(name, kinds[name], dims) for name, dims, _ in outputs],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    helper.set_model_props(model, metadata)
    return model


def is_line(text):
    return bool(text) and "\n" not in text and len(text) <= MOST_CHARACTERS


def as_pbtxt(parameters):
    from google.protobuf import text_format

    from forebay.wire.model_config_pb2 import ModelConfig

    config = ModelConfig()
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    return text_format.MessageToString(config, as_utf8=True)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
@given(
    dtype=st.sampled_from([np.float32, np.float16, np.uint8, np.int64]),
    shape=INPUTS,
    outputs=OUTPUTS,
    metadata=METADATA,
    parameters=PARAMETERS,
    labels=LABELS,
)
def test_every_file_is_served_or_refused_in_one_line(dtype, shape, outputs, metadata, parameters, labels):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = save(model_of(dtype, shape, outputs, metadata), folder / "best.onnx")
        if parameters:
            (folder / "best.pbtxt").write_text(as_pbtxt(parameters), encoding="utf-8")
        if labels is not None:
            (folder / "labels.txt").write_bytes(labels.encode("utf-8", "surrogatepass"))
        (report,) = check_repositories([file])
        for line in (*report.warnings, *report.derived):
            assert is_line(line), line
        assert is_line(report.problem or report.summary), report
        assert not report.question or is_line(report.question), report.question
        assert name not in f"{report.problem}{report.question}"
        entry = Repository([file]).model("best")
        try:
            text = config_text(entry, 1, describe(entry))
        except (RepositoryError, EngineError):
            assert report.problem
            return
        assert not report.problem
        (folder / "best.pbtxt").write_text(text, encoding="utf-8")
        (again,) = check_repositories([file])
        assert again.problem == report.problem == "" or report.question, (text, again.problem)
        assert report.question or (again.summary, again.derived) == (report.summary, ())
