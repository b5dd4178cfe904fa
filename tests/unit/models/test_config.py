from pathlib import Path

import pytest

from forebay.wire.model_config_pb2 import ModelConfig
from forebay_server.service.models.config import describe
from forebay_server.service.models.config_text import parse_config
from forebay_server.service.models.description import BatchingOptions
from forebay_server.service.models.files import model_file, serving_versions
from forebay_server.service.models.instances import Instance
from forebay_server.service.models.parameters import OWN_KEYS, read_parameters
from forebay_server.service.models.picture_parameters import PictureParameters
from forebay_server.service.models.repository import Repository, RepositoryError
from forebay_server.service.pipeline.model_priority import ModelPriority
from forebay_server.service.results.task import ClassificationTask, DetectionTask


def entry(tmp_path, text=None, files=("1/model.onnx",)):
    for name in files:
        path = tmp_path / "m" / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_text("person\ncar\n" if name.endswith("txt") else "")
    if text is not None:
        (tmp_path / "m").mkdir(exist_ok=True)
        (tmp_path / "m" / "config.pbtxt").write_text(text)
    return Repository([tmp_path]).model("m")


def described(tmp_path, text, **more):
    return describe(entry(tmp_path, text, **more))


def parameters(**values):
    return "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n' for key, value in values.items()
    )


def test_without_a_configuration_everything_comes_from_the_file_names(tmp_path):
    found = described(tmp_path, None)
    assert (found.name, found.backend, found.max_batch_size) == ("m", "onnxruntime", None)
    assert found.instances == (Instance(),)
    assert (found.task, found.latency_budget_ms, dict(found.backend_options)) == (None, None, {})
    assert (found.specs, found.image, found.warnings) == (None, None, ())


@pytest.mark.parametrize(
    ("file", "backend"),
    [("model.onnx", "onnxruntime"), ("model.plan", "tensorrt"), ("model.pt2", "torch"), ("model.pt", "torch")],
)
def test_the_backend_follows_from_the_model_file(tmp_path, file, backend):
    found = entry(tmp_path, files=(f"1/{file}",))
    description = describe(found)
    assert description.backend == backend
    assert model_file(found, 1, description).name == file


@pytest.mark.parametrize(
    ("text", "backend"),
    [
        ('backend: "onnxruntime"', "onnxruntime"),
        ('backend: "pytorch"', "torch"),
        ('platform: "tensorrt_plan"', "tensorrt"),
        ('platform: "pytorch_libtorch"', "torch"),
        ('platform: "simulated"', "simulated"),
        ('backend: "tensorrt" platform: "tensorrt_plan"', "tensorrt"),
        ('default_model_filename: "net.plan"', "tensorrt"),
    ],
)
def test_the_backend_may_be_named(tmp_path, text, backend):
    assert described(tmp_path, text).backend == backend


def test_a_simulated_model_needs_no_files_and_gets_its_options(tmp_path):
    found = entry(tmp_path, 'backend: "simulated"\n' + parameters(alpha_ms=15, beta_ms=1), files=())
    description = describe(found)
    assert dict(description.backend_options) == {"alpha_ms": "15", "beta_ms": "1"}
    assert serving_versions(found, description) == (1,)
    assert model_file(found, 1, description) is None


def test_our_parameters_are_acted_on_and_all_others_are_the_backends(tmp_path):
    text = parameters(
        task="detection",
        color_order="BGR",
        latency_budget_ms=50,
        score_threshold=0.3,
        iou_threshold=0.6,
        max_results=7,
        labels="cat, dog",
        intra_op_threads=2,
    )
    found = described(tmp_path, text)
    assert found.task == DetectionTask(("cat", "dog"), score_threshold=0.3, iou_threshold=0.6, max_results=7)
    assert found.latency_budget_ms == 50
    assert dict(found.backend_options) == {"intra_op_threads": "2"}


def test_the_parameters_of_pictures_are_read():
    values = {
        "color_order": "GRAY",
        "layout": "NCHW",
        "image_size": "640x480",
        "resize": "center_crop",
        "resize_to": "256",
        "pad_value": "0",
        "pad_at": "bottom_right",
        "scale": "1/255",
        "mean": "0.5, 1/4,-1",
        "std": "2",
        "jpeg": "fast",
        "fold": "off",
    }
    found = read_parameters(parse_config(parameters(**values), "m/config.pbtxt"), "m/config.pbtxt").picture
    numbers = {"scale": 1 / 255, "mean": (0.5, 0.25, -1.0), "std": (2.0,)}
    whole = {"image_size": (640, 480), "resize_to": 256, "pad_value": 0}
    assert found == PictureParameters(**(values | whole | numbers))
    square = read_parameters(parse_config(parameters(image_size="320"), ""), "").picture
    assert (square.image_size, square.written) == ((320, 320), ("image_size",))


def test_thresholds_have_defaults(tmp_path):
    assert described(tmp_path, parameters(task="detection")).task == DetectionTask((), 0.4, 0.5, 100)


def test_classification_keeps_its_own_defaults(tmp_path):
    assert described(tmp_path, parameters(task="classification")).task == ClassificationTask((), None, 5)


def test_labels_come_from_the_file_that_an_output_names(tmp_path):
    text = 'output { name: "x" label_filename: "labels.txt" }' + parameters(task="classification")
    found = described(tmp_path, text, files=("1/model.onnx", "labels.txt"))
    assert found.task.labels == ("person", "car")


def test_dynamic_batching_keeps_its_knobs(tmp_path):
    text = (
        "max_batch_size: 8 dynamic_batching { preferred_batch_size: [ 8, 4, 4 ] max_queue_delay_microseconds: 100 "
        "priority_levels: 3 default_priority_level: 2 }"
    )
    assert described(tmp_path, text).batching == BatchingOptions((4, 8), 100, 3, 2)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("max_batch_size: 8", 8),
        ("", None),
        ('input { name: "x" dims: [ 1, 3 ] }', 0),
        ('max_batch_size: 2 input { name: "x" }', 2),
    ],
)
def test_the_batch_size_is_left_to_the_engine_only_if_no_shape_is_written(tmp_path, text, size):
    assert described(tmp_path, text).max_batch_size == size


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 1),
        ("instance_group { }", 1),
        ("instance_group { count: 3 }", 3),
        ("instance_group [ { count: 2 }, { count: 1 kind: KIND_CPU } ]", 3),
        ("instance_group [ { count: 2 }, { count: 4 passive: true } ]", 2),
    ],
)
def test_instances_of_all_groups_are_counted(tmp_path, text, count):
    assert described(tmp_path, text).instances == (Instance(),) * count


MAX, MIN = "optimization { priority: PRIORITY_MAX }", "optimization { priority: PRIORITY_MIN }"


@pytest.mark.parametrize(
    ("text", "priorities"),
    [
        ("", [(0, 1)]),
        ("instance_group { count: 2 rate_limiter { } }", [(0, 1), (0, 1)]),
        ("instance_group { count: 2 rate_limiter { priority: 1 } }", [(0, 1), (0, 1)]),
        ("instance_group { rate_limiter { priority: 7 } }", [(0, 7)]),
        (MAX, [(-1, 1)]),
        (MIN + "instance_group { rate_limiter { priority: 3 } } instance_group { }", [(1, 3), (1, 1)]),
        ("instance_group { rate_limiter { priority: 9 } passive: true }", [(0, 1)]),
    ],
)
def test_every_instance_has_the_priority_of_its_model_and_its_group(tmp_path, text, priorities):
    found = [instance.priority for instance in described(tmp_path, text).instances]
    assert found == [ModelPriority(*pair) for pair in priorities]


def test_what_is_ignored_is_said_once_each(tmp_path):
    text = (
        "response_cache { enable: true } model_warmup { } "
        'instance_group { host_policy: "a" } instance_group { host_policy: "b" }'
    )
    warnings = described(tmp_path, text).warnings
    assert len(warnings) == 3
    assert all(line.startswith("m/config.pbtxt: ") and "is ignored" in line for line in warnings)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optimization { eager_batching: true }", None),
        ("optimization { graph { level: 1 } priority: PRIORITY_MIN }", "optimization.graph is ignored"),
        (MAX + "instance_group { rate_limiter { priority: 2 } }", "PRIORITY_MAX is ignored"),
        ("instance_group { rate_limiter { priority: 2 } }", None),
        ('instance_group { rate_limiter { resources { name: "R" count: 1 } } }', "rate_limiter.resources is ignored"),
        ("instance_group { gpus: 1 }", "instance_group.gpus is ignored"),
        ('model_warmup { name: "w" }', "model_warmup 'w' is ignored: batch_size is 0"),
        ('model_warmup { batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 zero_data: true } } }', None),
        ("dynamic_batching { default_queue_policy { max_queue_size: 4 } }", None),
        ("instance_group { kind: KIND_CPU } dynamic_batching { preserve_ordering: true }", None),
        ('input { name: "x" data_type: TYPE_FP32 dims: 4 optional: true }', None),
        ('parameters { key: "execution_mode" value { } }', "'execution_mode' is ignored: backend 'onnxruntime'"),
        ('parameters { key: "intra_op_thread" value { } }', "did you mean 'intra_op_threads'?"),
        ('parameters { key: "intra_op_thread_count" value { string_value: "2" } }', None),
        ('parameters { key: "policy" value { string_value: "window" } }', None),
    ],
)
def test_only_what_has_no_effect_is_warned_of(tmp_path, text, words):
    warnings = described(tmp_path, text).warnings
    assert [words in line for line in warnings] == ([True] if words else [])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "cpu"),
        ('instance_group { kind: KIND_GPU } parameters { key: "provider" value { string_value: "cuda" } }', "cpu"),
        ('backend: "torch"', "cpu"),
        ('backend: "torch" instance_group { kind: KIND_CPU }', "cpu"),
        ('backend: "torch" instance_group { kind: KIND_GPU passive: true }', "cpu"),
        ('backend: "torch" instance_group { kind: KIND_GPU }', "cuda"),
        ('backend: "torch" instance_group { kind: KIND_GPU gpus: 1 count: 2 }', "cuda"),
        ('backend: "tensorrt"', "cuda"),
    ],
)
def test_instance_groups_choose_the_device_of_backends_that_have_a_choice(tmp_path, text, kind):
    assert described(tmp_path, text).device_kind == kind


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("instance_group { gpus: 3 }", [3]),
        ("instance_group { gpus: [ 0, 1 ] }", [0, 1]),
        ("instance_group { gpus: [ 1, 0 ] count: 2 }", [1, 0, 1, 0]),
        ("instance_group { gpus: 3 } instance_group { gpus: 3 }", [3, 3]),
        ("instance_group { gpus: 0 count: 3 } instance_group { gpus: [ 1, 0 ] }", [0, 1, 0, 0, 0]),
        ("instance_group { gpus: [ 0, 1 ] } instance_group { gpus: 2 passive: true }", [0, 1]),
        ("instance_group { gpus: 0 kind: KIND_GPU } instance_group { gpus: 1 kind: KIND_AUTO }", [0, 1]),
    ],
)
def test_count_instances_run_on_each_gpu_of_a_group(tmp_path, text, gpus):
    found = described(tmp_path, f'backend: "tensorrt" {text}').instances
    assert [instance.device for instance in found] == [f"cuda:{gpu}" for gpu in gpus]


def test_each_group_keeps_its_priority_on_its_gpus(tmp_path):
    text = "instance_group { gpus: [ 0, 1 ] rate_limiter { priority: 2 } } instance_group { gpus: 1 }"
    found = described(tmp_path, f'backend: "tensorrt" {text}').instances
    assert [(each.device, each.priority.number) for each in found] == [("cuda:0", 2), ("cuda:1", 2), ("cuda:1", 1)]


def test_a_priority_on_gpus_has_an_effect_and_is_not_warned_of(tmp_path):
    found = described(tmp_path, f'backend: "tensorrt" {MAX} instance_group {{ rate_limiter {{ priority: 2 }} }}')
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("text", "count", "words"),
    [
        (
            'backend: "torch" instance_group { kind: KIND_GPU gpus: 0 } instance_group { kind: KIND_CPU count: 3 }',
            1,
            "an instance_group of kind KIND_CPU is ignored: another asks for KIND_GPU, and a model runs on one kind",
        ),
        (
            'backend: "tensorrt" instance_group { kind: KIND_CPU gpus: 0 }',
            1,
            "instance_group.kind KIND_CPU is ignored: backend tensorrt runs on GPUs only",
        ),
        (
            'backend: "torch" instance_group { kind: KIND_CPU gpus: 1 count: 2 }',
            2,
            "instance_group.gpus is ignored: a torch model without KIND_GPU runs on the CPU",
        ),
    ],
)
def test_kinds_that_do_not_go_together_are_said(tmp_path, text, count, words):
    found = described(tmp_path, text)
    assert len(found.instances) == count
    assert found.warnings == (f"m/config.pbtxt: {words}",)


def test_a_gpu_that_the_backend_cannot_use_is_refused_unless_falling_back_is_allowed(tmp_path):
    text = "instance_group { kind: KIND_GPU }"
    with pytest.raises(RepositoryError, match=r"KIND_CPU or KIND_AUTO, name another backend, or .* --cpu-fallback"):
        described(tmp_path, text)
    assert describe(entry(tmp_path, text), cpu_fallback=True).device_kind == "cpu"


def test_tritons_name_of_an_option_that_is_ours_too_is_taken(tmp_path):
    text = 'parameters { key: "intra_op_thread_count" value { string_value: "2" } }'
    assert described(tmp_path, text).engine_options == {"intra_op_threads": "2"}


def test_the_policy_is_no_option_of_the_engine(tmp_path):
    description = described(tmp_path, 'parameters { key: "policy" value { string_value: "window" } }')
    assert description.backend_options == {"policy": "window"}
    assert description.engine_options == {}


VERSIONS = ("1/model.onnx", "2/model.onnx", "10/model.onnx")


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("", (10,)),
        ("version_policy { latest { num_versions: 2 } }", (2, 10)),
        ("version_policy { latest { } }", (10,)),
        ("version_policy { latest { num_versions: 9 } }", (1, 2, 10)),
        ("version_policy { all { } }", (1, 2, 10)),
        ("version_policy { specific { versions: [ 10, 1, 7 ] } }", (1, 10)),
    ],
)
def test_the_version_policy_chooses(tmp_path, text, versions):
    found = entry(tmp_path, text, files=VERSIONS)
    assert serving_versions(found, describe(found)) == versions


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name: "n"', "name is 'n', but the folder is 'm': give both the same name"),
        ('backend: "onnxrt"', "unknown backend 'onnxrt': did you mean 'onnxruntime'?"),
        ('backend: "onnx"', "unknown backend 'onnx': did you mean 'onnxruntime'?"),
        ('backend: "trt"', "unknown backend 'trt': known are onnxruntime"),
        (
            'backend: "python"',
            "'python': Triton has it, Forebay does not: serve the network itself, as ONNX; known are onn",
        ),
        ('platform: "tensorrt"', "unknown platform 'tensorrt': did you mean 'tensorrt_plan'?"),
        ('backend: "tensorrt" platform: "onnxruntime_onnx"', "differ: leave one out"),
        ("max_batch_size: -1", "max_batch_size is -1: it must be from 0"),
        ("max_batch_size: 1000000", "it must be from 0 to 4096"),
        ("instance_group { count: -1 }", "count is -1"),
        ("instance_group { count: 1000 }", "1000 instances: at most 64"),
        ('backend: "tensorrt" instance_group { count: 33 gpus: [ 0, 1 ] }', "66 instances: at most 64"),
        ('backend: "tensorrt" instance_group { gpus: [ 1, 0, 1 ] }', "names GPU 1 2 times: name it once, and raise"),
        ('backend: "tensorrt" instance_group { gpus: -1 }', "names GPU -1: numbers start at 0"),
        (
            "max_batch_size: 4 dynamic_batching { preferred_batch_size: 8 }",
            "preferred_batch_size [8]: each must be from 1",
        ),
        ("dynamic_batching { preferred_batch_size: 0 }", "preferred_batch_size [0]"),
        (
            "dynamic_batching { priority_levels: 2 }",
            "default_priority_level is 0: it must be from 1 to priority_levels (2)",
        ),
        (
            "dynamic_batching { priority_levels: 9 default_priority_level: 18446744073709551615 }",
            "default_priority_level is 18446744073709551615: it must be from 1 to priority_levels (9)",
        ),
        ("ensemble_scheduling { }", "ensembles are not served"),
        ('sequence_batching { control_input { name: "s" } }', "remove sequence_batching"),
        ("model_transaction_policy { decoupled: true }", "decoupled models are not served"),
        ('input { name: "x" allow_ragged_batch: true }', "input 'x': allow_ragged_batch: ragged batches"),
        (parameters(task="detect"), "'task' is 'detect': it must be one of detection, segmentation, pose, oriented"),
        (parameters(color_order="rgb"), "'color_order' is 'rgb': it must be one of RGB, BGR, GRAY"),
        (parameters(layout="CHW"), "'layout' is 'CHW': it must be one of NHWC, NCHW"),
        (parameters(resize="fit"), "it must be one of stretch, letterbox, center_crop, crop_pad"),
        (parameters(resize_to="0"), "'resize_to' is '0': it must be a whole number from 1 to 65535"),
        (parameters(pad_value="256"), "'pad_value' is '256': it must be a whole number from 0 to 255"),
        (parameters(pad_at="left"), "it must be one of center, bottom_right"),
        (parameters(image_size="640,480"), "it must be WIDTHxHEIGHT such as 640x480, or one number, from 1 to 65535"),
        (parameters(image_size="640x"), "'image_size' is '640x'"),
        (parameters(image_size="1x2x3"), "'image_size' is '1x2x3'"),
        (parameters(scale="0"), "'scale' is '0': it must be a number other than 0 such as 0.5 or 1/255"),
        (parameters(scale="1/0"), "'scale' is '1/0'"),
        (parameters(scale="1,1"), "'scale' is '1,1'"),
        (parameters(mean="1,2"), "it must be a number such as 0.5 or 1/255, or 3 with commas between them"),
        (parameters(mean="1,2,inf"), "'mean' is '1,2,inf'"),
        (parameters(mean="1,2,3,4"), "'mean' is '1,2,3,4'"),
        (parameters(std="1,2,0"), "'std' is '1,2,0': it must be a number other than 0"),
        (parameters(jpeg="quick"), "it must be one of exact, fast"),
        (parameters(fold="yes"), "it must be one of auto, on, off"),
        (parameters(resize_too="3"), "did you mean 'resize_to'?"),
        (parameters(score_threshold="1.5"), "'score_threshold' is '1.5': it must be a number from 0 to 1"),
        (parameters(score_threshold="nan"), "'score_threshold' is 'nan'"),
        (parameters(iou_threshold="half"), "'iou_threshold' is 'half'"),
        (parameters(latency_budget_ms="0"), "'latency_budget_ms' is '0'"),
        (parameters(latency_budget_ms="inf"), "'latency_budget_ms' is 'inf'"),
        (parameters(max_results="0"), "'max_results' is '0': it must be a whole number from 1"),
        (parameters(max_results="9" * 5000), "it must be a whole number"),
        (parameters(max_results="1.5"), "'max_results' is '1.5'"),
        (parameters(labels="a,,b"), "'labels' is 'a,,b'"),
        (parameters(score_treshold="0.3"), "parameter 'score_treshold': did you mean 'score_threshold'?"),
        (
            'output { name: "x" label_filename: "nowhere.txt" }' + parameters(task="detection"),
            "label_filename 'nowhere.txt' is not in the folder m",
        ),
        (
            'output { name: "x" label_filename: "../labels.txt" }' + parameters(task="detection"),
            "'../labels.txt' is no plain file name",
        ),
        (
            'output { name: "x" label_filename: "a.txt" } output { name: "y" label_filename: "b.txt" }'
            + parameters(task="detection"),
            "label_filename 'a.txt' is not in the folder m",
        ),
    ],
)
def test_a_configuration_that_cannot_be_served_is_told_with_its_fix(tmp_path, text, words):
    with pytest.raises(RepositoryError) as caught:
        described(tmp_path, text)
    assert words in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "files", "words"),
    [
        (None, ("1/net.onnx",), "m/1: no model file, which would be one of model.onnx, model.plan, model.pt2, model."),
        (None, ("1/net.onnx",), "rename net.onnx to model.onnx, or write default_model_filename: 'net.onnx'"),
        ('backend: "onnxruntime"', ("1/net.onnx",), "m/1: no model.onnx: rename net.onnx to model.onnx, or write"),
        (None, ("1/model.py",), "model.py is for Triton's Python backend, which Forebay does not have: export"),
        (None, ("1/", "model.onnx"), "move m/model.onnx to m/1/model.onnx"),
        (None, ("1/x", "2/"), "m/2: no model file, which would be one of model.onnx"),
        (None, ("1/model.onnx", "2/"), "m/2: no model.onnx: put the model file there"),
        (None, ("1/model.plan", "3/x"), "m/3: no model.plan: put the model file there"),
        (None, ("1/model.onnx", "1/model.plan"), "m/1: more than one model file"),
        ('backend: "onnxruntime"', ("1/x",), "m/1: no model.onnx: put the model file there"),
        ('backend: "torch"', ("1/model.onnx",), "m/1: no model.pt2 or model.pt; model.onnx is there: name its backend"),
        ('default_model_filename: "net.onnx"', ("1/model.onnx",), "m/1: no net.onnx; model.onnx is there"),
        ('default_model_filename: "../net.onnx"', ("1/model.onnx",), "'../net.onnx' is no plain file name"),
        ('backend: "onnxruntime"', (), "m: no version to serve: there are none"),
        ("version_policy { specific { versions: 3 } }", ("1/model.onnx",), "no version to serve: there are [1]"),
    ],
)
def test_a_missing_model_file_is_told_with_its_fix(tmp_path, text, files, words):
    found = entry(tmp_path, text, files=files)
    with pytest.raises(RepositoryError) as caught:
        load(found)
    assert words in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "file"),
    [
        (None, "1/model.onnx/model.onnx"),
        ('backend: "onnxruntime"', "1/model.onnx/model.onnx"),
        ('default_model_filename: "net.onnx"', "1/net.onnx/model.onnx"),
    ],
)
def test_a_model_file_may_lie_in_a_folder_of_its_name_with_its_weights(tmp_path, text, file):
    found = entry(tmp_path, text, files=(file, f"{file.rpartition('/')[0]}/weights.bin"))
    assert load(found) == [tmp_path / "m" / file]


def load(found):
    description = describe(found)
    return [model_file(found, version, description) for version in serving_versions(found, description)]


def test_the_page_on_models_names_every_parameter_and_every_field():
    page = (Path(__file__).resolve().parents[3] / "docs" / "models.md").read_text()
    fields = [field.name for field in ModelConfig.DESCRIPTOR.fields]
    assert [name for name in (*OWN_KEYS, *fields) if name not in page] == []


def test_everything_that_is_wrong_is_told_at_once(tmp_path):
    text = """
        model_configuration {
          name: "other"
          max_batch_size: -1
          input { name: "x" data_type: TYPE_FP32 dims: [ 8, 3, 4 ] allow_ragged_batch: true }
          ensemble_scheduling { }
          instance_group { kind: KIND_GPU count: -2 }
          parameters { key: "task" value { string_value: "detect" } }
        }
    """
    with pytest.raises(RepositoryError) as caught:
        described(tmp_path, text)
    message = str(caught.value)
    assert message.count("m/config.pbtxt") == 1
    for words in (
        "name is 'other', but the folder is 'm'",
        "ensembles are not served",
        "input 'x': allow_ragged_batch",
        "'task' is 'detect'",
        "write KIND_CPU or KIND_AUTO, name another backend, or start the server with --cpu-fallback",
        "max_batch_size is -1",
        "count is -2",
    ):
        assert words in message


def test_labels_are_kept_by_output_whatever_the_task(tmp_path):
    text = 'output { name: "x" label_filename: "a.txt" } output { name: "y" label_filename: "b.txt" }'
    found = described(tmp_path, text, files=("1/model.onnx", "a.txt", "b.txt"))
    assert found.task is None
    assert found.labels == {"x": ("person", "car"), "y": ("person", "car")}


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("", ()),
        ("a", ("a",)),
        ("a\n", ("a",)),
        ("a\nb", ("a", "b")),
        ("a\r\nb\r\n", ("a", "b")),
        ("a\n\nb\n", ("a", "", "b")),
        ("a\n\n", ("a", "")),
        ("\n", ("",)),
        *(
            (f"background\nfire{separator}man\nbus\n", ("background", f"fire{separator}man", "bus"))
            for separator in "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\r"
        ),
    ],
)
def test_labels_are_split_at_the_ends_of_lines_alone(tmp_path, text, labels):
    found = entry(tmp_path, 'output { name: "x" label_filename: "labels.txt" }')
    (tmp_path / "m" / "labels.txt").write_bytes(text.encode())
    assert describe(found).labels == {"x": labels}


def test_labels_of_a_task_are_one_list(tmp_path):
    text = 'output { name: "x" label_filename: "a.txt" } output { name: "y" label_filename: "b.txt" }'
    found = entry(tmp_path, text + parameters(task="detection"), files=("1/model.onnx", "a.txt", "b.txt"))
    assert describe(found).task.labels == ("person", "car")
    (tmp_path / "m" / "b.txt").write_text("cat")
    with pytest.raises(RepositoryError, match="label files that differ"):
        describe(found)


def test_a_tag_that_is_no_label_is_refused(tmp_path):
    with pytest.raises(RepositoryError, match="'a-b' is no name of a label"):
        described(tmp_path, 'metric_tags { key: "a-b" value: "x" }')
