"""The memory account."""

import numpy as np
import pytest

from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.device_host import HostDevice
from forebay_server.engines.device_simulated import MEMORY_BYTES, SimulatedDevice
from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.engines.errors import DeviceMemoryError
from forebay_server.service.models.memory import MIB, MemoryAccount, buffer_bytes, check_device, free_bytes, model_bytes
from forebay_server.service.pictures.device_picture import FilePlace

SPECS = EngineSpecs(
    (TensorSpec("x", np.dtype(np.uint8), (MIB,)),), (TensorSpec("y", np.dtype(np.uint8), (MIB,)),), max_batch_size=4
)


def test_a_version_needs_its_weights_once_per_instance_and_those_in_files_beside_it_too(tmp_path):
    for name, nbytes in (("model.onnx", 1000), ("model.onnx.data", 5000), ("model.plan", 70)):
        (tmp_path / name).write_bytes(bytes(nbytes))
    assert model_bytes(tmp_path / "model.onnx", 2) == {"model": 12000}
    assert model_bytes(None, 2) == {}


def test_every_instance_needs_its_slots():
    assert buffer_bytes(SPECS, 2) == {"slots": 4 * 2 * 4 * 2 * MIB, "frames": 0, "files": 0}


def test_pinned_frames_are_counted():
    assert buffer_bytes(SPECS, 1, 10) == {"slots": 4 * 4 * 2 * MIB, "frames": 10 * MIB, "files": 0}


def test_frames_that_processes_share_have_room_for_twice_as_many_and_for_outputs():
    assert buffer_bytes(SPECS, 1, 10, is_shared=True)["frames"] == 10 * 2 * 2 * MIB


def test_room_for_a_file_of_each_frame_counts_as_far_as_it_is_beyond_the_rows():
    behind, within = FilePlace(MIB, MIB // 2, 1), FilePlace(0, MIB, 1)
    assert buffer_bytes(SPECS, 1, 10, files=behind)["files"] == 10 * MIB // 2
    assert buffer_bytes(SPECS, 1, 10, is_shared=True, files=behind)["files"] == 10 * MIB
    assert buffer_bytes(SPECS, 1, 10, files=within)["files"] == 0
    assert buffer_bytes(SPECS, 1, 0, files=behind)["files"] == 0, "not pinned: touched on first use"


def test_a_gpu_that_is_too_full_is_named():
    device = SimulatedDevice(clock=MonotonicClock(), index=1)
    buffer = device.alloc_device(MEMORY_BYTES - 3 * MIB)
    check_device(device, {"model": 3 * MIB})
    with pytest.raises(DeviceMemoryError, match=r"^simulated:1: needs 4 MiB \(model 4\), but 3 MiB are left: lower"):
        check_device(device, {"model": 4 * MIB})
    buffer.close()
    device.close()


def test_a_device_without_memory_of_its_own_is_the_accounts():
    check_device(HostDevice(clock=MonotonicClock()), {"model": 1 << 60})


def test_unbound_models_have_no_slots_to_count():
    specs = EngineSpecs((TensorSpec("x", np.dtype(object), (-1,)),), (), max_batch_size=4)
    assert buffer_bytes(specs, 1, 1) == {}


def test_a_version_holds_what_it_took_until_it_gives_it_back_once():
    account = MemoryAccount(limit_bytes=10 * MIB)
    first, second = account.open(), account.open()
    first.take({"model": 2 * MIB})
    first.take({"slots": 4 * MIB})
    second.take({"model": 3 * MIB})
    with pytest.raises(DeviceMemoryError, match=r"needs 2 MiB \(slots 2\), but 1 MiB are left"):
        second.take({"slots": 2 * MIB})
    assert account.reserved_bytes == 9 * MIB
    second.give_back()
    second.give_back()
    assert account.reserved_bytes == 6 * MIB
    first.give_back()
    assert account.reserved_bytes == 0


def test_what_does_not_fit_is_refused_with_what_for_and_what_to_do():
    account = MemoryAccount(free=lambda: 10 * MIB)
    with pytest.raises(DeviceMemoryError, match=r"needs 32 MiB \(slots 30, model 2\), but 10 MiB .* max_batch_size"):
        account.reserve({"slots": 30 * MIB, "model": 2 * MIB, "frames": 0})
    assert account.reserved_bytes == 0


def test_with_a_limit_what_is_reserved_counts_until_it_is_given_back():
    account = MemoryAccount(limit_bytes=10 * MIB)
    held = account.reserve({"slots": 6 * MIB})
    with pytest.raises(DeviceMemoryError):
        account.reserve({"slots": 6 * MIB})
    account.give_back(held)
    account.give_back(account.reserve({"slots": 10 * MIB}))
    assert account.reserved_bytes == 0


def test_this_machine_has_memory():
    assert free_bytes() > 0


def test_one_load_may_take_what_the_limit_leaves_or_half_of_what_is_free():
    limited = MemoryAccount(limit_bytes=10 * MIB, free=lambda: 100 * MIB)
    limited.open().take({"model": 4 * MIB})
    assert limited.rehearsal_bytes() == 6 * MIB
    assert MemoryAccount(free=lambda: 100 * MIB).rehearsal_bytes() == 50 * MIB
    assert MemoryAccount(free=lambda: -1).rehearsal_bytes() == 0
