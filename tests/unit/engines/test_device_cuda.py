"""The CUDA device over a stand-in for the runtime: the whole device contract, and a GPU's errors."""

import mmap
from concurrent.futures import ThreadPoolExecutor

import pytest

from forebay_server.engines import open_device
from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.device import StreamPriority
from forebay_server.engines.errors import (
    BackendUnavailableError,
    DeviceLostError,
    DeviceMemoryError,
    ExecutionError,
    MisuseError,
)
from tests.contract.test_device import *  # noqa: F403 - the contract suite, on the fixtures below
from tests.support.fake_cudart import FakeCudart, cudaError_t, install, uninstall
from tests.support.rig import rig_of


@pytest.fixture
def runtime(monkeypatch):
    fake = FakeCudart()
    install(monkeypatch, fake)
    yield fake
    uninstall()


def open_cuda(index=0):
    return open_device("cuda", clock=MonotonicClock(), index=index)


@pytest.fixture
def rig(runtime):
    with rig_of(open_cuda()) as rig:
        yield rig
    assert runtime.memory == {}
    assert runtime.open == set()


@pytest.fixture
def other(rig, runtime):
    runtime.gpus = 2
    with rig_of(open_cuda(1)) as other:
        yield other
        other.device.attach_thread()
    rig.device.attach_thread()


@pytest.mark.parametrize(
    ("code", "advice"),
    [(cudaError_t.cudaErrorInsufficientDriver, "install driver"), (cudaError_t.cudaErrorNoDevice, "nvidia-smi")],
)
def test_a_machine_without_a_usable_gpu_is_refused_with_one_line_of_advice(runtime, code, advice):
    runtime.fail["cudaGetDeviceCount"] = code
    with pytest.raises(BackendUnavailableError, match=advice) as caught:
        open_cuda()
    assert "\n" not in str(caught.value)


def test_a_gpu_that_is_not_there_is_refused(runtime):
    with pytest.raises(BackendUnavailableError, match="no GPU 1: this machine has 1 GPU, number 0"):
        open_cuda(index=1)
    runtime.gpus = 3
    with pytest.raises(BackendUnavailableError, match="no GPU 3: this machine has 3 GPUs, numbers 0 to 2"):
        open_cuda(index=3)


def test_a_failed_copy_is_an_execution_error_and_the_device_stays_usable(rig, runtime):
    host, middle, stream = rig.host(8), rig.on_device(8), rig.stream()
    runtime.fail["cudaMemcpyAsync"] = cudaError_t.cudaErrorStreamCaptureInvalidated
    with pytest.raises(ExecutionError, match="cudaMemcpyAsync"):
        stream.copy_h2d(middle, host, 8)
    stream.copy_h2d(middle, host, 8)
    rig.device.raise_if_lost()


def test_many_uploads_are_one_call(rig, runtime):
    host, middle, stream = rig.host(8), rig.on_device(8), rig.stream()
    runtime.fail["cudaMemcpyAsync"] = cudaError_t.cudaErrorStreamCaptureInvalidated  # waits for a single copy
    stream.gather_h2d(middle, [(host, 4, 4), (host, 0, 4)])
    runtime.fail["cudaMemcpyBatchAsync"] = cudaError_t.cudaErrorStreamCaptureInvalidated
    with pytest.raises(ExecutionError, match="cudaMemcpyBatchAsync"):
        stream.gather_h2d(middle, [(host, 4, 4), (host, 0, 4)])
    with pytest.raises(ExecutionError, match="cudaMemcpyAsync"):
        stream.gather_h2d(middle, [(host, 0, 4)])


def test_an_older_driver_gets_a_call_for_each_upload(runtime):
    runtime.driver_version = 12080
    with rig_of(open_cuda()) as rig:
        host, middle, target, stream = rig.host(8), rig.on_device(8), rig.host(8), rig.stream()
        host.write_view()[:] = range(8)
        runtime.fail["cudaMemcpyBatchAsync"] = cudaError_t.cudaErrorInvalidValue
        stream.gather_h2d(middle, [(host, 4, 4), (host, 0, 4)])
        stream.copy_d2h(target, middle, 8)
        assert target.read_view().tolist() == [4, 5, 6, 7, 0, 1, 2, 3]


def test_a_sticky_error_is_a_lost_device_for_every_later_call(runtime):
    device = open_cuda()
    host, middle, stream, event = (
        device.alloc_host(8),
        device.alloc_device(8),
        device.create_stream("s"),
        device.create_event(),
    )
    stream.record(event)
    runtime.sticky = cudaError_t.cudaErrorIllegalAddress
    uses = (
        event.sync,
        stream.sync,
        lambda: event.is_done,
        lambda: stream.record(event),
        lambda: stream.copy_h2d(middle, host, 8),
        device.raise_if_lost,
        device.attach_thread,
    )
    for use in uses:
        with pytest.raises(DeviceLostError, match="cudaErrorIllegalAddress"):
            use()
    for thing in (host, middle, stream, event):
        thing.close()


def test_memory_that_does_not_fit_is_refused_before_it_is_asked_for(rig, runtime):
    runtime.free_bytes = 300 << 20
    with pytest.raises(DeviceMemoryError, match=r"300 MiB free.*fewer instances"):
        rig.device.alloc_device(100 << 20)
    assert rig.device.allocated.device_bytes == 0


def test_memory_is_that_of_its_own_gpu_whichever_thread_asks(runtime):
    runtime.gpus, runtime.free_bytes_of = 2, {0: 1 << 29, 1: 1 << 28}
    device = open_cuda(index=1)
    open_cuda(index=0)
    with ThreadPoolExecutor(1) as pool:
        found = [device.memory(), pool.submit(device.memory).result()]
    assert [(memory.used_bytes, memory.total_bytes) for memory in found] == [((1 << 30) - (1 << 28), 1 << 30)] * 2
    assert device.free_bytes() == 1 << 28


@pytest.mark.parametrize("call", ["cudaMalloc", "cudaHostAlloc"])
def test_memory_that_the_driver_refuses_is_refused_with_advice(rig, runtime, call):
    runtime.fail[call] = cudaError_t.cudaErrorMemoryAllocation
    allocate = rig.device.alloc_device if call == "cudaMalloc" else rig.device.alloc_host
    with pytest.raises(DeviceMemoryError, match="fewer"):
        allocate(1 << 20)


def test_the_account_follows_what_is_allocated_and_freed(rig):
    host, middle = rig.host(1000), rig.on_device(500)
    assert (rig.device.allocated.pinned_bytes, rig.device.allocated.device_bytes) == (1000, 500)
    host.close()
    middle.close()
    assert (rig.device.allocated.pinned_bytes, rig.device.allocated.device_bytes) == (0, 0)


def test_foreign_memory_is_pinned_until_its_buffer_is_closed(rig, runtime):
    memory = memoryview(mmap.mmap(-1, 8192))
    whole = rig.device.register_host(memory)
    part, middle, target, stream = whole.part(4096, 64), rig.on_device(64), rig.host(64), rig.stream()
    memory[4096:4160] = bytes(range(64))
    stream.copy_h2d(middle, part, 64)
    stream.copy_d2h(target, middle, 64)
    assert target.read_view().tobytes() == bytes(range(64))
    assert runtime.registered == {whole.address: 8192}
    assert rig.device.allocated.pinned_bytes == 8192 + 64
    part.close()
    assert runtime.registered
    whole.close()
    assert not runtime.registered
    assert rig.device.allocated.pinned_bytes == 64


@pytest.mark.parametrize("code", ["cudaErrorMemoryAllocation", "cudaErrorHostMemoryAlreadyRegistered"])
def test_foreign_memory_that_cannot_be_pinned_is_refused_with_advice(rig, runtime, code):
    runtime.fail["cudaHostRegister"] = cudaError_t[code]
    with pytest.raises(DeviceMemoryError, match="fewer"):
        rig.device.register_host(memoryview(mmap.mmap(-1, 4096)))
    assert rig.device.allocated.pinned_bytes == 0


def test_what_a_device_makes_lies_on_its_own_gpu_whichever_thread_asks(runtime):
    runtime.gpus = 2
    device = open_cuda(index=1)
    open_cuda(index=0)  # this thread is on the other GPU now, and a new thread on none

    def make():
        return device.alloc_host(8), device.alloc_device(8), device.create_stream("s"), device.create_event()

    with ThreadPoolExecutor(1) as pool:
        made = [*make(), *pool.submit(make).result()]
    assert [allocation.device for allocation in runtime.memory.values()] == [1] * 4
    assert list(runtime.gpu_of.values()) == [1] * 4
    for thing in made:
        thing.close()


def test_captured_work_is_launched_with_one_call(rig, runtime):
    stream = rig.stream()
    graph = stream.capture(lambda: None)
    graph.launch(stream)
    assert runtime.launches == 1
    graph.close()
    with pytest.raises(MisuseError):
        graph.launch(stream)


def test_a_graph_is_launched_on_streams_of_its_device_alone(rig, other):
    graph = rig.stream().capture(lambda: None)
    with pytest.raises(MisuseError, match="another device"):
        graph.launch(other.stream())
    rig.device.attach_thread()
    graph.close()


@pytest.mark.parametrize("is_ended_by_cuda", [False, True])
def test_work_that_cannot_be_captured_gives_no_graph_and_leaves_no_capture_open(rig, runtime, is_ended_by_cuda):
    def enqueue():
        if is_ended_by_cuda:
            runtime.fail["cudaStreamEndCapture"] = cudaError_t.cudaErrorStreamCaptureInvalidated
        else:
            raise ExecutionError("cannot be captured")

    assert rig.stream().capture(enqueue) is None


@pytest.mark.parametrize("failing", ["enqueue", "cudaGraphInstantiate"])
def test_a_capture_that_raises_leaves_neither_a_capture_nor_a_graph_behind(rig, runtime, failing):
    """The rig's fixture finds objects that were not destroyed."""

    def enqueue():
        if failing == "enqueue":
            raise DeviceMemoryError("full")
        runtime.fail[failing] = cudaError_t.cudaErrorMemoryAllocation

    with pytest.raises(DeviceMemoryError):
        rig.stream().capture(enqueue)


@pytest.mark.parametrize(
    ("least", "greatest", "numbers"),
    [(0, -5, (0, -2, -4, -5)), (0, -2, (0, 0, -1, -2)), (0, -1, (0, 0, -1, -1)), (0, 0, (0, 0, 0, 0))],
)
def test_streams_have_the_priorities_that_the_gpu_can_tell_apart(runtime, monkeypatch, least, greatest, numbers):
    runtime.priorities = (least, greatest)
    device = open_cuda()
    streams = [device.create_stream("s", priority=priority) for priority in StreamPriority]
    assert tuple(runtime.stream_priorities[stream.handle] for stream in streams) == numbers
    for stream in streams:
        stream.close()


def test_the_gpu_is_described(rig):
    found = rig.device.describe()
    assert (found.name, found.compute_capability, rig.device.index) == ("Fake GPU", (9, 0), 0)
