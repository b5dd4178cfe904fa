"""CUDA shared memory between processes: another one owns the memory, this one reads and writes it by its handle.

Some containers forbid interprocess handles. So a third process first opens the handle with CUDA's own calls alone: if
it fails too, the machine is the cause, and the tests skip with CUDA's message.
"""

import asyncio
import subprocess
import sys

import numpy as np
import pytest

from forebay_server.engines import open_foreign_memory
from forebay_server.engines.errors import MisuseError

NBYTES = 4096
COMMON = """
import ctypes, sys
from cuda.bindings import runtime as cudart
def check(result, call):
    if int(result[0]) != 0:
        print(f"refused {call}: {result[0].name}", flush=True)
        sys.exit(0)
    return result[1] if len(result) == 2 else result[1:]
check(cudart.cudaSetDevice(0), "cudaSetDevice")
"""
OWNER = (
    COMMON
    + f"""
nbytes = {NBYTES}
memory = check(cudart.cudaMalloc(nbytes), "cudaMalloc")
host = (ctypes.c_uint8 * nbytes)(*[i % 251 for i in range(nbytes)])
kinds = cudart.cudaMemcpyKind
check(cudart.cudaMemcpy(memory, ctypes.addressof(host), nbytes, kinds.cudaMemcpyHostToDevice), "cudaMemcpy")
check(cudart.cudaDeviceSynchronize(), "cudaDeviceSynchronize")
handle = check(cudart.cudaIpcGetMemHandle(memory), "cudaIpcGetMemHandle")
print(ctypes.string_at(handle.getPtr(), 64).hex(), flush=True)
for line in sys.stdin:
    check(cudart.cudaMemcpy(ctypes.addressof(host), memory, nbytes, kinds.cudaMemcpyDeviceToHost), "cudaMemcpy")
    print(bytes(host).hex(), flush=True)
"""
)
PROBE = (
    COMMON
    + """
handle = cudart.cudaIpcMemHandle_t()
ctypes.memmove(handle.getPtr(), bytes.fromhex(sys.argv[1]), 64)
check(cudart.cudaIpcOpenMemHandle(handle, cudart.cudaIpcMemLazyEnablePeerAccess), "cudaIpcOpenMemHandle")
print("opened", flush=True)
"""
)


class Owner:
    """A process with 4 KiB on GPU 0; byte i is i % 251 at first."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        first = self.process.stdout.readline().strip()
        self.refusal = first if first.startswith("refused") or not first else ""
        self.handle = b"" if self.refusal or not first else bytes.fromhex(first)

    def bytes(self):
        """Its memory now."""
        self.process.stdin.write("show\n")
        self.process.stdin.flush()
        return bytes.fromhex(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


@pytest.fixture
def owner():
    owner = Owner()
    try:
        if not owner.handle:
            pytest.skip(f"another process cannot export device memory here: {owner.refusal or 'it ended'}")
        probe = subprocess.run(
            [sys.executable, "-c", PROBE, owner.handle.hex()], capture_output=True, text=True, timeout=120, check=False
        )
        if "opened" not in probe.stdout:
            pytest.skip(f"this machine or its container forbids CUDA's interprocess handles: {probe.stdout.strip()}")
        yield owner
    finally:
        owner.close()


def test_what_its_owner_wrote_is_read_and_what_is_written_its_owner_sees(owner):
    memory = open_foreign_memory("cuda", handle=owner.handle, index=0, nbytes=NBYTES)
    assert bytes(memory.read(0, NBYTES)) == bytes(i % 251 for i in range(NBYTES))
    assert bytes(memory.read(1000, 3)) == bytes(i % 251 for i in range(1000, 1003))
    memory.write(NBYTES - 5, b"hello")
    assert owner.bytes()[-5:] == b"hello"
    memory.close()


def test_nothing_beyond_the_allocation_is_ever_reached(owner):
    with pytest.raises(MisuseError, match="the allocation has"):
        open_foreign_memory("cuda", handle=owner.handle, index=0, nbytes=1 << 40)
    memory = open_foreign_memory("cuda", handle=owner.handle, index=0, nbytes=64)
    with pytest.raises(MisuseError):
        memory.read(60, 8)
    memory.close()


def test_the_same_memory_may_be_open_twice(owner):
    first, second = (open_foreign_memory("cuda", handle=owner.handle, index=0, nbytes=NBYTES) for _ in range(2))
    first.close()
    assert bytes(second.read(1, 1)) == b"\1"
    second.close()


def test_a_server_takes_inputs_from_it_and_puts_outputs_there(owner, tmp_path):
    rpc = pytest.importorskip(
        "tests.rpc.test_inference_cuda_memory", reason="what service needs is not installed", exc_type=ImportError
    )
    rpc.models.save(rpc.models.add_sub(), tmp_path / "simple" / "1" / "model.onnx")

    async def ask():
        async with rpc.real_server(tmp_path, allow_client_shm=True) as running:
            stub = rpc.stub_of(running)
            await rpc.register(stub, owner.handle, byte_size=NBYTES)
            return await stub.ModelInfer(rpc.shared_request())

    response = asyncio.run(asyncio.wait_for(ask(), 60))
    given = np.array([i % 251 for i in range(64, 128)], np.uint8).view(np.int32)
    assert rpc.array_of(response, "OUTPUT1").tolist() == [(7 - given).tolist()]
    assert np.frombuffer(owner.bytes()[128:192], np.int32).tolist() == (7 + given).tolist()
