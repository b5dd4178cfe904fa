"""Permits bound the leases of all arenas together; a lease goes back once, from any thread and however often."""

import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from forebay_server.engines import open_device
from forebay_server.service.errors import OverloadedError
from forebay_server.service.pipeline.arena import INPUT_ALIGNMENT_BYTES, FrameArena
from forebay_server.service.pipeline.permits import Permits
from tests.support.clock import ManualClock
from tests.support.front_end import specs_of
from tests.support.guard import HANG_GUARD_S


class ArenaRules(RuleBasedStateMachine):
    """Two models share the permits."""

    @initialize(count=st.integers(1, 4))
    def create(self, count):
        self.count = count
        self.device = open_device("cpu", clock=ManualClock())
        self.permits = Permits(count)
        self.arenas = [FrameArena(self.device, specs_of().inputs, self.permits) for _ in range(2)]
        self.leases = []
        self.given_back = []

    @rule(which=st.integers(0, 1))
    def lease(self, which):
        if len(self.leases) == self.count:
            with pytest.raises(OverloadedError):
                self.arenas[which].lease()
            return
        lease = self.arenas[which].lease()
        assert all(lease.host is not other.host for _, other in self.leases), "one buffer, two leases"
        self.leases.append((which, lease))

    @rule(data=st.data())
    def release(self, data):
        if self.leases:
            _, lease = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
            lease.release()
            self.given_back.append(lease)

    @rule(data=st.data())
    def release_again(self, data):
        if self.given_back:
            data.draw(st.sampled_from(self.given_back)).release()

    @invariant()
    def counts_agree(self):
        assert self.permits.taken_count == len(self.leases)
        for which, arena in enumerate(self.arenas):
            assert arena.leased_count == sum(w == which for w, _ in self.leases)

    def teardown(self):
        if hasattr(self, "arenas"):
            for arena in self.arenas:
                arena.close()
            self.device.close()


ArenaRules.TestCase.settings = settings(stateful_step_count=30)
TestArenaRules = ArenaRules.TestCase


@pytest.fixture
def device():
    device = open_device("cpu", clock=ManualClock())
    yield device
    device.close()


def test_threads_never_hold_more_leases_than_permits_nor_one_buffer_twice(device):
    permits = Permits(3)
    arenas = [FrameArena(device, specs_of().inputs, permits) for _ in range(2)]
    lock, held, most, errors = threading.Lock(), [], [0], []

    def work(arena):
        for _ in range(300):
            try:
                lease = arena.lease()
            except OverloadedError:
                continue
            with lock:
                if any(host is lease.host for host in held):
                    errors.append("one buffer, two leases")
                held.append(lease.host)
                most[0] = max(most[0], len(held))
            with lock:
                held.remove(lease.host)
            lease.release()

    threads = [threading.Thread(target=work, args=(arenas[i % 2],)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_GUARD_S)
        assert not thread.is_alive()
    assert errors == []
    assert most[0] <= 3
    assert permits.taken_count == 0
    assert [arena.leased_count for arena in arenas] == [0, 0]


def test_the_buffer_used_last_is_used_next(device):
    arena = FrameArena(device, specs_of().inputs, Permits(4))
    first, second = arena.lease(), arena.lease()
    first.release()
    assert arena.lease().host is first.host
    second.release()


def test_inputs_start_at_aligned_offsets_and_fit(device):
    specs = specs_of(((7,), (65,), (1,)), ((1,),)).inputs
    arena = FrameArena(device, specs, Permits(1))
    assert arena.offsets == (0, 64, 192)
    lease = arena.lease()
    assert lease.offsets == arena.offsets
    assert all(offset % INPUT_ALIGNMENT_BYTES == 0 for offset in arena.offsets)
    assert lease.host.nbytes >= arena.offsets[-1] + specs[-1].row_bytes
