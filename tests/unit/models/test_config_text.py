import contextlib

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from forebay.wire.model_config_pb2 import DataType, ModelConfig, ModelInstanceGroup
from forebay_server.service.models.config_text import MAX_CONFIG_BYTES, ConfigError, parse_config, read_config
from forebay_server.service.models.repository import Repository

EVERY_KIND_OF_FIELD = """
# A comment.
name: "everything"
platform: 'onnxruntime_onnx'
version_policy: { specific { versions: [ 1, 3 ] } }
max_batch_size: 8
input [
  { name: "a" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, -1, -1 ] reshape { shape: [ ] } },
  { name: "b" data_type: TYPE_STRING dims: 1 optional: true is_shape_tensor: false }
]
output { name: "c" data_type: TYPE_BF16 dims: [ 2 ] label_filename: "labels.txt" }
batch_input { kind: BATCH_ITEM_SHAPE target_name: "s" data_type: TYPE_INT32 source_input: "a" }
batch_output { target_name: "c" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "a" }
instance_group { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] profile: "0" rate_limiter { resources { name: "r" count: 1 } }
  secondary_devices { kind: KIND_NVDLA device_id: 1 } host_policy: "h" }
default_model_filename: "net.onnx"
cc_model_filenames { key: "8.6" value: "net86.plan" }
metric_tags { key: "team" value: "x" }
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 100
  preserve_ordering: true
  priority_levels: 2
  default_priority_level: 1
  default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 5 allow_timeout_override: true
    max_queue_size: 9 }
  priority_queue_policy { key: 2 value { max_queue_size: 3 } }
}
optimization {
  graph { level: 1 } priority: PRIORITY_MAX
  cuda { graphs: true busy_wait_events: true output_copy_stream: true
    graph_spec { batch_size: 1 input { key: "a" value { dim: [ 3, 4 ] } } graph_lower_bound { batch_size: 1 } } }
  execution_accelerators { gpu_execution_accelerator {
    name: "tensorrt" parameters { key: "precision_mode" value: "FP16" } } }
  input_pinned_memory { enable: true } gather_kernel_buffer_threshold: 7 eager_batching: true
}
parameters { key: "task" value: { string_value: "tensors" } }
model_warmup { name: "w" batch_size: 1 count: 2
  inputs { key: "a" value { data_type: TYPE_FP32 dims: 3 random_data: true } } }
backend: "onnxruntime"
model_operations { op_library_filename: "x.so" }
model_transaction_policy { decoupled: false }
model_repository_agents { agents { name: "checksum" parameters { key: "k" value: "v" } } }
response_cache { enable: true }
runtime: "r"
model_metrics { metric_control { metric_identifier { family: "f" } histogram_options { buckets: [ 1, 2.5 ] } } }
"""


def test_a_file_with_every_kind_of_field_parses():
    config = parse_config(EVERY_KIND_OF_FIELD, "m/config.pbtxt")
    present = {field.name for field, _ in config.ListFields()}
    assert {field.name for field in ModelConfig.DESCRIPTOR.fields} - present == {
        "sequence_batching",
        "ensemble_scheduling",  # one of three with dynamic_batching
    }
    assert list(config.input[0].dims) == [3, -1, -1]
    assert config.dynamic_batching.priority_queue_policy[2].max_queue_size == 3


@pytest.mark.parametrize(
    "text",
    [
        'sequence_batching { direct { minimum_slot_utilization: 0.5 } control_input { name: "S" '
        "control { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } } "
        'state { input_name: "i" output_name: "o" initial_state { zero_data: true name: "z" } } }',
        'ensemble_scheduling { step { model_name: "a" model_version: -1 input_map { key: "x" value: "y" } } }',
    ],
)
def test_the_other_schedulers_parse(text):
    assert parse_config(text, "m/config.pbtxt").WhichOneof("scheduling_choice")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "max_batchsize: 3",
            "m/config.pbtxt:1:1: no field 'max_batchsize' in ModelConfig: did you mean 'max_batch_size'?",
        ),
        ("\n\n  input { dimz: 3 }", "m/config.pbtxt:3:11: no field 'dimz' in ModelInput: did you mean 'dims'?"),
        ("input { xyzzy: 3 }", "known are name, data_type, format"),
        (
            'input { name: "a"\n data_type: TYPE_FP31 }',
            "m/config.pbtxt:2:13: no value 'TYPE_FP31' in DataType: did you mean 'TYPE_FP32'?",
        ),
        (
            "instance_group { kind: KIND_GPUS }",
            "no value 'KIND_GPUS' in ModelInstanceGroup.Kind: did you mean 'KIND_GPU'?",
        ),
        (
            'parameters { key: "a" value_ { } }',
            "no field 'value_' in ModelConfig.ParametersEntry: did you mean 'value'?",
        ),
        ('model_configuration { name: "m" }', "remove the surrounding 'model_configuration { ... }'"),
        ('name: "a" name: "b"', 'should not have multiple "name" fields'),
        ("dynamic_batching { } ensemble_scheduling { }", "another member of oneof"),
        ("input {", 'Expected "}"'),
        ('max_batch_size: "8"', "m/config.pbtxt:1:17: Couldn't parse integer"),
        ("max_batch_size: 99999999999", "Value out of range"),
        ("name: 3", "Expected string but found: '3'"),
        ('name: "\\377"', "Couldn't parse string"),
        ("\x00", "m/config.pbtxt:1:1: Expected identifier"),
    ],
)
def test_bad_text_is_told_with_its_place_and_the_nearest_name(text, message):
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "m/config.pbtxt")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def entry(tmp_path, data):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.pbtxt").write_bytes(data)
    return Repository([tmp_path]).model("m")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'name: "m"\n# \xe9t\xe9\n', "m/config.pbtxt:2: not UTF-8"),
        (b"#" * (MAX_CONFIG_BYTES + 1), "m/config.pbtxt: longer than"),
    ],
)
def test_a_file_that_is_no_text_is_told(tmp_path, data, message):
    with pytest.raises(ConfigError) as caught:
        read_config(entry(tmp_path, data), [])
    assert message in str(caught.value)


def test_a_byte_order_mark_does_no_harm(tmp_path):
    assert read_config(entry(tmp_path, b'\xef\xbb\xbfname: "m"'), []).name == "m"


def test_no_file_is_no_configuration(tmp_path):
    (tmp_path / "m" / "1").mkdir(parents=True)
    assert read_config(Repository([tmp_path]).model("m"), []) is None


@given(st.text(max_size=200))
def test_no_text_makes_anything_but_a_configuration_or_a_clear_error(text):
    check_parses_or_tells(text)


tokens = st.sampled_from(
    [
        "name",
        "input",
        "dims",
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        '"a"',
        "3",
        "-1",
        "1e9",
        "TYPE_FP32",
        "parameters",
        "key",
        "\n",
    ]
)


@given(st.lists(tokens, max_size=40))
def test_no_mixture_of_right_words_makes_anything_else_either(words):
    check_parses_or_tells(" ".join(words))


def check_parses_or_tells(text):
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_config(text, "m/config.pbtxt"), ModelConfig)


names = st.text(max_size=12).filter(lambda name: not any(0xD800 <= ord(letter) < 0xE000 for letter in name))
tensors = st.fixed_dictionaries(
    {
        "name": names,
        "data_type": st.sampled_from(DataType.values()),
        "dims": st.lists(st.integers(-1, 2**62), max_size=4),
    }
)
groups = st.fixed_dictionaries(
    {
        "count": st.integers(0, 9),
        "kind": st.sampled_from(ModelInstanceGroup.Kind.values()),
        "gpus": st.lists(st.integers(0, 7)),
    }
)
configs = st.fixed_dictionaries(
    {
        "name": names,
        "max_batch_size": st.integers(-(2**31), 2**31 - 1),
        "input": st.lists(tensors, max_size=3),
        "output": st.lists(tensors, max_size=3),
        "instance_group": st.lists(groups, max_size=2),
        "parameters": st.dictionaries(names, st.fixed_dictionaries({"string_value": names}), max_size=3),
        "dynamic_batching": st.fixed_dictionaries({"max_queue_delay_microseconds": st.integers(0, 2**64 - 1)}),
    }
)


@given(configs)
def test_what_is_written_is_read_back(fields):
    config = ModelConfig(**fields)
    assert parse_config(text_format.MessageToString(config), "m/config.pbtxt") == config


@pytest.mark.parametrize(
    "text",
    [
        'model_configuration { name: "m" max_batch_size: 3 }',
        'model_configuration: {\n  name: "m"\n  max_batch_size: 3\n}\n# the end\n',
        '# a guide said so\nmodel_configuration {\nname: "m" max_batch_size: 3 # }\n}',
    ],
)
def test_a_file_whose_fields_are_wrapped_is_read_with_a_warning(tmp_path, text):
    warnings = []
    config = read_config(entry(tmp_path, text.encode()), warnings)
    assert (config.name, config.max_batch_size) == ("m", 3)
    assert len(warnings) == 1
    assert "'model_configuration { ... }' is passed over" in warnings[0]


def test_places_in_a_wrapped_file_are_those_of_the_file(tmp_path):
    text = b'model_configuration {\n  name: "m"\n  max_batch: 3\n}'
    with pytest.raises(ConfigError, match=r"m/config.pbtxt:3:3: no field 'max_batch'"):
        read_config(entry(tmp_path, text), [])
