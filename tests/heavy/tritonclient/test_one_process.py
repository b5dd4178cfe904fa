"""tritonclient and Forebay's client in one process, on the newest protobuf 6: in either order of import."""

import subprocess
import sys

import pytest

from tests.support.repository import ROOT
from tests.support.wire_tests import run_wire_tests

pytest.importorskip("tritonclient.grpc")
IMPORTS = (
    "import tritonclient.grpc as triton",
    "from forebay.wire import inference_pb2, inference_pb2_grpc; import forebay",
)
BODY = """
import sys, grpc, numpy as np
address = sys.argv[1]
with triton.InferenceServerClient(address) as client:
    a = triton.InferInput("INPUT0", [1, 16], "INT32"); a.set_data_from_numpy(np.ones((1, 16), np.int32))
    b = triton.InferInput("INPUT1", [1, 16], "INT32"); b.set_data_from_numpy(np.ones((1, 16), np.int32))
    assert (client.infer("simple", [a, b]).as_numpy("OUTPUT0") == 2).all()
with grpc.insecure_channel(address) as channel:
    stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
    assert stub.ModelReady(inference_pb2.ModelReadyRequest(name="simple"), timeout=10).ready
with forebay.Client(address) as client, client.stream("door", model="fast", encoding="tensor") as stream:
    stream.send(np.arange(16, dtype=np.int32))
    assert stream.receive().status is forebay.Status.OK
"""


@pytest.mark.parametrize("imports", [IMPORTS, IMPORTS[::-1]], ids=["tritonclient-first", "forebay-first"])
def test_both_talk_to_the_server(address, imports):
    code = "\n".join([*imports, BODY])
    ended = subprocess.run([sys.executable, "-c", code, address], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_every_message_and_the_pool():
    code, said = run_wire_tests()
    assert code == 0, said
