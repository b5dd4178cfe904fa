"""Every call but inference takes short messages only, and refuses others before it parses."""

import grpc
import pytest

from forebay.wire import health_pb2, inference_pb2
from forebay_server.service.frontend.messages import MAX_PARSED_BYTES
from tests.support.loops import on_loop
from tests.support.real_server import real_server, simulated

LARGE = frozenset(("ModelInfer", "ModelStreamInfer"))
UNREAD = b"\x82\x7d" + b"\x80\x80\x08" + bytes(1 << 17)  # field 2000, which no message has
MANY = b"\x80\x7d\x00" * MAX_PARSED_BYTES  # the same, again and again
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]


def calls(channel):
    """Yield the name and a callable from bytes for every call that has a request to read, and takes one message."""
    for service in (INFERENCE, HEALTH):
        for method in service.methods:
            if method.input_type.fields and method.name not in LARGE:
                make = channel.unary_stream if method.server_streaming else channel.unary_unary
                yield method.name, make(f"/{service.full_name}/{method.name}")


@on_loop
async def test_a_call_that_needs_few_bytes_takes_no_more(tmp_path):
    names = []
    async with real_server(simulated(tmp_path), model_control_mode="explicit") as running:
        for name, call in calls(running.channel):
            names.append(name)
            if name == "RepositoryModelLoad":  # takes the messages of Triton's clients, files included
                continue
            answer = call(UNREAD)
            assert await answer.code() is grpc.StatusCode.INVALID_ARGUMENT, name
            assert f"has {len(UNREAD)} bytes" in await answer.details()
    assert len(names) >= 15


@on_loop
async def test_a_call_that_takes_many_bytes_takes_them_in_few_fields(tmp_path):
    async with real_server(simulated(tmp_path), model_control_mode="explicit") as running:
        load = running.channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelLoad")
        answer = load(MANY)
        assert await answer.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "in 1024 fields" in await answer.details()
        request = inference_pb2.RepositoryModelLoadRequest(model_name="sim")
        request.parameters["config"].string_param = " " * (1 << 17)
        assert "may have 65536 bytes, not counting" in await load(request.SerializeToString()).details()
        request.ClearField("parameters")
        request.parameters["file:1/model.onnx"].bytes_param = bytes(1 << 17)
        assert "not counting" not in await load(request.SerializeToString()).details()


@pytest.mark.parametrize("size", [0, 1000])
@on_loop
async def test_unknown_fields_of_a_short_request_are_passed_over(tmp_path, size):
    async with real_server(simulated(tmp_path)) as running:
        live = running.channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        assert await live(b"\x80\x7d\x00" * size) == b"\x08\x01"
