"""The rest of tritonclient: repository, statistics, shared memory, BYTES, settings, sequences, many models, wire."""

import base64
import json
import subprocess
import threading

import numpy as np
import pytest

from tests.heavy.tritonclient.conftest import SERVER_PYTHON, serving, simulated
from tests.support import models
from tests.support.repository import ROOT

grpcclient = pytest.importorskip("tritonclient.grpc")
from tritonclient.utils import InferenceServerException, np_to_triton_dtype  # noqa: E402 - after the skip


def tensor(name, array):
    value = grpcclient.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    value.set_data_from_numpy(array)
    return value


def add_sub_inputs(value=1):
    return [tensor("INPUT0", np.full((1, 16), value, np.int32)), tensor("INPUT1", np.ones((1, 16), np.int32))]


def test_models_are_loaded_and_unloaded(tmp_path):
    models.save(models.add_sub(), tmp_path / "simple" / "1" / "model.onnx")
    with (
        serving(tmp_path, model_control_mode="explicit") as address,
        grpcclient.InferenceServerClient(address) as client,
    ):
        assert [model.name for model in client.get_model_repository_index().models] == ["simple"]
        assert not client.is_model_ready("simple")
        client.load_model("simple")
        assert client.is_model_ready("simple")
        client.load_model("simple", config=json.dumps({"max_batch_size": 2, "backend": "onnxruntime"}))
        assert client.get_model_config("simple").config.max_batch_size == 2
        with pytest.raises(InferenceServerException, match="files cannot be sent"):
            client.load_model("simple", config="{}", files={"file:1/model.onnx": b"x"})
        (tmp_path / "broken" / "1").mkdir(parents=True)
        (tmp_path / "broken" / "1" / "model.onnx").write_bytes(b"no model")
        with pytest.raises(InferenceServerException, match="load failed for model 'broken': "):
            client.load_model("broken")
        with pytest.raises(InferenceServerException, match="model version is not available for model 'simple'"):
            client.get_inference_statistics("simple", "7")
        client.unload_model("simple")
        assert not client.is_model_ready("simple")
        with pytest.raises(InferenceServerException, match="requested model 'simple' is not available"):
            client.get_inference_statistics("simple")
        with pytest.raises(InferenceServerException, match="has no available versions"):
            client.infer("simple", add_sub_inputs())
        with pytest.raises(
            InferenceServerException, match="failed to load 'nobody', failed to poll from model repository"
        ):
            client.load_model("nobody")


def test_a_model_is_sent_with_its_load(tmp_path):
    models.save(models.identity(("batch", 4)), tmp_path / "simple" / "3" / "model.onnx")
    content = models.add_sub().SerializeToString()
    settings = {"model_control_mode": "explicit", "load_model": "simple", "allow_model_files": "true"}
    with serving(tmp_path, **settings) as address, grpcclient.InferenceServerClient(address) as client:
        files = {"file:1/model.onnx": content}
        with pytest.raises(InferenceServerException, match="failed to poll from model repository"):
            client.load_model("simple", files=files)
        assert client.is_model_ready("simple", "3")
        for name in ("other", "simple"):
            client.load_model(name, config=json.dumps({"backend": "onnxruntime"}), files=files)
            assert client.is_model_ready(name, "1")
            assert client.infer(name, add_sub_inputs(4)).as_numpy("OUTPUT0")[0, 0] == 5
        client.load_model("simple")
        assert client.is_model_ready("simple", "3")


def test_two_hundred_reloads_under_load_lose_nothing(tmp_path):
    models.save(models.add_sub(), tmp_path / "simple" / "1" / "model.onnx")
    failures, answers = [], []
    is_done = threading.Event()

    def keep_asking(address):
        with grpcclient.InferenceServerClient(address) as client:
            while not is_done.is_set():
                try:
                    result = client.infer("simple", add_sub_inputs(len(answers) % 100))
                    answers.append(result.as_numpy("OUTPUT0")[0, 0])
                except InferenceServerException as error:
                    failures.append(error)

    with (
        # The test is about the switch; a rehearsal before each load would take minutes.
        serving(tmp_path, model_control_mode="explicit", load_model="simple", rehearse_loads="false") as address,
        grpcclient.InferenceServerClient(address) as client,
    ):
        clients = [threading.Thread(target=keep_asking, args=(address,)) for _ in range(3)]
        for thread in clients:
            thread.start()
        for _ in range(200):
            client.load_model("simple")
        is_done.set()
        for thread in clients:
            thread.join()
    assert not failures
    assert len(answers) > 100


def test_fifty_models_are_served_at_once(tmp_path):
    for number in range(50):
        simulated(tmp_path, f"model{number}")
    with serving(tmp_path, permits=16) as address, grpcclient.InferenceServerClient(address) as client:
        for number in range(50):
            result = client.infer(f"model{number}", [tensor("input", np.full((1, 16), number, np.int32))])
            np.testing.assert_array_equal(result.as_numpy("output"), np.full((1, 16), number))


def test_statistics_grow_with_requests(address):
    with grpcclient.InferenceServerClient(address) as client:
        before = client.get_inference_statistics("simple").model_stats[0].inference_count
        client.infer("simple", add_sub_inputs())
        stats = client.get_inference_statistics("simple").model_stats[0]
        assert stats.inference_count == before + 1
        assert stats.inference_stats.success.count >= 1
        assert len(client.get_inference_statistics().model_stats) > 3


def test_bytes_travel_both_ways(tmp_path):
    model = models.identity(("batch", "n"), models.TensorProto.STRING)
    models.save(model, tmp_path / "strings" / "1" / "model.onnx")
    with serving(tmp_path) as address, grpcclient.InferenceServerClient(address) as client:
        values = np.array([["é".encode(), b"a\0b"], [b"", b"x" * 1000]], object)
        np.testing.assert_array_equal(client.infer("strings", [tensor("x", values)]).as_numpy("y"), values)


def test_system_shared_memory(tmp_path):
    from tritonclient.utils import shared_memory

    models.save(models.add_sub(), tmp_path / "simple" / "1" / "model.onnx")
    with (
        serving(tmp_path, allow_client_shm="true") as address,
        grpcclient.InferenceServerClient(address) as client,
    ):
        client.unregister_system_shared_memory()
        region = shared_memory.create_shared_memory_region("in_out", "/forebay-heavy-test", 192)
        try:
            shared_memory.set_shared_memory_region(region, [np.full((1, 16), 5, np.int32), np.ones((1, 16), np.int32)])
            client.register_system_shared_memory("in_out", "/forebay-heavy-test", 192)
            inputs = [grpcclient.InferInput(name, (1, 16), "INT32") for name in ("INPUT0", "INPUT1")]
            inputs[0].set_shared_memory("in_out", 64, 0)
            inputs[1].set_shared_memory("in_out", 64, 64)
            outputs = [grpcclient.InferRequestedOutput("OUTPUT0"), grpcclient.InferRequestedOutput("OUTPUT1")]
            outputs[0].set_shared_memory("in_out", 64, 128)
            result = client.infer("simple", inputs, outputs=outputs)
            np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), np.full((1, 16), 4))
            got = shared_memory.get_contents_as_numpy(region, np.int32, (1, 16), 128)
            np.testing.assert_array_equal(got, np.full((1, 16), 6))
            assert list(client.get_system_shared_memory_status().regions) == ["in_out"]
            for register_offset, byte_size in ((0, 193), (1, 192), (192, 1), (193, 0)):
                with pytest.raises(
                    InferenceServerException, match=r"failed to register shared memory region.*invalid args"
                ):
                    client.register_system_shared_memory("x", "/forebay-heavy-test", byte_size, register_offset)
            reserved = "triton_python_backend_shm_region_x"
            with pytest.raises(InferenceServerException, match=f"with key '{reserved}' as the key contains"):
                client.register_system_shared_memory("x", reserved, 64)
            outputs[0].set_shared_memory("in_out", 64, 192)
            with pytest.raises(InferenceServerException, match="Invalid offset for shared memory region: 'in_out'"):
                client.infer("simple", inputs, outputs=outputs)
            outputs[0].set_shared_memory("in_out", 64, 129)
            with pytest.raises(InferenceServerException, match=r"Invalid offset \+ byte size for shared memory region"):
                client.infer("simple", inputs, outputs=outputs)
            outputs[0].set_shared_memory("in_out", 64, 128)
            options = [("grpc.use_local_subchannel_pool", 1)]
            with grpcclient.InferenceServerClient(address, channel_args=options) as second:  # another connection
                second.infer("simple", inputs, outputs=outputs)
                second.unregister_system_shared_memory("in_out")
            assert not client.get_system_shared_memory_status().regions
            with pytest.raises(InferenceServerException, match="Unable to find system shared memory region: 'in_out'"):
                client.get_system_shared_memory_status("in_out")
        finally:
            shared_memory.destroy_shared_memory_region(region)


def test_cuda_shared_memory_of_nobody_is_refused(tmp_path):
    """With one: tests/gpu/test_cuda_memory.py."""
    models.save(models.add_sub(), tmp_path / "simple" / "1" / "model.onnx")
    with (
        serving(tmp_path, allow_client_shm="true") as address,
        grpcclient.InferenceServerClient(address) as client,
    ):
        client.unregister_cuda_shared_memory()
        assert not client.get_cuda_shared_memory_status().regions
        handle = base64.b64encode(bytes(64))  # as cuda_shared_memory.get_raw_handle gives it
        with pytest.raises(InferenceServerException, match="failed to register CUDA shared memory region: 'region'"):
            client.register_cuda_shared_memory("region", handle, 0, 64)


def test_the_unix_socket_speaks_both_protocols(tmp_path):
    models.save(models.add_sub(), tmp_path / "models" / "simple" / "1" / "model.onnx")
    socket = tmp_path / "s.sock"
    with serving(tmp_path / "models", uds=socket), grpcclient.InferenceServerClient(f"unix:{socket}") as client:
        assert client.infer("simple", add_sub_inputs()).as_numpy("OUTPUT0")[0, 0] == 2


def test_settings_are_readable(address):
    with grpcclient.InferenceServerClient(address) as client:
        assert client.get_trace_settings(as_json=True)["settings"]["trace_level"]["value"] == ["OFF"]
        assert client.get_trace_settings("simple", as_json=True)["settings"]["trace_level"]["value"] == ["OFF"]
        client.update_trace_settings("simple", {"trace_rate": None})  # back to the default
        for changes, level in (({"log_verbose_level": 1}, 1), ({"log_verbose_level": 0, "log_info": True}, 0)):
            settings = client.update_log_settings(changes).settings
            assert (settings["log_info"].bool_param, settings["log_verbose_level"].uint32_param) == (True, level)
        with pytest.raises(
            InferenceServerException, match="log file location can not be updated through network protocol"
        ):
            client.update_log_settings({"log_file": "somewhere"})


def test_a_restricted_call_is_let_through_with_its_header(tmp_path):
    models.save(models.add_sub(), tmp_path / "simple" / "1" / "model.onnx")
    restricted = "model-repository,model-config:admin=s3cret"
    with (
        serving(tmp_path, restricted_protocol=restricted) as address,
        grpcclient.InferenceServerClient(address) as client,
    ):
        with pytest.raises(InferenceServerException, match="expecting header 'triton-grpc-protocol-admin'"):
            client.get_model_config("simple")
        headers = {"triton-grpc-protocol-admin": "s3cret"}
        assert client.get_model_config("simple", headers=headers).config.name == "simple"
        assert [model.name for model in client.get_model_repository_index(headers=headers).models] == ["simple"]
        assert client.infer("simple", add_sub_inputs()).as_numpy("OUTPUT0")[0, 0] == 2


def test_outputs_of_a_stream_may_lie_in_shared_memory(tmp_path):
    from tritonclient.utils import shared_memory

    models.save(models.add_sub(), tmp_path / "simple" / "1" / "model.onnx")
    with (
        serving(tmp_path, allow_client_shm="true") as address,
        grpcclient.InferenceServerClient(address) as client,
    ):
        region = shared_memory.create_shared_memory_region("out", "/forebay-heavy-stream", 64 * 8)
        answered = threading.Semaphore(0)
        errors = []

        def callback(result, error):
            errors.append(error)
            answered.release()

        try:
            client.register_system_shared_memory("out", "/forebay-heavy-stream", 64 * 8)
            client.start_stream(callback)
            for number in range(8):
                wanted = grpcclient.InferRequestedOutput("OUTPUT0")
                wanted.set_shared_memory("out", 64, 64 * number)
                client.async_stream_infer("simple", add_sub_inputs(number), outputs=[wanted], request_id=str(number))
            for _ in range(8):
                assert answered.acquire(timeout=10)
            client.stop_stream()
            got = shared_memory.get_contents_as_numpy(region, np.int32, (8, 16), 0)
            np.testing.assert_array_equal(got, np.arange(1, 9, dtype=np.int32)[:, np.newaxis] * np.ones(16, np.int32))
            assert errors == [None] * 8
        finally:
            shared_memory.destroy_shared_memory_region(region)


def test_sequences_and_own_parameters_are_taken(address):
    with grpcclient.InferenceServerClient(address) as client:
        result = client.infer(
            "simple",
            add_sub_inputs(),
            sequence_id="camera-1",
            sequence_start=True,
            priority=0,
            parameters={"latency_budget_ms": 5000, "delivery": "every", "my_own": "x"},
        )
        assert result.as_numpy("OUTPUT0")[0, 0] == 2


PRINT_WIRE = """
import json, sys
from forebay.wire import inference_pb2
json.dump(sorted(describe(inference_pb2.DESCRIPTOR)), sys.stdout)
"""


def describe(file):
    """Every field of every message: (message, number, name, type, label)."""
    waiting = list(file.message_types_by_name.values())
    fields = []
    while waiting:
        message = waiting.pop()
        waiting += message.nested_types
        fields += [[message.full_name, field.number, field.name, field.type] for field in message.fields]
    return fields + [
        [service.full_name, method.name, method.input_type.full_name, method.output_type.full_name]
        for service in file.services_by_name.values()
        for method in service.methods
    ]


def test_the_wire_is_that_of_the_client():
    import inspect

    from tritonclient.grpc import model_config_pb2, service_pb2

    for ours, theirs in (("inference_pb2", service_pb2), ("model_config_pb2", model_config_pb2)):
        script = inspect.getsource(describe) + PRINT_WIRE.replace("inference_pb2", ours)
        process = subprocess.run([SERVER_PYTHON, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True)
        our_fields = {tuple(field) for field in json.loads(process.stdout)}
        their_fields = {tuple(field) for field in describe(theirs.DESCRIPTOR)}
        assert their_fields - our_fields == set()
        assert our_fields - their_fields == set()
