"""The unix socket: both protocols on it, and shared memory beside it."""

import uuid
from pathlib import Path

import grpc
import numpy as np

from forebay.wire import inference_pb2 as pb
from forebay.wire.inference_pb2_grpc import GRPCInferenceServiceStub
from tests.support.inference import array_of, request_of
from tests.support.loops import on_loop
from tests.support.real_server import ROW_BYTES, RawStream, real_server, row, simulated

SHM = Path("/dev/shm")  # noqa: S108 - the folder of shm_open


@on_loop
async def test_both_protocols_are_spoken_on_the_unix_socket(tmp_path):
    simulated(tmp_path / "models")
    key = SHM / f"forebay-test-{uuid.uuid4().hex}"
    key.write_bytes(bytes(ROW_BYTES))
    socket = tmp_path / "s.sock"
    try:
        async with (
            real_server(tmp_path / "models", uds=socket, allow_client_shm=True) as running,
            grpc.aio.insecure_channel(f"unix:{socket}") as channel,
        ):
            await _speak_open_inference(GRPCInferenceServiceStub(channel), key)
            frames = RawStream(channel)
            await frames.send_open()
            assert (await frames.receive()).opened.model_version == "1"
            await frames.send(1)
            (result,) = await frames.results(1)
            assert result.tensors[0].data == row(1)
            await frames.half_close()
            assert await frames.receive() is None
            assert running.ready.uds == str(socket)
    finally:
        key.unlink()


async def _speak_open_inference(stub, key):
    values = np.arange(ROW_BYTES, dtype=np.uint8).reshape(1, -1)
    response = await stub.ModelInfer(request_of("sim", input=values))
    np.testing.assert_array_equal(array_of(response, "output"), values)

    call = stub.ModelStreamInfer()
    await call.write(request_of("sim", input=values, request_id="7"))
    assert (await call.read()).infer_response.id == "7"
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF

    await stub.SystemSharedMemoryRegister(
        pb.SystemSharedMemoryRegisterRequest(name="r", key=key.name, byte_size=ROW_BYTES)
    )
    shared = request_of("sim", input=values, outputs=["output"])
    shared.outputs[0].parameters["shared_memory_region"].string_param = "r"
    shared.outputs[0].parameters["shared_memory_byte_size"].int64_param = ROW_BYTES
    assert (await stub.ModelInfer(shared)).raw_output_contents[0] == b""
    assert key.read_bytes() == values.tobytes()
