"""One model on several GPUs: lanes of one pending queue, each with its own resources on its own GPU."""

import pytest

from forebay_server.engines.device import DeviceMemory
from forebay_server.engines.device_simulated import MEMORY_BYTES, CopyCosts, FaultPlan, Machine
from forebay_server.engines.errors import BackendUnavailableError, DeviceMemoryError, EngineError, ExecutionError
from forebay_server.service.models.check import check_repositories
from forebay_server.service.models.repository import RepositoryError
from tests.support import fake_cudart
from tests.support.fake_cudart import FakeCudart, cudaError_t
from tests.support.fake_tensorrt import FakeGpu
from tests.support.several_gpus import (
    GpuWorkshop,
    Meeting,
    doubling,
    fake_cuda_gpus,
    install_tensorrt,
    simulated_gpus,
)
from tests.support.version import check_idle

BOTH_AND_ONE_MORE = "instance_group { kind: KIND_GPU gpus: [ 0, 1 ] } instance_group { gpus: 1 }"


@pytest.fixture(autouse=True)
def tensorrt(monkeypatch):
    install_tensorrt(monkeypatch)


@pytest.fixture
def workshop(tmp_path):
    workshops = []

    def open_workshop(groups, open_gpu):
        workshops.append(GpuWorkshop(doubling(tmp_path, groups), open_gpu))
        return workshops[-1]

    yield open_workshop
    for each in workshops:
        for version in each.versions:  # left by a test that failed
            version.former.stop()
            for lane in version.lanes:
                lane.channels[0].close()
        each.pool.close()


def places_of(version):
    return [lane.device.name for lane in version.lanes]


def test_batches_run_on_every_device_and_nothing_races(workshop):
    meeting = Meeting()
    shop = workshop(BOTH_AND_ONE_MORE, simulated_gpus(2, meeting))
    version = shop.open()
    assert places_of(version) == ["simulated", "simulated:1", "simulated:1"]
    meeting.expect(0, 1)
    shop.check(shop.send(version, 60))
    assert version.close(10)
    check_idle(shop, version)
    assert shop.devices[0].races == ()
    assert [device.leaks for device in shop.devices] == [(), ()]
    assert shop.fatal == []


def test_a_group_that_names_no_gpu_is_on_all_of_them(workshop):
    shop = workshop("instance_group { kind: KIND_GPU count: 2 }", simulated_gpus(3))
    version = shop.open()
    assert places_of(version) == ["simulated", "simulated:1", "simulated:2"] * 2
    (group,) = version.description.config.instance_group
    assert (group.count, list(group.gpus)) == (2, [0, 1, 2])
    assert version.close(10)


def test_with_one_gpu_a_plan_runs_there(workshop):
    shop = workshop("", simulated_gpus(1))
    version = shop.open()
    assert places_of(version) == ["simulated"]
    assert version.close(10)


def test_all_gpus_together_may_be_too_many_instances(workshop):
    with pytest.raises(RepositoryError, match=r"^doubling/config.pbtxt: 80 instances: at most 64 are served$"):
        workshop("instance_group { count: 40 }", simulated_gpus(2)).open()


def test_the_slowest_device_says_what_a_batch_costs(workshop):
    machine = Machine(2)

    def open_gpu(index):
        return FakeGpu(index=index, machine=machine, cost=CopyCosts(copy_latency_ns=index * 2_000_000))

    shop = workshop("instance_group { gpus: [ 0, 1 ] }", open_gpu)
    version = shop.open()
    assert min(version.former._core.cost.table.h2d_ns) >= 2_000_000
    assert version.close(10)


@pytest.mark.parametrize("verb", ["alloc_device", "execute", "copy_h2d"])
def test_a_load_that_fails_on_one_device_leaves_nothing_on_any(workshop, verb):
    gpus = simulated_gpus(2)

    def open_gpu(index):
        device = gpus(index)
        if index == 1:
            device.arm(FaultPlan(fail={(verb, 1): ExecutionError("as the test asks")}))
        return device

    shop = workshop("instance_group { gpus: [ 0, 1 ] }", open_gpu)
    with pytest.raises((RepositoryError, EngineError), match=r"doubling.*as the test asks"):
        shop.open()
    assert [device.leaks for device in shop.devices] == [(), ()]
    assert shop.permits.taken_count == 0


class FullGpu(FakeGpu):
    def memory(self):
        return DeviceMemory(MEMORY_BYTES - (1 << 20), MEMORY_BYTES)


def test_a_load_that_does_not_fit_one_device_is_refused_with_its_name(workshop, tmp_path):
    machine = Machine(2)
    shop = workshop(
        "instance_group { gpus: [ 0, 1 ] count: 2 }",
        lambda index: (FullGpu if index else FakeGpu)(index=index, machine=machine),
    )
    (tmp_path / "doubling" / "1" / "model.plan.weights").write_bytes(bytes(2 << 20))
    with pytest.raises(DeviceMemoryError, match=r"^doubling: simulated:1: needs 4 MiB \(model 4\), but 1 MiB are left"):
        shop.open()
    assert [device.leaks for device in shop.devices] == [(), ()]


@pytest.fixture
def cuda(monkeypatch):
    fake = FakeCudart(gpus=2)
    fake_cudart.install(monkeypatch, fake)
    yield fake
    fake_cudart.uninstall()


def test_every_lane_works_on_its_own_gpu_and_close_frees_both(workshop, cuda):
    """CUDA's stand-in refuses any call of a thread on a GPU that it has not selected."""
    meeting = Meeting()
    shop = workshop(BOTH_AND_ONE_MORE, fake_cuda_gpus(cuda, meeting))
    version = shop.open()
    assert places_of(version) == ["cuda:0", "cuda:1", "cuda:1"]
    for lane in version.lanes:
        gpu = lane.device.index
        assert {cuda.gpu_of[stage.device_stream.handle] for stage in lane.stages} == {gpu}
        for slot in lane.pool.slots:
            assert {cuda.memory[buffer.address].device for buffer in (*slot.device_inputs, *slot.device_outputs)} == {
                gpu
            }
            assert {cuda.gpu_of[event.raw] for event in (slot.uploaded, slot.executed, slot.downloaded)} == {gpu}
    cuda.uploads.clear()
    meeting.expect(0, 1)
    shop.check(shop.send(version, 60))
    assert set(cuda.uploads) == {0, 1}
    assert version.close(10)
    check_idle(shop, version)
    assert cuda.memory == {}
    assert cuda.open == set()
    assert shop.fatal == []


@pytest.mark.parametrize("call", ["cudaMalloc", "cudaStreamCreateWithPriority", "cudaMemcpyAsync"])
def test_a_load_that_fails_on_the_second_gpu_frees_both(workshop, cuda, call):
    shop = workshop("instance_group { gpus: [ 0, 1 ] }", fake_cuda_gpus(cuda))
    cuda.fail_on[call, 1] = cudaError_t.cudaErrorInvalidValue
    with pytest.raises((RepositoryError, EngineError), match=f"doubling: .*{call}"):
        shop.open()
    assert cuda.memory == {}
    assert cuda.open == set()


def test_a_gpu_that_is_not_there_is_refused_with_how_many_there_are(workshop, cuda):
    shop = workshop("instance_group { gpus: [ 0, 2 ] }", fake_cuda_gpus(cuda))
    with pytest.raises(BackendUnavailableError, match=r"there is no GPU 2: this machine has 2 GPUs, numbers 0 to 1"):
        shop.open()
    assert cuda.memory == {}


@pytest.mark.parametrize(
    ("gpus", "words"),
    [
        ("[ 1, 0 ]", "doubling 1: x FP32 [16] -> y FP32 [16]; up to 8 rows"),
        ("[ 0, 2 ]", "doubling: device 'cuda' is not available: there is no GPU 2: this machine has 2 GPUs"),
    ],
)
def test_checking_a_repository_opens_a_model_on_each_of_its_gpus(tmp_path, cuda, gpus, words):
    (found,) = check_repositories([doubling(tmp_path, f"instance_group {{ gpus: {gpus} }}")])
    assert (found.summary or found.problem).startswith(words)
    assert cuda.memory == {}


def test_checking_a_repository_finds_what_one_gpu_has_no_memory_for(tmp_path, cuda):
    cuda.free_bytes_of[1] = 0
    (found,) = check_repositories([doubling(tmp_path, "instance_group { gpus: [ 0, 1 ] }")])
    assert found.problem.startswith("doubling: cuda:1 has 0 MiB free")
    assert cuda.memory == {}
