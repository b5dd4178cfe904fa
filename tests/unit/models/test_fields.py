"""The table of fields is complete, and the service behaves accordingly."""

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor

from forebay.wire.model_config_pb2 import ModelConfig
from forebay_server.service.models.config import describe
from forebay_server.service.models.config_text import parse_config
from forebay_server.service.models.fields import FIELDS
from forebay_server.service.models.repository import Repository, RepositoryError

VALUES = {
    FieldDescriptor.CPPTYPE_STRING: "x",
    FieldDescriptor.CPPTYPE_BOOL: True,
    FieldDescriptor.CPPTYPE_FLOAT: 1.5,
    FieldDescriptor.CPPTYPE_DOUBLE: 1.5,
}


def uncovered(descriptor=ModelConfig.DESCRIPTOR, path=""):
    """Fields that no path of the table covers."""
    missing = []
    for field in descriptor.fields:
        here = path + field.name
        if here in FIELDS:
            continue
        if field.message_type is None or not any(name.startswith(f"{here}.") for name in FIELDS):
            missing.append(here)
        else:
            missing += uncovered(field.message_type, f"{here}.")
    return missing


def set_path(message, path):
    """Give the field at `path` an arbitrary value."""
    head, _, rest = path.partition(".")
    field = message.DESCRIPTOR.fields_by_name[head]
    value = getattr(message, head)
    if rest:
        set_path(value.add() if hasattr(value, "add") else value, rest)
    elif field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name["value"]
        if entry.message_type is None:
            value["x"] = "x"
        else:
            value.get_or_create(1 if "level" in head or "priority" in head else "x")
    elif field.message_type is not None:
        (value.add() if hasattr(value, "add") else value).SetInParent()
    elif hasattr(value, "extend"):
        value.append(VALUES.get(field.cpp_type, 1))
    else:
        setattr(message, head, VALUES.get(field.cpp_type, 1))


def described(tmp_path, path):
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.onnx").touch()
    config = ModelConfig(backend="onnxruntime")
    set_path(config, path)
    return describe(Repository([tmp_path]).model("m"), config)


def paths(*kinds):
    return [path for path, treatment in FIELDS.items() if treatment.kind in kinds]


def test_every_field_is_in_the_table():
    assert uncovered() == []


def test_no_path_of_the_table_lies_in_another_or_in_no_message():
    for path in FIELDS:
        set_path(ModelConfig(), path)
        parts = path.split(".")
        assert not [outer for outer in range(1, len(parts)) if ".".join(parts[:outer]) in FIELDS]


@pytest.mark.parametrize("path", paths("ignored"))
def test_an_ignored_field_is_warned_of_once(tmp_path, path):
    (warning,) = described(tmp_path, path).warnings
    assert warning == f"m/config.pbtxt: {path} is ignored: {FIELDS[path].text}"


@pytest.mark.parametrize("path", paths("refused"))
def test_a_refused_field_is_an_error_that_names_it(tmp_path, path):
    with pytest.raises(RepositoryError) as caught:
        described(tmp_path, path)
    assert path.rpartition(".")[2] in str(caught.value)
    assert FIELDS[path].text in str(caught.value)


@pytest.mark.parametrize("path", paths("always so"))
def test_what_is_always_so_is_no_reason_to_warn(tmp_path, path):
    assert described(tmp_path, path).warnings == ()


def test_ten_inputs_with_an_ignored_field_give_one_warning(tmp_path):
    (tmp_path / "m" / "1").mkdir(parents=True)
    config = ModelConfig(backend="simulated")
    for number in range(10):
        config.input.add(name=str(number), is_non_linear_format_io=True)
    (warning,) = describe(Repository([tmp_path]).model("m"), config).warnings
    assert "input.is_non_linear_format_io is ignored" in warning


@pytest.mark.parametrize("path", FIELDS)
def test_every_field_parses(path):
    config = ModelConfig()
    set_path(config, path)
    assert parse_config(text_format.MessageToString(config), "m/config.pbtxt") == config
