"""The models of the onnx package's backend tests, and the answers of ONNX Runtime to the inputs that come with them.

Nothing comes from the network: the package makes the models of single operators in code, and has the others as data.
"""

import ctypes
import itertools
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from forebay.wire import inference_pb2 as pb
from forebay_server.engines.datatypes import BF16, DTYPE_BY_NAME, NAME_BY_DTYPE

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")
TYPES = {  # ONNX Runtime's names of the types that the protocol knows
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


@dataclass(frozen=True)
class Case:
    """One model as the bytes of its file, and the values of its first set of inputs, as the package has them."""

    name: str
    model: bytes
    inputs: tuple


@dataclass(frozen=True)
class Run:
    """A run of ONNX Runtime.

    Attributes:
        unknown: name and type of the first tensor whose type the protocol does not know; None if it knows all.
        inputs: arrays by name, each of the dtype that `forebay_server.engines.datatypes` has for its type.
        outputs: arrays by name; None if the model does not run with these inputs, or `unknown` is set.
        is_random: whether a second run gave something else.
    """

    unknown: tuple[str, str] | None
    inputs: dict
    outputs: dict | None
    is_random: bool = False


def cases():
    """Every model of the four kinds, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, about overflows in the package's own expectations
        from onnx.backend.test.loader import load_model_tests

        found = itertools.chain.from_iterable(load_model_tests(kind=kind) for kind in KINDS)
        return sorted(map(_case, found), key=lambda case: case.name)


def _case(case):
    if case.model is not None:
        return Case(case.name, case.model.SerializeToString(), tuple(case.data_sets[0][0]))
    folder = Path(case.model_dir)
    files = sorted((folder / "test_data_set_0").glob("input_*.pb"), key=lambda path: int(path.stem.split("_")[1]))
    inputs = [onnx.load_tensor(str(path)) if _is_tensor(path) else path for path in files]
    return Case(case.name, (folder / "model.onnx").read_bytes(), tuple(inputs))


def _is_tensor(path):
    try:
        return onnx.load_tensor(str(path)).data_type != TensorProto.UNDEFINED
    except DecodeError:  # a sequence
        return False


def run(case):
    """Run a model with its own inputs on the CPU. None: ONNX Runtime cannot load it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(case.model, options, providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001 - its errors have no common base
        return None
    nodes = (*session.get_inputs(), *session.get_outputs())
    unknown = next(((node.name, node.type) for node in nodes if node.type not in TYPES), None)
    if unknown is not None:
        return Run(unknown, {}, None)
    inputs = {
        node.name: _array(value, TYPES[node.type])
        for node, value in zip(session.get_inputs(), case.inputs, strict=True)
    }
    try:
        first, second = (_outputs(session, inputs) for _ in range(2))
    except Exception:  # noqa: BLE001
        return Run(None, inputs, None)
    return Run(None, inputs, first, not all(is_same(first[name], second[name]) for name in first))


def _array(value, datatype):
    array = numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)
    if datatype == "BF16":
        return np.ascontiguousarray(array).view(np.uint16).reshape(array.shape).view(BF16).reshape(array.shape)
    if datatype == "BYTES":
        texts = [text.decode() if isinstance(text, bytes) else text for text in array.reshape(-1).tolist()]
        return np.array(texts, object).reshape(array.shape)
    return np.ascontiguousarray(array, DTYPE_BY_NAME[datatype]).reshape(array.shape)


def _outputs(session, inputs):
    names = [node.name for node in session.get_outputs()]
    if not any(node.type == "tensor(bfloat16)" for node in (*session.get_inputs(), *session.get_outputs())):
        return dict(zip(names, map(np.asarray, session.run(None, inputs)), strict=True))
    values = {name: _value(array) for name, array in inputs.items()}
    return dict(zip(names, map(_array_of, session.run_with_ort_values(None, values)), strict=True))


def _value(array):
    if array.dtype == BF16:
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), TensorProto.BFLOAT16)
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _array_of(value):
    if value.data_type() != "tensor(bfloat16)":
        return value.numpy()
    shape = tuple(value.shape())
    return np.frombuffer(ctypes.string_at(value.data_ptr(), 2 * math.prod(shape)), BF16).reshape(shape)


def is_same(given, expected):
    """Whether an answer equals ONNX Runtime's output: type, shape, and every value, within the rounding of floats.

    Clients see a scalar as [1], as in Triton, and a scalar of every row as [rows, 1].
    """
    if expected.shape not in (given.shape, given.shape[:-1] if given.shape[-1:] == (1,) else None):
        return False
    given = given.reshape(expected.shape)
    if (given.dtype == np.dtype(object)) != (expected.dtype.kind in "OU"):
        return False
    if expected.dtype.kind == "f":
        return given.dtype == expected.dtype and np.allclose(given, expected, rtol=1e-5, atol=1e-6, equal_nan=True)
    return given.tolist() == expected.tolist()


def request(model, inputs):
    """A request of the Open Inference Protocol with raw inputs. A scalar has the shape [1], as in Triton."""
    message = pb.ModelInferRequest(model_name=model)
    for name, array in inputs.items():
        message.inputs.add(name=name, datatype=NAME_BY_DTYPE[array.dtype], shape=array.shape or (1,))
        message.raw_input_contents.append(_raw(array))
    return message


def _raw(array):
    if array.dtype != np.dtype(object):
        return array.tobytes()
    texts = [text.encode() for text in array.reshape(-1).tolist()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def arrays(response):
    """The outputs of a response, by name."""
    return {
        output.name: _unpacked(raw, output.datatype).reshape(tuple(output.shape))
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def _unpacked(raw, datatype):
    if datatype != "BYTES":
        return np.frombuffer(raw, DTYPE_BY_NAME[datatype])
    texts, start = [], 0
    while start < len(raw):
        end = start + 4 + int.from_bytes(raw[start : start + 4], "little")
        texts.append(raw[start + 4 : end].decode())
        start = end
    return np.array(texts, object)
