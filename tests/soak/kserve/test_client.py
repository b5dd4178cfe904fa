"""InferenceGRPCClient of KServe: the six calls of the Open Inference Protocol, unchanged.

Not in CI: the package brings 500 MB (kubernetes, pandas) and 38 s of CPU to install; 112 s on a busy machine.
"""

import asyncio

import grpc
import numpy as np
import pytest
from onnx import TensorProto

from tests.heavy.tritonclient.conftest import serving, simulated
from tests.support import models

kserve = pytest.importorskip("kserve")
from kserve.errors import InvalidInput  # noqa: E402 - after the skip


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    models.save(models.add_sub(), root / "simple" / "1" / "model.onnx")
    models.save(models.identity(("batch", "n"), TensorProto.STRING), root / "strings" / "1" / "model.onnx")
    models.save(models.identity(("batch", 3), TensorProto.FLOAT16), root / "half" / "1" / "model.onnx")
    simulated(root, "slow", alpha_ms=200, max_batch_size=1)
    with serving(root) as address:
        yield address


def with_client(address, use):
    """Run `use(client)` on a separate loop; return its value."""

    async def run():
        client = kserve.InferenceGRPCClient(address)
        try:
            return await use(client)
        finally:
            await client.close()

    return asyncio.run(run())


def tensor(name, array, datatype, *, binary=True):
    value = kserve.InferInput(name, list(array.shape), datatype)
    value.set_data_from_numpy(array, binary_data=binary)
    return value


def request_of(model, *inputs, **fields):
    return kserve.InferRequest(model_name=model, infer_inputs=list(inputs), **fields)


def add_sub(*, binary, rows=2):
    first, second = np.arange(16 * rows, dtype=np.int32).reshape(rows, 16), np.ones((rows, 16), np.int32)
    return request_of(
        "simple",
        tensor("INPUT0", first, "INT32", binary=binary),
        tensor("INPUT1", second, "INT32", binary=binary),
        request_id="a7",
    )


def test_server_and_models_are_ready(address):
    assert with_client(address, lambda client: client.is_server_live())
    assert with_client(address, lambda client: client.is_server_ready())
    assert with_client(address, lambda client: client.is_model_ready("simple"))
    assert not with_client(address, lambda client: client.is_model_ready("nobody"))


@pytest.mark.parametrize("binary", [True, False], ids=["raw", "typed"])
def test_requests_are_answered(address, binary):
    response = with_client(address, lambda client: client.infer(add_sub(binary=binary)))
    assert (response.id, response.model_name) == ("a7", "simple")
    by_name = {output.name: output.as_numpy() for output in response.outputs}
    expected = np.arange(32, dtype=np.int32).reshape(2, 16)
    np.testing.assert_array_equal(by_name["OUTPUT0"], expected + 1)
    np.testing.assert_array_equal(by_name["OUTPUT1"], expected - 1)


def test_bytes_and_half_precision_travel_both_ways(address):
    words = np.array([["é".encode(), b""]], object)
    request = request_of("strings", tensor("x", words, "BYTES"))
    (output,) = with_client(address, lambda client: client.infer(request)).outputs
    assert [bytes(word) if isinstance(word, bytes) else word.encode() for word in output.as_numpy().ravel()] == [
        "é".encode(),
        b"",
    ]
    half = np.array([[0.5, -2.0, 65504.0]], np.float16)
    request = request_of("half", tensor("x", half, "FP16"))
    (output,) = with_client(address, lambda client: client.infer(request)).outputs
    np.testing.assert_array_equal(output.as_numpy(), half)


def test_what_is_wrong_with_a_request_is_told(address):
    request = request_of("simple", tensor("INPUT0", np.zeros((1, 16), np.int32), "INT32"))
    with pytest.raises((grpc.RpcError, InvalidInput)) as caught:
        with_client(address, lambda client: client.infer(request))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "expected 2 inputs but got 1 inputs for model 'simple'" in caught.value.details()


def test_a_timeout_of_the_client_ends_the_request(address):
    request = request_of("slow", tensor("input", np.zeros((1, 16), np.int32), "INT32"))
    with pytest.raises(grpc.RpcError) as caught:
        with_client(address, lambda client: client.infer(request, timeout=0.02))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert with_client(address, lambda client: client.infer(request)).outputs


def test_many_requests_at_once_are_answered(address):
    async def use(client):
        return await asyncio.gather(*(client.infer(add_sub(binary=True, rows=1 + n % 8)) for n in range(50)))

    responses = with_client(address, use)
    assert [response.outputs[0].shape[0] for response in responses] == [1 + n % 8 for n in range(50)]
