"""Calls of the Open Inference Protocol: inference alone and in streams, and every other RPC, with changed requests."""

import contextlib

import grpc
import numpy as np
from google.protobuf import message_factory
from google.protobuf.message import DecodeError

from forebay.wire import inference_pb2 as pb
from tests.support.fuzz.frames import REFUSALS, check_words
from tests.support.fuzz.mutation import mutate, mutate_bytes
from tests.support.inference import request_of

SERVICE = "inference.GRPCInferenceService"
METHODS = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
INFERENCE = ("ModelInfer", "ModelStreamInfer")
CODES = REFUSALS | {
    grpc.StatusCode.OK,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.UNAVAILABLE,  # as Triton says that a timeout ran out, or that models are not loaded by clients
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.PERMISSION_DENIED,
}
TOO_SMALL = "bytes to hold the results"  # Triton says INTERNAL of a region that is too small for an output
AT_ONCE = 32
KEEP_QUIET = ("TraceSetting", "LogSettings")  # settings of the server: asked, not changed


def infer_request(rng):
    """Return an inference request for the simulated model as bytes; two in three are changed."""
    rows = np.full((rng.randint(1, 4), 64), rng.randrange(256), np.uint8)
    request = request_of("sim", str(rng.randrange(99)), input=rows)
    if rng.random() < 0.66:
        mutate(request, rng, rng.randint(1, 4))
    data = request.SerializeToString()
    return mutate_bytes(data, rng, 2) if rng.random() < 0.02 else data


def unary(channel, rng, count):
    """Inference calls, some at once; each is answered or refused with a reason."""
    call = channel.unary_unary(f"/{SERVICE}/ModelInfer")
    requests = [infer_request(rng) for _ in range(count)]
    sent = sent_by(requests)
    for start in range(0, count, AT_ONCE):
        some = requests[start : start + AT_ONCE]
        for data, answer in zip(some, [call.future(each) for each in some], strict=True):
            if answer.code() is grpc.StatusCode.OK:
                check_response(pb.ModelInferResponse.FromString(answer.result()), sent)
            else:
                check_refusal(answer.code(), answer.details(), data)


def sent_by(requests):
    """All tensors of some requests: answers can contain nothing else."""
    tensors = set()
    for data in requests:
        with contextlib.suppress(DecodeError):
            request = pb.ModelInferRequest.FromString(data)
            tensors.update(request.raw_input_contents)
            tensors.update(bytes(n & 255 for n in each.contents.uint_contents) for each in request.inputs)
    return tensors


def check_response(response, sent):
    """No client gets bytes that it has not sent."""
    assert len(response.raw_output_contents) == len(response.outputs) or not response.raw_output_contents
    for raw in response.raw_output_contents:
        assert raw in sent, "memory that is not the client's own"


def check_refusal(code, words, data):
    """The code is one of the client's doing, and the words give nothing away."""
    assert code in CODES or (code is grpc.StatusCode.INTERNAL and TOO_SMALL in words), (code, words, data[:300])
    check_words(words, data)


def stream(channel, rng, count):
    """One stream of inference: a response for every request that protobuf can read, up to its end."""
    requests = [infer_request(rng) for _ in range(count)]
    sent = sent_by(requests)
    call = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(iter(requests))
    answers = 0
    try:
        for data in call:
            answers += 1
            response = pb.ModelStreamInferResponse.FromString(data)
            check_words(response.error_message, data)
            check_response(response.infer_response, sent)
    except grpc.RpcError:
        pass  # the code says it
    if call.code() is grpc.StatusCode.OK:
        assert answers >= count, (answers, count)
    else:
        check_refusal(call.code(), call.details(), b"")


def control(channel, rng, count):
    """Every RPC that is no inference, with requests of any content."""
    names = [name for name in METHODS if name not in INFERENCE]
    for _ in range(count):
        name = rng.choice(names)
        request = message_factory.GetMessageClass(METHODS[name].input_type)()
        if name not in KEEP_QUIET:
            mutate(request, rng, rng.randint(0, 4))
        data = request.SerializeToString()
        answer = channel.unary_unary(f"/{SERVICE}/{name}").future(data)
        if answer.code() is not grpc.StatusCode.OK:
            check_refusal(answer.code(), answer.details(), data)
