"""Search for the message that costs the event loop most: every RPC, every field of its request, filled in every way.

About 1,500 messages of 15 MiB; none may cost more than 5 ms beyond the hand-over by gRPC. That takes two to five
minutes, so all of them are sent as a soak test, and otherwise every fourth: another quarter to each call.
"""

import itertools

import pytest

from forebay.wire import frames_pb2, health_pb2, inference_pb2, reflection_pb2
from tests.support import worst_messages
from tests.support.loop_time import Limit, metered_server
from tests.support.real_server import open_message

pytestmark = pytest.mark.alone

NBYTES = 15 << 20
SERVICES = [
    health_pb2.DESCRIPTOR.services_by_name["Health"],
    inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
    frames_pb2.DESCRIPTOR.services_by_name["FrameInference"],
    reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
]
METHODS = [pytest.param(service, method, id=method.name) for service in SERVICES for method in service.methods]
EVERY = pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.soak)])
OPEN = frames_pb2.ClientMessage(open=open_message()).SerializeToString()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    worst_messages.save_models(root)
    with metered_server(root, model_control_mode="explicit", load_model=("*",), reflection=True) as server:
        yield server


@pytest.fixture(scope="module")
def limit(server):
    return Limit(server)


def assert_cheap(limit, messages, cost):
    """Check that no message exceeds its cost limit; report all that do."""
    costs = {}
    for name, message in messages:
        costs[name] = limit.excess_s(lambda message=message: cost(message), NBYTES)
    assert costs
    assert not {name: f"{excess_s * 1e3:.1f} ms too much" for name, excess_s in costs.items() if excess_s > 0}


def some(messages, first, every):
    """Every so manieth of the messages."""
    return itertools.islice(messages, first % every, None, every)


@EVERY
@pytest.mark.parametrize(("service", "method"), METHODS)
def test_no_request_costs_the_event_loop_more_than_5_ms(server, limit, service, method, every):
    path = f"/{service.full_name}/{method.name}"
    messages = worst_messages.of_message(method.input_type, NBYTES)
    assert_cheap(limit, some(messages, method.index, every), lambda message: server.cost_s(path, message))


@EVERY
def test_no_message_on_an_open_stream_of_frames_costs_more(server, limit, every):
    messages = worst_messages.of_message(frames_pb2.ClientMessage.DESCRIPTOR, NBYTES)
    assert_cheap(limit, some(messages, 0, every), lambda message: server.cost_of_frame_s(OPEN, message))


@EVERY
@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_no_right_request_costs_more(server, limit, method, every):
    messages = worst_messages.of_inference(NBYTES)
    path = f"/inference.GRPCInferenceService/{method}"
    assert_cheap(limit, some(messages, len(method), every), lambda message: server.cost_s(path, message))
