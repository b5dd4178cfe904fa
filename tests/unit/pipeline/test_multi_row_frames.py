"""Buffers for requests of several rows."""

import numpy as np
import pytest

from forebay_server.engines.device_host import HostDevice
from forebay_server.engines.engine import TensorSpec
from forebay_server.service.errors import InvalidRequestError, OverloadedError
from forebay_server.service.pipeline.arena import FrameArena
from forebay_server.service.pipeline.permits import Permits
from tests.support.clock import ManualClock

INPUTS = (TensorSpec("a", np.dtype(np.uint8), (10,)), TensorSpec("b", np.dtype(np.float32), (4,)))


def arena_of(permits=4, limit_bytes=1 << 20):
    permits = Permits(permits)
    return FrameArena(HostDevice(clock=ManualClock()), INPUTS, permits, limit_bytes), permits


@pytest.mark.parametrize("rows", [2, 3, 4, 5, 17])
def test_every_input_has_room_for_all_rows_and_starts_aligned(rows):
    arena, permits = arena_of()
    lease = arena.lease_rows(rows)
    first, second = lease.offsets
    assert first % 64 == second % 64 == 0
    assert second - first >= 10 * rows
    assert lease.host.nbytes - second >= 16 * rows
    assert permits.taken_count == arena.leased_count == 1
    lease.release()
    lease.release()
    assert lease.is_released
    assert permits.taken_count == arena.leased_count == 0


def test_one_row_lies_in_the_arena_itself():
    arena, _ = arena_of()
    lease = arena.lease_rows(1)
    assert lease.offsets == arena.offsets
    lease.release()


def test_a_buffer_is_used_again():
    arena, _ = arena_of()
    first = arena.lease_rows(3)
    host = first.host
    first.release()
    again = arena.lease_rows(4)
    assert again.host is host
    again.release()


def test_more_than_the_limit_is_refused_and_takes_no_permit():
    arena, permits = arena_of(limit_bytes=200)
    lease = arena.lease_rows(4)
    with pytest.raises(OverloadedError, match="200 bytes"):
        arena.lease_rows(4)
    assert permits.taken_count == 1
    lease.release()
    arena.lease_rows(4).release()


def test_request_that_could_never_fit_is_told_to_split_and_not_to_try_again():
    arena, permits = arena_of(limit_bytes=200)
    with pytest.raises(InvalidRequestError, match="split it"):
        arena.lease_rows(9)
    assert permits.taken_count == arena.leased_count == 0


def test_buffers_of_another_capacity_make_room():
    arena, permits = arena_of(limit_bytes=300)
    arena.lease_rows(4).release()
    other = arena.lease_rows(8)
    assert permits.taken_count == 1
    other.release()


def test_without_a_permit_nothing_is_leased():
    arena, _ = arena_of(permits=1)
    lease = arena.lease_rows(2)
    with pytest.raises(OverloadedError):
        arena.lease_rows(2)
    assert arena.leased_count == 1
    lease.release()
    arena.close()
