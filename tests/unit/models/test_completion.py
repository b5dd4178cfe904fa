from dataclasses import replace

import numpy as np
import pytest

from forebay.wire.model_config_pb2 import DataType, ModelInstanceGroup
from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.service.models.completion import complete
from forebay_server.service.models.config_text import ConfigError, parse_config
from forebay_server.service.models.description import ModelDescription
from forebay_server.service.models.instances import InstanceGroup
from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.results.heads.boxes_scores import BoxesScoresHead
from forebay_server.service.results.task import ClassificationTask, DetectionTask

IMAGE = TensorSpec("image", np.dtype(np.uint8), (240, 320, 3))
PLANES = TensorSpec("planes", np.dtype(np.float32), (3, 224, 224))
BOXES = TensorSpec("boxes", np.dtype(np.float32), (10, 4))
SCORES = TensorSpec("scores", np.dtype(np.float32), (10,))
CLASS_IDS = TensorSpec("class_ids", np.dtype(np.int32), (10,))


def completed(text="", inputs=(IMAGE,), outputs=(SCORES,), task=None, max_batch_size=8, has_batch=True, wanted=None):
    description = ModelDescription("m", "onnxruntime", wanted, task=task, config=parse_config(text, "m/config.pbtxt"))
    return complete(description, EngineSpecs(inputs, outputs, max_batch_size, has_batch))


def test_a_single_uint8_picture_makes_an_image_model():
    assert completed().image == PictureInput(width=320, height=240, color_order="RGB")


def test_the_order_of_colours_is_configured():
    text = 'parameters { key: "color_order" value { string_value: "BGR" } }'
    assert completed(text).image.color_order == "BGR"


@pytest.mark.parametrize(
    "inputs",
    [
        (PLANES,),
        (IMAGE, PLANES),
        (TensorSpec("x", np.dtype(np.uint8), (240, 320, 4)),),
        (TensorSpec("x", np.dtype(np.uint8), (-1, -1, 3)),),
        (TensorSpec("x", np.dtype(np.uint8), (3,)),),
        (TensorSpec("x", np.dtype(np.float32), (240, 320, 3)),),
    ],
)
def test_anything_else_takes_tensors_only(inputs):
    assert completed(inputs=inputs).image is None


def test_jpegs_are_decoded_whole_unless_configured():
    assert completed().image.jpeg_scale == "exact"
    text = 'parameters { key: "jpeg" value { string_value: "fast" } }'
    assert completed(text).image.jpeg_scale == "fast"


def test_colours_of_a_model_without_pictures_are_an_error():
    with pytest.raises(ConfigError, match="input 'planes' is FP32: write the parameter 'scale'"):
        completed('parameters { key: "color_order" value { string_value: "BGR" } }', inputs=(PLANES,))


def test_detection_outputs_are_found_by_name_in_any_order():
    task = completed(outputs=(CLASS_IDS, PLANES, SCORES, BOXES), task=DetectionTask(())).task
    assert task.head == BoxesScoresHead(boxes_output=3, scores_output=2, class_ids_output=0)


COUNTED = (
    TensorSpec("count", np.dtype(np.float32), (1,)),
    TensorSpec("boxes", np.dtype(np.float32), (10, 4)),
    TensorSpec("scores", np.dtype(np.float32), (10,)),
    TensorSpec("classes", np.dtype(np.float32), (10,)),
)


def counted(count, *names):
    return tuple(replace(spec, name=name) for spec, name in zip(COUNTED, (count, *names), strict=True))


TF = counted("num_detections", "detection_boxes", "detection_scores", "detection_classes")
NMS = (
    TensorSpec("num_dets", np.dtype(np.int32), (1,)),
    *counted("", "det_boxes", "det_scores", "det_classes")[1:],
)


def parameter(key, value):
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'


def test_the_first_class_and_the_unit_of_boxes_are_configured():
    task = DetectionTask(())
    assert completed(outputs=TF, task=task).task.head.first_class == 1
    assert completed(parameter("first_class", 0), outputs=TF, task=task).task.head.first_class == 0
    assert not completed(outputs=NMS, task=task).task.head.is_unit
    assert not completed(parameter("box_unit", "pixel"), outputs=NMS, task=task).task.head.is_unit
    assert completed(parameter("box_unit", "picture"), outputs=NMS, task=task).task.head.is_unit


@pytest.mark.parametrize(
    ("text", "outputs", "words"),
    [
        (parameter("first_class", 0), NMS, "first_class is for head tf_detection, not for efficient_nms: leave it out"),
        (parameter("box_unit", "pixel"), (BOXES, SCORES), "box_unit is for head efficient_nms"),
        (parameter("first_class", 2), TF, "it must be a whole number from 0 to 1"),
        (parameter("box_unit", "pixels"), NMS, "it must be one of pixel, picture"),
    ],
)
def test_a_fact_of_another_head_or_another_value_is_refused(text, outputs, words):
    with pytest.raises(ConfigError, match=words):
        completed(text, outputs=outputs, task=DetectionTask(()))


@pytest.mark.parametrize("text", [parameter("first_class", 0), parameter("box_unit", "pixel")])
def test_a_fact_of_a_head_is_refused_for_a_classifier(text):
    logits = TensorSpec("logits", np.dtype(np.float32), (1000,))
    with pytest.raises(ConfigError, match="not for classification: leave it out"):
        completed(text, outputs=(logits,), task=ClassificationTask(()))


def test_a_detector_of_one_class_needs_no_class_ids():
    assert completed(outputs=(BOXES, SCORES), task=DetectionTask(("face",))).task.head.class_ids_output is None


def test_a_number_of_boxes_that_varies_is_fine():
    outputs = (TensorSpec("boxes", np.dtype(np.float16), (-1, 4)), TensorSpec("scores", np.dtype(np.float16), (-1,)))
    assert completed(outputs=outputs, task=DetectionTask(())).task is not None


def test_a_classifier_may_call_its_only_output_anything():
    logits = TensorSpec("logits", np.dtype(np.float32), (1000,))
    assert completed(outputs=(logits,), task=ClassificationTask(())).task.scores_output == 0
    assert completed(outputs=(BOXES, SCORES), task=ClassificationTask(())).task.scores_output == 1


@pytest.mark.parametrize(
    ("task", "outputs", "words"),
    [
        (DetectionTask(()), (SCORES,), "outputs 'scores' FP32 [10] do not fit detection: write the parameter 'head'"),
        (
            DetectionTask(()),
            (TensorSpec("boxes", np.dtype(np.float32), (10, 5)), SCORES),
            "outputs 'boxes' FP32 [10, 5], 'scores' FP32 [10] do not fit",
        ),
        (
            DetectionTask(("a",)),
            (SCORES,),
            "do not fit detection with 1 label: correct these, or write the parameter 'head' (yolo, ",
        ),
        (DetectionTask(()), (BOXES, TensorSpec("scores", np.dtype(np.float32), (9,))), "'scores' must be floats [10]"),
        (DetectionTask(()), (BOXES, TensorSpec("scores", np.dtype(np.int8), (10,))), "'scores' must be floats [10]"),
        (
            DetectionTask(()),
            (BOXES, SCORES, TensorSpec("class_ids", np.dtype(np.float32), (10,))),
            "'class_ids' must be integers [10]; the model gives 'class_ids' FP32 [10]",
        ),
        (ClassificationTask(()), (BOXES, CLASS_IDS), "needs one output, or one called 'scores'"),
        (ClassificationTask(()), (BOXES,), "'boxes' must be floats [-1]"),
    ],
)
def test_outputs_that_do_not_fit_the_task_are_told(task, outputs, words):
    with pytest.raises(ConfigError) as caught:
        completed(outputs=outputs, task=task)
    assert words in str(caught.value)
    assert str(caught.value).startswith("m/config.pbtxt: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('input { name: "img" }', "the model has no input 'img': it has 'image'"),
        ('output { name: "score" }', "the model has no output 'score': it has 'scores'"),
        ('input { name: "image" data_type: TYPE_FP32 }', "'image' is TYPE_FP32, but the model has TYPE_UINT8"),
        ('input { name: "image" dims: [ 1, 240, 320, 3 ] }', "dims [1, 240, 320, 3], but the model has [240, 320, 3]"),
        ('input { name: "image" dims: [ 3, 240, 320 ] }', "dims [3, 240, 320], but the model has [240, 320, 3]"),
        ('output { name: "scores" dims: 10 reshape { shape: [ 2, 5 ] } }', "dims [2, 5], but the model has [10]"),
        (
            'output { name: "scores" dims: [ 2, 6 ] reshape { shape: 10 } }',
            "dims [2, 6] and reshape [10] do not hold the same number of elements",
        ),
        ('output { name: "scores" dims: -1 reshape { shape: -1 } }', "reshape [-1] varies where the model has [10]"),
    ],
)
def test_a_configuration_that_contradicts_the_model_is_told(text, words):
    with pytest.raises(ConfigError) as caught:
        completed(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        'input { name: "image" data_type: TYPE_UINT8 dims: [ 240, 320, 3 ] }',
        'input { name: "image" dims: [ -1, -1, 3 ] }',
        'output { name: "scores" dims: [ 2, 5 ] reshape { shape: 10 } }',
    ],
)
def test_a_configuration_that_agrees_with_the_model_is_kept(text):
    written, config = parse_config(text, "m"), completed(text).config
    dims = {tensor.name: list(tensor.dims) for tensor in (*config.input, *config.output)}
    for tensor in (*written.input, *written.output):
        assert dims[tensor.name] == list(tensor.dims)


def test_a_batch_size_above_the_model_s_is_told():
    with pytest.raises(ConfigError, match="max_batch_size is 8, but the model takes at most 1"):
        completed(wanted=8, max_batch_size=1)


def test_the_completed_configuration_holds_everything_that_is_known():
    config = completed(outputs=(BOXES, CLASS_IDS), inputs=(PLANES,)).config
    assert (config.name, config.backend, config.max_batch_size) == ("m", "onnxruntime", 8)
    assert [(item.name, item.data_type, list(item.dims)) for item in (*config.input, *config.output)] == [
        ("planes", DataType.TYPE_FP32, [3, 224, 224]),
        ("boxes", DataType.TYPE_FP32, [10, 4]),
        ("class_ids", DataType.TYPE_INT32, [10]),
    ]
    assert config.version_policy.latest.num_versions == 1
    assert (config.platform, config.default_model_filename) == ("onnxruntime_onnx", "model.onnx")
    assert config.optimization.input_pinned_memory.enable
    assert list(config.dynamic_batching.preferred_batch_size) == [8]
    assert [group.count for group in config.instance_group] == [1]


def test_a_model_without_a_batch_dimension_has_batch_size_zero():
    found = completed(max_batch_size=1, has_batch=False, wanted=0)
    assert (found.max_batch_size, found.config.max_batch_size) == (0, 0)


def test_byte_strings_are_called_strings_in_a_configuration():
    text = TensorSpec("text", np.dtype(object), (1,))
    assert completed(inputs=(text,)).config.input[0].data_type == DataType.TYPE_STRING


def test_clients_send_one_element_for_a_scalar_as_with_triton():
    (tensor,) = completed(inputs=(TensorSpec("x", np.dtype(np.float32), ()),)).config.input
    assert list(tensor.dims) == [1]
    assert tensor.HasField("reshape")
    assert not tensor.reshape.shape


@pytest.mark.parametrize(
    ("text", "backend", "placed", "kind", "gpus"),
    [
        ("", "onnxruntime", None, ModelInstanceGroup.KIND_CPU, []),
        ("", "tensorrt", (0,), ModelInstanceGroup.KIND_GPU, [0]),
        ("", "tensorrt", (0, 1), ModelInstanceGroup.KIND_GPU, [0, 1]),
        ("instance_group { count: 2 gpus: 3 }", "tensorrt", (3,), ModelInstanceGroup.KIND_GPU, [3]),
        ("instance_group { kind: KIND_CPU }", "torch", None, ModelInstanceGroup.KIND_CPU, []),
        ("instance_group { kind: KIND_GPU }", "onnxruntime", None, ModelInstanceGroup.KIND_CPU, []),
    ],
)
def test_instance_groups_say_where_instances_run(text, backend, placed, kind, gpus):
    description = ModelDescription("m", backend, None, config=parse_config(text, "m/config.pbtxt"))
    if placed is not None:
        description = replace(description, device_kind="cuda", groups=(InstanceGroup(gpus=placed),))
    (group,) = complete(description, EngineSpecs((PLANES,), (SCORES,), 8)).config.instance_group
    assert (group.name, group.kind, list(group.gpus)) == ("m_0", kind, gpus)
    assert group.count >= 1


@pytest.mark.parametrize(
    ("backend", "platform", "filename"),
    [
        ("onnxruntime", "onnxruntime_onnx", "model.onnx"),
        ("tensorrt", "tensorrt_plan", "model.plan"),
        ("torch", "pytorch_libtorch", ""),
        ("simulated", "simulated", ""),
    ],
)
def test_platform_and_file_follow_from_the_backend(backend, platform, filename):
    config = complete(ModelDescription("m", backend, None), EngineSpecs((PLANES,), (SCORES,), 8)).config
    assert (config.backend, config.platform, config.default_model_filename) == (backend, platform, filename)
