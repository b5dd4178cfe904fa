"""Memory of another process on a GPU, over a stand-in for CUDA that tracks owners."""

import pytest

from forebay_server.engines import open_foreign_memory
from forebay_server.engines.errors import BackendUnavailableError, DeviceLostError, ExecutionError, MisuseError
from tests.support.fake_cudart import FakeCudart, cudaError_t, install, uninstall


@pytest.fixture
def runtime(monkeypatch):
    fake = FakeCudart(gpus=2)
    install(monkeypatch, fake)
    yield fake
    uninstall()
    assert fake.mapped == {}
    assert fake.open == set()


def opened(runtime, nbytes=100, capacity=100, device=0):
    handle = runtime.export(capacity, device)
    return runtime.exported[handle].bytes, open_foreign_memory("cuda", handle=handle, index=device, nbytes=nbytes)


@pytest.mark.parametrize("device", [0, 1])
def test_what_the_owner_wrote_is_read_and_what_is_written_the_owner_sees(runtime, device):
    owners, memory = opened(runtime, device=device)
    owners[10:14] = [1, 2, 3, 4]
    assert bytes(memory.read(10, 4)) == bytes([1, 2, 3, 4])
    memory.write(96, b"\5\6\7\10")
    assert bytes(owners)[96:] == b"\5\6\7\10"
    assert bytes(memory.read(100, 0)) == b""
    memory.write(100, b"")
    memory.close()


def test_what_was_read_stays_when_the_owner_writes_on(runtime):
    owners, memory = opened(runtime)
    read = memory.read(0, 1)
    owners[0] = 9
    assert bytes(read) == b"\0"
    memory.close()


@pytest.mark.parametrize(("offset", "nbytes"), [(0, 65), (64, 1), (-1, 2), (0, -1), (2**63, 1)])
def test_ranges_outside_the_region_are_refused_although_the_allocation_is_larger(runtime, offset, nbytes):
    _, memory = opened(runtime, nbytes=64, capacity=100)
    with pytest.raises(MisuseError):
        memory.read(offset, nbytes)
    with pytest.raises(MisuseError):
        memory.write(offset, bytes(max(0, nbytes)) if nbytes >= 0 else b"x" * 65)
    memory.close()


def test_a_region_larger_than_the_allocation_is_refused_and_closed_again(runtime):
    with pytest.raises(MisuseError, match="has 100 bytes, not 101"):
        opened(runtime, nbytes=101)


@pytest.mark.parametrize("handle", [b"", b"x" * 63, b"x" * 65, b"x" * 64])
def test_a_handle_that_is_none_is_refused(runtime, handle):
    with pytest.raises(MisuseError):
        open_foreign_memory("cuda", handle=handle, index=0, nbytes=1)


@pytest.mark.parametrize("index", [-1, 2, 1 << 40])
def test_a_gpu_that_is_not_there_is_refused(runtime, index):
    with pytest.raises(BackendUnavailableError, match=r"there is no GPU .* 0\.\.1"):
        open_foreign_memory("cuda", handle=runtime.export(1), index=index, nbytes=1)


def test_a_machine_without_a_driver_is_refused_with_advice(runtime):
    runtime.fail["cudaGetDeviceCount"] = cudaError_t.cudaErrorInsufficientDriver
    with pytest.raises(BackendUnavailableError, match="install driver"):
        open_foreign_memory("cuda", handle=b"x" * 64, index=0, nbytes=1)


def test_the_same_memory_may_be_open_twice(runtime):
    handle = runtime.export(8)
    first, second = (open_foreign_memory("cuda", handle=handle, index=0, nbytes=8) for _ in range(2))
    first.close()
    first.close()
    with pytest.raises(MisuseError, match="after close"):
        first.read(0, 1)
    second.write(0, b"x")
    second.close()


def test_an_error_of_a_copy_is_told_and_a_sticky_one_is_a_lost_device(runtime):
    _, memory = opened(runtime)
    runtime.fail["cudaMemcpyAsync"] = cudaError_t.cudaErrorStreamCaptureInvalidated
    with pytest.raises(ExecutionError):
        memory.read(0, 1)
    memory.read(0, 1)
    runtime.sticky = cudaError_t.cudaErrorIllegalAddress
    with pytest.raises(DeviceLostError):
        memory.read(0, 1)
    runtime.sticky = cudaError_t.cudaSuccess
    memory.close()


def test_when_there_is_no_stream_the_memory_is_closed_again(runtime):
    runtime.fail["cudaStreamCreateWithFlags"] = cudaError_t.cudaErrorMemoryAllocation
    with pytest.raises(Exception, match="cudaStreamCreateWithFlags"):
        opened(runtime)
