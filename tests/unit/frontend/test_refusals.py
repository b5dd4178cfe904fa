"""Refusals of one connection leave at a pace; a lone refusal leaves at once."""

from forebay_server.service.frontend.reception.refusals import MOST_DELAY_NS, MOST_PEERS, REFUSALS_PER_S, RefusalPace
from tests.support.clock import ManualClock

STEP_NS = 1_000_000_000 // REFUSALS_PER_S
PEER, OTHER = "ipv4:127.0.0.1:1", "ipv4:127.0.0.1:2"


def test_refusals_that_come_together_leave_one_after_the_other_and_other_connections_are_told_at_once():
    pace = RefusalPace(ManualClock())
    assert [pace.delay_ns(PEER, None) for _ in range(4)] == [0, STEP_NS, 2 * STEP_NS, 3 * STEP_NS]
    assert pace.delay_ns(OTHER, None) == 0


def test_those_that_are_refused_more_slowly_than_the_pace_never_wait():
    clock = ManualClock()
    pace = RefusalPace(clock)
    for _ in range(1000):
        assert pace.delay_ns(PEER, None) == 0
        clock.advance(STEP_NS)


def test_none_waits_longer_than_a_second_and_what_was_refused_long_ago_counts_for_nothing():
    clock = ManualClock()
    pace = RefusalPace(clock)
    assert max(pace.delay_ns(PEER, None) for _ in range(10_000)) == MOST_DELAY_NS
    clock.advance(MOST_DELAY_NS)
    assert pace.delay_ns(PEER, None) == 0


def test_a_call_with_a_deadline_waits_for_half_of_what_is_left_at_most():
    pace = RefusalPace(ManualClock())
    for _ in range(REFUSALS_PER_S):
        pace.delay_ns(PEER, None)
    assert pace.delay_ns(PEER, 0.1) == 50_000_000
    assert pace.delay_ns(PEER, 0.0) == 0


def test_connections_that_owe_nothing_are_forgotten():
    clock = ManualClock()
    pace = RefusalPace(clock)
    for port in range(3 * MOST_PEERS):
        pace.delay_ns(f"ipv4:127.0.0.1:{port}", None)
        clock.advance(STEP_NS)
    assert len(pace._free_ns) <= MOST_PEERS
