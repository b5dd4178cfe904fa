"""The null server's Open Inference service: answers every request at once with an empty response."""

from forebay.wire import inference_pb2 as wire

SERVICE = "inference.GRPCInferenceService"
_SHAPE = (-1, 3, 224, 224)


def metadata(data: bytes) -> bytes:
    """Answer ModelMetadata: one UINT8 input, for every model."""
    request = wire.ModelMetadataRequest.FromString(data)
    response = wire.ModelMetadataResponse(name=request.name, versions=["1"], platform="null")
    response.inputs.add(name="input", datatype="UINT8", shape=_SHAPE)
    return response.SerializeToString()


def infer(data: bytes) -> bytes:
    """Answer ModelInfer."""
    return _response(wire.ModelInferRequest.FromString(data)).SerializeToString()


def stream_infer(data: bytes, error_message: str = "") -> bytes:
    """Answer one request of ModelStreamInfer."""
    request = wire.ModelInferRequest.FromString(data)
    response = wire.ModelStreamInferResponse(infer_response=_response(request), error_message=error_message)
    return response.SerializeToString()


def _response(request: wire.ModelInferRequest) -> wire.ModelInferResponse:
    return wire.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
