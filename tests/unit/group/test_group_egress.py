"""Nothing that a front-end process learnt about delivery keeps the group from working once that process has gone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.batching.constants import SILENCE_NS
from forebay_server.service.errors import Outcome
from forebay_server.service.group.group_egress import GroupEgress
from forebay_server.service.group.memory_layout import HEADER_BYTES
from forebay_server.service.group.published_egress import PublishedEgress
from forebay_server.service.group.version_header import VersionHeader
from forebay_server.service.request import TRUSTED_NS, Feasibility
from tests.support.batching import CoreRig

MS = 1_000_000
SLOW, FAST = 0, 1


class Group:
    """A former that reads the delivery of two front-end processes."""

    def __init__(self):
        self.header = VersionHeader(memoryview(bytearray(HEADER_BYTES)), 2)
        self.egress = GroupEgress(self.header)
        self.rig = CoreRig(egress=self.egress)
        self.times = [PublishedEgress(self.header, front_end) for front_end in range(2)]

    def delivers(self, front_end, took_ms, *, for_ms=1500):
        """Deliver a result every ten milliseconds; the clock moves on."""
        for _ in range(for_ms // 10):
            self.rig.advance(10)
            self.times[front_end].observe(self.rig.now_ns - int(took_ms * MS), self.rig.now_ns)

    def served_ms(self, front_end, *, budget_ms=100, for_ms=4000):
        """Offer a frame every ten milliseconds, delivered within one; when the last one was refused, from the start."""
        rig, start_ns, last_ns = self.rig, self.rig.now_ns, 0
        served = 0
        while rig.now_ns - start_ns < for_ms * MS:
            one = rig.arrive(budget_ms)
            rig.advance(6)
            while rig.running:
                rig.finish()
            if rig.ended().get(one) is Outcome.EXPIRED:
                last_ns = rig.now_ns - start_ns
            else:
                served += 1
                self.times[front_end].observe(one.timeline.readable_ns, rig.now_ns + MS)
            rig.advance(4)
        assert served > 0
        return last_ns / MS


@pytest.mark.parametrize("end", ["dies", "stops", "loses its cameras"])
def test_frames_are_in_time_again_once_a_process_of_slow_delivery_has_gone(end):
    group = Group()
    group.delivers(SLOW, 500)
    assert group.egress.mean_ns == 500 * MS
    group.rig.arrive()  # and its result is on its way out when the process ends
    group.rig.advance(6)
    group.rig.finish()
    if end == "dies":
        group.header.forget_egress(SLOW)
    assert group.served_ms(FAST) <= (0 if end == "dies" else 1500)
    assert group.egress.mean_ns < 2 * MS


def test_a_process_that_took_the_place_of_one_that_died_begins_with_nothing():
    group = Group()
    group.delivers(SLOW, 500)
    group.times[SLOW] = PublishedEgress(group.header, SLOW)
    assert (group.egress.mean_ns, group.egress.interval_ns, group.egress.reached_ns) == (0, 0, 0)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 900), st.integers(1, 200)), min_size=1, max_size=60))
def test_numbers_of_a_process_that_delivers_no_more_are_gone_after_a_second_of_the_other_ones_results(results):
    group = Group()
    for front_end, took_ms, pause_ms in results:
        group.rig.advance(pause_ms)
        group.times[front_end].observe(group.rig.now_ns - took_ms * MS, group.rig.now_ns)
    group.rig.advance(SILENCE_NS / MS)
    group.delivers(FAST, 1, for_ms=1200)
    assert group.egress.mean_ns == group.times[FAST].mean_ns == MS


@pytest.mark.parametrize("pause_ms", [5, 10, 40])
def test_a_process_tells_how_many_results_leave_in_a_second(pause_ms):
    group, time = Group(), None
    for _ in range(2000 // pause_ms):
        group.rig.advance(pause_ms)
        time = group.times[FAST]
        time.observe(group.rig.now_ns - MS, group.rig.now_ns)
    assert group.header.egress()[FAST].results_per_s == pytest.approx(1000 / pause_ms, rel=0.15)
    group.rig.advance(SILENCE_NS / MS + 200)
    time.observe(group.rig.now_ns - MS, group.rig.now_ns)
    assert group.header.egress()[FAST].results_per_s == 0


@given(st.integers(1, 10_000), st.integers(0, 10_000), st.integers(1, 3000))
def test_published_feasibility_refuses_nothing_a_second_after_the_last_execution(service_ms, egress_ms, budget_ms):
    engine, front_end = Group(), Group()
    front_end.header = VersionHeader(engine.header._numbers.cast("B"), 2)
    executed_ns = 10**12
    engine.header.publish(Feasibility(service_ms * MS, egress_ms * MS, executed_ns))
    is_tight = budget_ms < service_ms + egress_ms
    for after_ns, is_refused in ((0, is_tight), (TRUSTED_NS, is_tight), (TRUSTED_NS + 1, False)):
        now_ns = executed_ns + after_ns
        assert front_end.header.feasibility().is_hopeless(now_ns, now_ns + budget_ms * MS, 0) == is_refused
