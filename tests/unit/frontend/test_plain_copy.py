"""Dense inputs of all sizes land in their places of a frame buffer."""

import numpy as np
import pytest

from forebay_server.engines.engine import TensorSpec
from forebay_server.service.frontend.plain_copy import HELD_BYTES, copy_into
from tests.support.front_end import StrictArena

UINT8 = np.dtype(np.uint8)


@pytest.mark.parametrize("second_bytes", [0, 1, HELD_BYTES, HELD_BYTES + 1])
def test_each_input_lies_at_its_offset_and_nothing_else_is_touched(second_bytes):
    specs = (TensorSpec("a", UINT8, (3,)), TensorSpec("b", UINT8, (second_bytes,)))
    arena = StrictArena(specs, permits=1)
    frame = arena.lease()
    before = frame.host.read_view().copy()
    second = np.random.default_rng(1).integers(0, 256, second_bytes, np.uint8)
    copy_into(frame, [memoryview(b"abc"), memoryview(second.tobytes())])
    before[:3] = list(b"abc")
    before[arena.offsets[1] :][:second_bytes] = second
    np.testing.assert_array_equal(frame.host.read_view(), before)
