"""Versions on every kind of device before front-end processes: memory that is shared, pinned, and given back."""

import select

import numpy as np
import pytest

from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.device_host import HostDevice
from forebay_server.service.group.link_sink import LinkSink
from forebay_server.service.group.links import Links
from forebay_server.service.group.version_memory import VersionMemory
from tests.support import fake_cudart
from tests.support.fake_cudart import FakeCudart
from tests.support.far_front_end import FarFrontEnd
from tests.support.guard import HANG_GUARD_S
from tests.support.real_server import simulated
from tests.support.several_gpus import GpuWorkshop, doubling, fake_cuda_gpus, install_tensorrt, simulated_gpus
from tests.support.version import Workshop

FRONT_ENDS, PERMITS = 2, 16
GROUPS = "instance_group { kind: KIND_GPU gpus: [ 0, 1 ] }"


class Shared:
    """A version with shared memory, its links' thread, and two front-end processes."""

    def __init__(self, shop, name):
        shop.answers = LinkSink()
        shop.open_memory = lambda device, specs, _files: VersionMemory(device, specs, FRONT_ENDS, PERMITS, 1 << 16)
        self.shop = shop
        self.version = shop.open(name)
        self.links = Links(shop.fatal.append)
        self.links.start()
        memory = self.version.memory
        self.fars = [FarFrontEnd(memory, front_end=front_end) for front_end in range(FRONT_ENDS)]
        for far in self.fars:
            far.link.add_version(far.number, self.version, memory.shares[far.front_end])
            self.links.add(far.link)
            far.open_stream()

    def ask(self, far, *requests):
        """Send requests, each the values of its rows, and return the outputs of each."""
        made = [far.request(*values) for values in requests]
        far.send([record for _, record in made])
        while far.open:
            assert select.select([far.socket], [], [], HANG_GUARD_S)[0], self.shop.fatal
            assert far.read()
        assert not far.errors
        return [far.answers[token][1] for token, _ in made]

    def close(self):
        for far in self.fars:
            far.close()
        self.links.stop()
        assert all(far.ended for far in self.fars)
        del self.fars
        assert self.version.close(10)
        self.shop.pool.close()
        assert self.shop.fatal == []


@pytest.fixture
def shared():
    opened = []

    def open_(shop, name):
        opened.append(Shared(shop, name))
        return opened[-1]

    yield open_
    for each in opened:
        each.close()


def doubled(value):
    return (np.full(64, value, np.uint8).view(np.float32) * 2).tolist()


def test_frames_reach_every_simulated_gpu_and_nothing_races(tmp_path, monkeypatch, shared):
    install_tensorrt(monkeypatch)
    shop = GpuWorkshop(doubling(tmp_path, GROUPS), simulated_gpus(2))
    service = shared(shop, "doubling")
    for _ in range(5):
        for far in service.fars:
            outputs = service.ask(far, *[[value] for value in range(1, PERMITS)], [7, 8, 9])
            expected = [[[doubled(value)]] for value in range(1, PERMITS)] + [[[doubled(v) for v in (7, 8, 9)]]]
            assert [[each.tolist() for each in request] for request in outputs] == expected
    assert all(device.races == () for device in shop.devices)


def test_shared_memory_is_pinned_while_its_version_is_open(tmp_path, monkeypatch):
    cuda = FakeCudart(gpus=2)
    fake_cudart.install(monkeypatch, cuda)
    install_tensorrt(monkeypatch)
    shop = GpuWorkshop(doubling(tmp_path, GROUPS), fake_cuda_gpus(cuda))
    service = Shared(shop, "doubling")
    memory = service.version.memory
    slots_bytes = memory.layout.slots_bytes
    assert list(cuda.registered.values()) == [slots_bytes] * FRONT_ENDS
    for far in service.fars:
        ((output,),) = service.ask(far, [3])
        assert output.tolist() == [doubled(3)]
    service.ask(service.fars[1], [4, 5])
    assert sorted(cuda.registered.values()) == sorted([slots_bytes] * FRONT_ENDS + [memory.layout.rows_area_bytes])
    service.close()
    assert not cuda.registered
    fake_cudart.uninstall()


def test_on_the_cpu_memory_is_shared_as_it_is(tmp_path, shared):
    shop = Workshop(simulated(tmp_path), device=lambda clock: HostDevice(clock=clock or MonotonicClock()))
    service = shared(shop, "sim")
    for far in service.fars:
        outputs = service.ask(far, [1], [2], [3, 4])
        assert [np.unique(output, axis=1).reshape(-1).tolist() for (output,) in outputs] == [[1], [2], [3, 4]]
