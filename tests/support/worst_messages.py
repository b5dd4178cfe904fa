"""The worst valid messages: every field of a message type, filled in every way that its wire format has.

The generator works from the descriptors of protobuf, so a new field is tried as well.
"""

from google.protobuf.descriptor import FieldDescriptor as Field
from onnx import TensorProto, helper

from forebay.wire import inference_pb2
from tests.support import models
from tests.support.real_server import simulated

NUMBERS = {
    Field.TYPE_DOUBLE: 1,
    Field.TYPE_FIXED64: 1,
    Field.TYPE_SFIXED64: 1,
    Field.TYPE_FLOAT: 5,
    Field.TYPE_FIXED32: 5,
    Field.TYPE_SFIXED32: 5,
}
LONG_NUMBER = b"\xff" * 9 + b"\x01"
UNKNOWN = 2000  # a field number that no message has
DEPTH = 40  # of groups within each other; protobuf refuses a hundred


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def tag(number, wire_type):
    return varint(number << 3 | wire_type)


def delimited(number, content):
    return tag(number, 2) + varint(len(content)) + content


def full(unit, nbytes):
    """`unit` as often as it fits."""
    return unit * (nbytes // len(unit))


def of_unknown_fields(nbytes):
    """Yield a message's bytes, filled with fields that it does not have."""
    yield "unknown numbers", full(tag(UNKNOWN, 0) + b"\x01", nbytes)
    yield "unknown texts", full(delimited(UNKNOWN, b""), nbytes)
    yield "an unknown text", delimited(UNKNOWN, b"\xff" * nbytes)
    yield "unknown groups", full(tag(UNKNOWN, 3) + tag(UNKNOWN, 4), nbytes)
    yield "groups within groups", full(tag(UNKNOWN, 3) * DEPTH + tag(UNKNOWN, 4) * DEPTH, nbytes)


def of_field(field, nbytes):
    """Yield a message's bytes, filled with one of its fields."""
    name, number = field.name, field.number
    if field.message_type is not None:
        yield f"{name} empty", full(delimited(number, b""), nbytes)
        if field.message_type.GetOptions().map_entry:
            entries = (delimited(number, delimited(1, b"%08d" % index)) for index in range(nbytes // 12))
            yield f"{name} of many keys", b"".join(entries)
    elif field.type in (Field.TYPE_STRING, Field.TYPE_BYTES):
        yield f"{name} empty", full(delimited(number, b""), nbytes)
        yield f"{name} of a letter", full(delimited(number, b"a"), nbytes)
        yield f"{name} long", delimited(number, b"a" * nbytes)
        yield f"{name} long, not ASCII", delimited(number, "ü".encode() * (nbytes // 2))
    else:
        wire_type = NUMBERS.get(field.type, 0)
        values = {1: (bytes(8),), 5: (bytes(4),)}.get(wire_type, (b"\x01", LONG_NUMBER))
        for value in values:
            yield f"{name} {len(value)} bytes", full(tag(number, wire_type) + value, nbytes)
            if field.is_repeated:
                yield f"{name} packed, {len(value)} bytes", delimited(number, full(value, nbytes))
        if field.is_repeated:
            yield f"{name} packed, empty", full(delimited(number, b""), nbytes)


def of_message(descriptor, nbytes, depth=3):
    """Yield contents that fill a message of a type in every way, with its submessages: a name, and `nbytes` bytes."""
    yield from of_unknown_fields(nbytes)
    for field in descriptor.fields:
        yield from of_field(field, nbytes)
        if field.message_type is not None and depth:
            for name, content in of_message(field.message_type, nbytes, depth - 1):
                yield f"{field.name}.{name}", delimited(field.number, content)


# --- messages of inference that are right, and as much work as can be -------------------------------------------------

SHAPES = {
    "FP32": ("fp32_contents", TensorProto.FLOAT, bytes(4)),
    "FP64": ("fp64_contents", TensorProto.DOUBLE, bytes(8)),
    "BOOL": ("bool_contents", TensorProto.BOOL, b"\x01"),
    "UINT8": ("uint_contents", TensorProto.UINT8, b"\x81\x00"),
    "INT32": ("int_contents", TensorProto.INT32, LONG_NUMBER),
    "INT64": ("int64_contents", TensorProto.INT64, LONG_NUMBER),
}
STRINGS = 131_072
CLASSES = 1000
CONTENTS = inference_pb2.InferTensorContents.DESCRIPTOR.fields_by_name


def save_models(root):
    """Write the models that the requests of `of_inference` name; most of them answer with a shape."""
    types = {datatype.lower(): onnx_type for datatype, (_, onnx_type, _) in SHAPES.items()}
    for name, onnx_type in {**types, "texts": TensorProto.STRING}.items():
        node = helper.make_node("Shape", ["x"], ["y"])
        model = models.build(
            [node], [models.tensor("x", ("n",), onnx_type)], [models.tensor("y", (1,), TensorProto.INT64)]
        )
        models.save(model, root / name / "1" / "model.onnx")
        (root / name / "config.pbtxt").write_text("max_batch_size: 0")
    models.save(models.identity(("batch", "n"), TensorProto.STRING), root / "strings" / "1" / "model.onnx")
    simulated(root, "scores", input_bytes=4 * CLASSES, input_shape=CLASSES, datatype="FP32", max_batch_size=64)
    simulated(root)


def of_inference(nbytes):
    """Yield right requests of about `nbytes` bytes: a name and the bytes."""
    for datatype, (field, _, number) in SHAPES.items():
        packed = full(number, nbytes)
        contents = delimited(CONTENTS[field].number, packed)
        yield f"typed {datatype}", _request(datatype.lower(), datatype, [len(packed) // len(number)], contents)
    yield "raw numbers", _request("fp32", "FP32", [nbytes // 4]) + delimited(7, bytes(nbytes // 4 * 4))
    count = min(STRINGS, nbytes // 5)
    raw = b"\x01\0\0\0a" * count
    yield "raw strings", _request("strings", "BYTES", [1, count]) + delimited(7, raw)
    yield "typed strings", _request("strings", "BYTES", [1, count], full(b"\x42\x01a", 3 * count))
    yield "more strings than the shape has", _request("strings", "BYTES", [1, 1]) + delimited(7, bytes(nbytes))
    yield (
        "more typed strings than the shape has",
        _request("strings", "BYTES", [1, 1], full(b"\x42\x00", min(nbytes, 2 * STRINGS))),
    )
    text = ("ü" * (nbytes // 2)).encode()
    yield "a long string", _request("texts", "BYTES", [1]) + delimited(7, len(text).to_bytes(4, "little") + text)
    request = inference_pb2.ModelInferRequest(model_name="scores")
    request.inputs.add(name="input", datatype="FP32", shape=[64, CLASSES])
    request.outputs.add(name="output").parameters["classification"].int64_param = CLASSES
    request.raw_input_contents.append(bytes(64 * CLASSES * 4))
    yield "classes", request.SerializeToString()


def _request(model, datatype, shape, contents=None):
    tensor = inference_pb2.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=shape)
    fields = tensor.SerializeToString() + (b"" if contents is None else delimited(5, contents))
    return inference_pb2.ModelInferRequest(model_name=model).SerializeToString() + delimited(5, fields)
