"""The memory of a version in the engine process: one that does not fit leaves nothing behind, and its error advises."""

import errno
import gc
import os
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.device_host import HostDevice
from forebay_server.engines.device_simulated import FaultPlan, SimulatedDevice
from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.engines.errors import DeviceMemoryError
from forebay_server.service.group.group_egress import GroupEgress
from forebay_server.service.group.memory_layout import HEADER_BYTES
from forebay_server.service.group.shared_frames import SharedFrame
from forebay_server.service.group.version_header import VersionHeader
from forebay_server.service.group.version_memory import VersionMemory
from forebay_server.service.request import Feasibility, next_request_id
from tests.support.requests import frame_request
from tests.support.shared_lane import ArrivedRequests

U8 = np.dtype(np.uint8)
SPECS = EngineSpecs((TensorSpec("a", U8, (100,)),), (TensorSpec("b", U8, (7,)),), max_batch_size=4)
SECOND = 1_000_000_000


def needs_rows(share):
    """Have a share's rows area pinned."""
    share.rows.holds_back(ArrivedRequests(), request_of_rows(2))


def request_of_rows(rows):
    request = frame_request(next_request_id(), SharedFrame(None, 1, None, (), 0))
    request.size = rows
    return request


def test_a_version_publishes_what_admission_has_to_know():
    memory = VersionMemory(SimulatedDevice(clock=MonotonicClock()), SPECS, 2, 4, 0)
    memory.publish(Feasibility(1, 2, 3))
    assert VersionHeader(memory.memory, 2).feasibility() == Feasibility(1, 2, 3)
    memory.close()


def test_the_memory_of_a_closed_version_is_free_although_a_view_of_it_lives():
    """A front-end process, or a cycle that the garbage collector has not found, may hold a view for a long time."""
    memory = VersionMemory(SimulatedDevice(clock=MonotonicClock()), SPECS, 2, 4, 1 << 20)
    view = memory.memory[HEADER_BYTES:]
    fd = os.dup(memory.fd)
    view[:] = bytes([1]) * len(view)
    taken = os.fstat(fd).st_blocks
    memory.close()
    assert taken * 512 >= len(view)
    assert os.fstat(fd).st_blocks == 0
    assert view[0] == 0
    os.close(fd)


@pytest.mark.parametrize("device", [SimulatedDevice, HostDevice])
def test_a_closed_version_is_unmapped_at_once(device):
    gc.collect()
    gc.disable()
    try:
        before = psutil.Process().num_fds()
        memory = VersionMemory(device(clock=MonotonicClock()), SPECS, 2, 4, 1 << 20)
        needs_rows(memory.shares[0])
        memory.close()
        assert psutil.Process().num_fds() == before  # a mapping has a descriptor of its own
    finally:
        gc.enable()


VARYING = EngineSpecs((TensorSpec("a", U8, (-1,)),), (TensorSpec("b", U8, (-1,)),), max_batch_size=4)


@pytest.mark.parametrize(
    ("specs", "number", "remedy"),
    [
        (
            SPECS,
            errno.ENOMEM,
            "use fewer permits, raise the limit of address space (ulimit -v), or set front_ends to 0",
        ),
        (VARYING, errno.ENOMEM, "raise the limit of address space (ulimit -v), or set front_ends to 0"),
        (SPECS, errno.EMFILE, "raise the limit of open files (ulimit -n), or set front_ends to 0"),
    ],
)
def test_a_file_that_cannot_be_had_is_a_memory_error_with_advice(monkeypatch, specs, number, remedy):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "ftruncate", refuse)
    before = psutil.Process().num_fds()
    with pytest.raises(DeviceMemoryError) as caught:
        VersionMemory(SimulatedDevice(clock=MonotonicClock()), specs, 2, 4, 0)
    assert str(caught.value).endswith(f" MiB of shared memory cannot be had ({os.strerror(number)}): {remedy}")
    assert psutil.Process().num_fds() == before


def test_memory_that_cannot_be_pinned_leaves_nothing_behind():
    faults = FaultPlan(fail={("register_host", 2): DeviceMemoryError("no memory")})
    device = SimulatedDevice(clock=MonotonicClock(), faults=faults)
    with pytest.raises(DeviceMemoryError):
        VersionMemory(device, SPECS, 3, 4, 0)
    assert device.leaks == ()


@pytest.mark.parametrize("device", [HostDevice, SimulatedDevice])
def test_memory_is_unmapped_when_it_is_closed_and_not_when_garbage_is_collected(device):
    memory = VersionMemory(device(clock=MonotonicClock()), SPECS, 2, 4, 0)
    needs_rows(memory.shares[1])
    inode = os.fstat(memory.fd).st_ino
    gc.disable()
    try:
        memory.close()
        del memory
        places = Path("/proc/self/maps").read_text().splitlines()
    finally:
        gc.enable()
    assert not [place for place in places if "memfd:forebay version" in place and f" {inode} " in place]


def egress_of(*processes):
    header = VersionHeader(memoryview(bytearray(HEADER_BYTES)), len(processes))
    for front_end, numbers in enumerate(processes):
        header.write_egress(front_end, *numbers)
    return GroupEgress(header)


def test_nothing_is_known_of_delivery_before_the_first_result():
    egress = egress_of((0,) * 6, (0,) * 6)
    assert (egress.mean_ns, egress.upper_ns, egress.interval_ns) == (0, 0, 0)
    assert (egress.reached_ns, egress.reached_count) == (0, 0)


def test_delivery_of_several_processes_is_their_mean_side_by_side():
    now = 100 * SECOND
    old, none = (500, 600, 90, now - 2 * SECOND, 1, 90), (0,) * 6
    egress = egress_of((10, 20, 6, now, 3, 70), (30, 40, 10, now, 2, 70), old, none)
    assert (egress.mean_ns, egress.upper_ns) == (20, 30)
    assert egress.interval_ns == 4
    assert (egress.reached_ns, egress.reached_count) == (now, 5)


@given(st.lists(st.tuples(*[st.integers(0, 10**9)] * 3, st.integers(0, 10_000)), min_size=1, max_size=8))
def test_a_process_counts_by_the_share_of_the_results_that_leave_there(processes):
    egress = egress_of(*((mean, upper, interval, SECOND, 1, rate) for mean, upper, interval, rate in processes))
    rates = [max(1, rate) for *_, rate in processes]
    shares = [rate / sum(rates) for rate in rates]
    for found, place in ((egress.mean_ns, 0), (egress.upper_ns, 1)):
        mean = sum(share * each[place] for share, each in zip(shares, processes, strict=True))
        assert found == pytest.approx(mean, rel=1e-9, abs=1)
    side_by_side = sum(share**2 * each[2] for share, each in zip(shares, processes, strict=True))
    assert egress.interval_ns == pytest.approx(side_by_side, rel=1e-9, abs=1)
    if len(processes) == 1:
        assert egress.interval_ns == processes[0][2]


def test_a_process_that_has_hardly_any_camera_hardly_counts():
    egress = egress_of((1000, 2000, 600, SECOND, 1, 990), (90_000, 90_000, 90_000, SECOND, 1, 10))
    assert egress.mean_ns == 1890
    assert egress.interval_ns == 597  # the busy one delivers nearly all, and nearly alone


def test_delivery_is_that_of_now():
    header = VersionHeader(memoryview(bytearray(HEADER_BYTES)), 2)
    egress = GroupEgress(header)
    assert egress.mean_ns == 0
    header.write_egress(1, 10, 20, 6, SECOND, 1, 90)
    assert (egress.mean_ns, egress.interval_ns, egress.reached_count) == (10, 6, 1)
    header.write_egress(1, 10, 20, 6, SECOND, 2, 90)
    assert egress.reached_count == 2
