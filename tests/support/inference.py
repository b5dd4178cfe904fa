"""Requests of the Open Inference Protocol, built by hand so that anything can be wrong with them."""

import numpy as np

from forebay.wire import inference_pb2 as pb
from forebay.wire.inference_pb2_grpc import GRPCInferenceServiceStub

DATATYPE = {np.dtype(np.int32): "INT32", np.dtype(np.float32): "FP32", np.dtype(np.uint8): "UINT8"}


def stub_of(running):
    return GRPCInferenceServiceStub(running.channel)


def request_of(model, request_id="", outputs=(), parameters=None, version="", **arrays):
    """A request with raw inputs."""
    request = pb.ModelInferRequest(model_name=model, id=request_id, model_version=version)
    for name, array in arrays.items():
        request.inputs.add(name=name, datatype=DATATYPE[array.dtype], shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    for name in outputs:
        request.outputs.add(name=name)
    for key, value in (parameters or {}).items():
        set_parameter(request.parameters[key], value)
    return request


def set_parameter(parameter, value):
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    elif isinstance(value, float):
        parameter.double_param = value
    else:
        parameter.string_param = value


def array_of(response, name):
    """An output of a response as an array."""
    dtypes = {datatype: dtype for dtype, datatype in DATATYPE.items()}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        if output.name == name:
            return np.frombuffer(raw, dtypes[output.datatype]).reshape(tuple(output.shape))
    raise KeyError(name)


def add_sub_request(model="simple", rows=1, **fields):
    values = np.arange(rows * 16, dtype=np.int32).reshape(rows, 16)
    return request_of(model, INPUT0=values, INPUT1=np.ones_like(values), **fields)
