"""Every message that Forebay has on the wire, with every field set."""

from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message_factory import GetMessageClass

from forebay.wire import (
    frames_pb2,
    health_pb2,
    inference_pb2,
    model_config_pb2,
    orca_load_report_pb2,
    orca_pb2,
    reflection_pb2,
    reflection_v1alpha_pb2,
    streams_pb2,
)

MODULES = (
    frames_pb2,
    health_pb2,
    inference_pb2,
    model_config_pb2,
    orca_load_report_pb2,
    orca_pb2,
    reflection_pb2,
    reflection_v1alpha_pb2,
    streams_pb2,
)
MAX_DEPTH = 4  # messages within messages; deeper ones stay empty
_VALUES = {Field.CPPTYPE_STRING: "é", Field.CPPTYPE_BOOL: True, Field.CPPTYPE_FLOAT: 1.5, Field.CPPTYPE_DOUBLE: 2.5}


def message_classes():
    """The class of every message, nested ones included, in a fixed order."""
    waiting = [kind for module in MODULES for kind in module.DESCRIPTOR.message_types_by_name.values()]
    classes = []
    while waiting:
        descriptor = waiting.pop()
        classes.append(GetMessageClass(descriptor))
        waiting += descriptor.nested_types
    return sorted(classes, key=lambda kind: kind.DESCRIPTOR.full_name)


def filled(kind, depth=0):
    """A message with a value other than the default in each field; of a oneof, in the last."""
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        _fill(message, field, depth)
    return message


def _fill(message, field, depth):
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        key, value = inner.fields_by_name["key"], inner.fields_by_name["value"]
        if value.message_type is None:
            getattr(message, field.name)[_scalar(key)] = _scalar(value)
        else:
            getattr(message, field.name)[_scalar(key)].CopyFrom(_inner(value, depth))
    elif hasattr(getattr(message, field.name), "extend"):  # 6.30 has no `is_repeated`
        getattr(message, field.name).extend([_inner(field, depth) if inner else _scalar(field)] * 2)
    elif inner is not None:
        getattr(message, field.name).CopyFrom(_inner(field, depth))
    else:
        setattr(message, field.name, _scalar(field))


def _inner(field, depth):
    kind = GetMessageClass(field.message_type)
    return filled(kind, depth + 1) if depth < MAX_DEPTH else kind()


def _scalar(field):
    if field.type == Field.TYPE_BYTES:
        return b"\x00\xff"
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    return _VALUES.get(field.cpp_type, 7)
