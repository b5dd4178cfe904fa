"""Inference with tritonclient: sync, asynchronous, aio, streams, cancellation, timeouts, priority."""

import asyncio
import queue
import time

import numpy as np
import pytest

grpcclient = pytest.importorskip("tritonclient.grpc")
aioclient = pytest.importorskip("tritonclient.grpc.aio")
from tritonclient.utils import InferenceServerException  # noqa: E402 - after the skip

WAIT_S = 10.0


@pytest.fixture
def client(address):
    with grpcclient.InferenceServerClient(address) as client:
        yield client


def tensor(name, array, datatype="INT32"):
    value = grpcclient.InferInput(name, array.shape, datatype)
    value.set_data_from_numpy(array)
    return value


def add_sub_inputs(rows=1, seed=0):
    random = np.random.default_rng(seed)
    arrays = [random.integers(-1000, 1000, (rows, 16), np.int32) for _ in range(2)]
    return arrays, [tensor("INPUT0", arrays[0]), tensor("INPUT1", arrays[1])]


def copy_input(value, rows=1, name="input"):
    return [tensor(name, np.full((rows, 16), value, np.int32))]


class Callbacks:
    """The arguments of the callback of a stream or an asynchronous request."""

    def __init__(self):
        self._queue = queue.Queue()  # noqa: TID251 - tritonclient's own thread calls

    def __call__(self, result, error):
        self._queue.put((result, error))

    def take(self):
        return self._queue.get(timeout=WAIT_S)

    def ids(self, count):
        return [self.take()[0].get_response().id for _ in range(count)]


def test_the_server_says_who_it_is(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("simple")
    assert not client.is_model_ready("simple", "7")
    assert not client.is_model_ready("nobody")
    with pytest.raises(InferenceServerException, match="version should be an integral value > 0"):
        client.is_model_ready("simple", "first")
    assert client.get_server_metadata().name == "forebay"
    assert "binary_tensor_data" in client.get_server_metadata().extensions


def test_metadata_and_configuration_agree(client):
    metadata = client.get_model_metadata("simple", as_json=True)
    config = client.get_model_config("simple", as_json=True)["config"]
    assert [tensor["name"] for tensor in metadata["inputs"]] == [tensor["name"] for tensor in config["input"]]
    assert metadata["inputs"][0] == {"name": "INPUT0", "datatype": "INT32", "shape": ["-1", "16"]}
    assert config["max_batch_size"] == 8
    assert metadata["versions"] == ["1"]


@pytest.mark.parametrize("rows", [1, 2, 3, 8])
def test_requests_of_any_number_of_rows_are_answered(client, rows):
    (first, second), inputs = add_sub_inputs(rows)
    result = client.infer("simple", inputs, request_id=f"r{rows}")
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), first + second)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), first - second)
    assert result.get_response().id == f"r{rows}"
    assert result.get_response().model_version == "1"


def test_outputs_come_in_the_order_asked_for(client):
    _, inputs = add_sub_inputs()
    wanted = [grpcclient.InferRequestedOutput(name) for name in ("OUTPUT1", "OUTPUT0")]
    response = client.infer("simple", inputs, outputs=wanted).get_response()
    assert [output.name for output in response.outputs] == ["OUTPUT1", "OUTPUT0"]
    assert len(response.raw_output_contents) == 2


def test_classification_gives_the_best_classes(client):
    images = np.random.default_rng(1).normal(size=(2, 3, 16, 16)).astype(np.float32)
    inputs = [tensor("image", images, "FP32")]
    scores = client.infer("net", inputs).as_numpy("scores")
    wanted = [grpcclient.InferRequestedOutput("scores", class_count=3)]
    classes = client.infer("net", inputs, outputs=wanted).as_numpy("scores")
    assert classes.shape == (2, 3)
    for row, best in zip(scores, classes, strict=True):
        assert [int(text.split(b":")[1]) for text in best] == list(np.argsort(-row)[:3])


def test_asynchronous_requests_are_answered(client):
    callbacks = Callbacks()
    for number in range(20):
        client.async_infer("simple", add_sub_inputs(seed=number)[1], callbacks, request_id=str(number))
    assert sorted(callbacks.ids(20), key=int) == [str(number) for number in range(20)]


def test_an_asynchronous_request_can_be_cancelled(client):
    callbacks = Callbacks()
    call = client.async_infer("slow", copy_input(1), callbacks)
    call.cancel()
    _, error = callbacks.take()
    assert error.status() == "StatusCode.CANCELLED"
    np.testing.assert_array_equal(client.infer("slow", copy_input(2)).as_numpy("output"), np.full((1, 16), 2))


def test_a_client_timeout_ends_the_request(client):
    with pytest.raises(InferenceServerException) as caught:
        client.infer("slow", copy_input(1), client_timeout=0.02)
    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"


def test_a_queue_timeout_reads_as_triton_words_it(client):
    callbacks = Callbacks()
    for number in range(4):
        client.async_infer("slow", copy_input(number), callbacks)
    with pytest.raises(InferenceServerException, match="Request timeout expired") as caught:
        client.infer("slow", copy_input(9), timeout=20_000)
    assert caught.value.status() == "StatusCode.UNAVAILABLE"
    assert [callbacks.take()[1] for _ in range(4)] == [None] * 4


def test_the_more_urgent_request_goes_first(client):
    order = []
    callbacks = Callbacks()

    def note(name):
        def callback(result, error):
            order.append(name)
            callbacks(result, error)

        return callback

    for number in range(6):
        client.async_infer("levels", copy_input(number), note("late"), priority=2)
    time.sleep(0.02)  # noqa: TID251 - the urgent one is to come last
    client.async_infer("levels", copy_input(7), note("urgent"), priority=1)
    for _ in range(7):
        assert callbacks.take()[1] is None
    assert order.index("urgent") < 5


def test_what_a_model_refuses_is_an_internal_error_and_the_next_request_is_fine(client):
    with pytest.raises(InferenceServerException) as caught:
        client.infer("failing", [tensor("x", np.full((1, 4), 7, np.float32), "FP32")])
    assert caught.value.status() == "StatusCode.INTERNAL"
    result = client.infer("failing", [tensor("x", np.zeros((1, 4), np.float32), "FP32")])
    np.testing.assert_array_equal(result.as_numpy("y"), np.full((1, 4), 10))


def test_a_stream_answers_in_order(client):
    callbacks = Callbacks()
    client.start_stream(callbacks)
    for number in range(50):
        client.async_stream_infer("simple", add_sub_inputs(1 + number % 3, number)[1], request_id=str(number))
    assert callbacks.ids(50) == [str(number) for number in range(50)]
    client.stop_stream()


def test_a_slow_model_does_not_hold_up_a_fast_one_on_its_stream(client):
    callbacks = Callbacks()
    client.start_stream(callbacks)
    client.async_stream_infer("slow", copy_input(1), request_id="slow")
    client.async_stream_infer("fast", copy_input(2), request_id="fast")
    assert callbacks.ids(2) == ["fast", "slow"]
    client.stop_stream()


def test_an_error_names_its_request_and_the_stream_goes_on(client):
    callbacks = Callbacks()
    client.start_stream(callbacks)
    inputs = add_sub_inputs()[1]
    client.async_stream_infer("simple", inputs, request_id="a")
    client.async_stream_infer("simple", inputs[:1], request_id="wrong")
    client.async_stream_infer("simple", inputs, request_id="b")
    assert callbacks.take()[0].get_response().id == "a"
    _, error = callbacks.take()
    assert "[request id: wrong]" in str(error)
    assert callbacks.take()[0].get_response().id == "b"
    client.stop_stream()


def test_with_the_header_the_first_error_ends_the_stream_with_its_status(client):
    callbacks = Callbacks()
    client.start_stream(callbacks, headers={"triton_grpc_error": "true"})
    client.async_stream_infer("simple", add_sub_inputs()[1], request_id="a")
    client.async_stream_infer("simple", add_sub_inputs()[1][:1], request_id="b")
    assert callbacks.take()[0].get_response().id == "a"
    _, error = callbacks.take()
    assert error.status() == "StatusCode.INVALID_ARGUMENT"
    client.stop_stream()


def test_a_stream_can_be_cancelled(client):
    callbacks = Callbacks()
    client.start_stream(callbacks)
    for number in range(5):
        client.async_stream_infer("slow", copy_input(number), request_id=str(number))
    client.stop_stream(cancel_requests=True)
    np.testing.assert_array_equal(client.infer("slow", copy_input(2)).as_numpy("output"), np.full((1, 16), 2))


def test_the_aio_client_works(address):
    async def run():
        async with aioclient.InferenceServerClient(address) as client:
            results = await asyncio.gather(*(client.infer("simple", add_sub_inputs(seed=n)[1]) for n in range(10)))
            for number, result in enumerate(results):
                first, second = add_sub_inputs(seed=number)[0]
                np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), first + second)

            async def requests():
                for number in range(5):
                    yield {"model_name": "simple", "inputs": add_sub_inputs(seed=number)[1], "request_id": str(number)}

            ids = [result.get_response().id async for result, _ in client.stream_infer(requests())]
            assert ids == [str(number) for number in range(5)]

    asyncio.run(run())
