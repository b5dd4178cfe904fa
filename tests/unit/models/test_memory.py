"""The memory account."""

import numpy as np
import pytest

from engines.engine import EngineSpecs, TensorSpec
from engines.errors import DeviceMemoryError
from service.models.memory import MIB, MemoryAccount, free_bytes, needed_bytes

SPECS = EngineSpecs(
    (TensorSpec("x", np.dtype(np.uint8), (MIB,)),), (TensorSpec("y", np.dtype(np.uint8), (MIB,)),), max_batch_size=4
)


def test_a_version_needs_its_slots_and_its_file_once_per_instance(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes(1000))
    needed = needed_bytes(SPECS, instances=2, permits=10, model_path=path, is_gpu=False)
    assert needed == {"slots": 4 * 2 * 4 * 2 * MIB, "model": 2000, "frames": 0}


def test_on_a_gpu_slots_count_on_both_sides_and_frames_are_pinned():
    needed = needed_bytes(SPECS, instances=1, permits=10, model_path=None, is_gpu=True)
    assert needed == {"slots": 4 * 4 * 2 * MIB * 2, "model": 0, "frames": 10 * MIB}


def test_unbound_models_have_no_slots_to_count():
    specs = EngineSpecs((TensorSpec("x", np.dtype(object), (-1,)),), (), max_batch_size=4)
    assert sum(needed_bytes(specs, instances=1, permits=1, model_path=None, is_gpu=False).values()) == 0


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
