"""The cpu device: one memory, done at once."""

import numpy as np
import pytest

from forebay_server.engines.device_host import HostDevice
from forebay_server.engines.errors import DeviceMemoryError, MisuseError
from forebay_server.engines.host_memory import allocate, memory_of
from tests.support.clock import ManualClock


def test_a_mirror_is_the_host_buffers_own_memory():
    device = HostDevice(clock=ManualClock())
    host = device.alloc_host(100)
    mirror = device.alloc_device(60, host)
    host.write_view()[:] = 9
    assert (mirror.memory == 9).all()
    assert mirror.nbytes == 60
    assert mirror.address == host.address


def test_copies_within_one_memory_move_bytes_when_the_offsets_differ():
    device = HostDevice(clock=ManualClock())
    host = device.alloc_host(10)
    mirror, stream = device.alloc_device(10, host), device.create_stream("h2d")
    host.write_view()[:] = range(10)
    stream.copy_h2d(mirror, host, 5, dst_offset=5)
    np.testing.assert_array_equal(host.read_view(), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4])
    stream.copy_d2h(host, mirror, 10)
    np.testing.assert_array_equal(host.read_view(), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4])


def test_events_are_stamps_of_the_injected_clock():
    clock = ManualClock()
    device = HostDevice(clock=clock)
    stream, started, ended = device.create_stream("compute"), device.create_event(), device.create_event()
    stream.record(started)
    clock.advance(1234)
    stream.record(ended)
    assert ended.is_done
    assert ended.elapsed_ns(started) == 1234


def test_a_view_outlives_its_buffer():
    device = HostDevice(clock=ManualClock())
    host = device.alloc_host(1_000_000)
    view = host.write_view()
    host.close()
    view[:] = 1
    assert view.sum() == 1_000_000


def test_there_is_one_cpu_and_nothing_to_gather():
    device = HostDevice(clock=ManualClock())
    assert (device.name, device.gather_below_bytes) == ("cpu", 0)
    with pytest.raises(MisuseError):
        HostDevice(clock=ManualClock(), index=1)


def test_impossible_sizes_are_refused():
    with pytest.raises(MisuseError):
        allocate(-1)
    with pytest.raises(DeviceMemoryError, match="host memory"):
        allocate(1 << 60)


def test_only_memory_that_the_cpu_can_address_is_handed_out():
    class ElsewhereBuffer:
        nbytes = 1
        address = 1

    with pytest.raises(MisuseError, match="ElsewhereBuffer"):
        memory_of(ElsewhereBuffer())
