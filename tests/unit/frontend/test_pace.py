"""A connection that has sent more than its pace is read no further for a while; others are."""

from forebay_server.service.frontend.reception import pace
from forebay_server.service.frontend.reception.pace import Pace
from tests.support.clock import ManualClock

RATE = 1000  # bytes each second: a byte a millisecond
MS = 1_000_000


def test_what_a_connection_sends_beyond_its_pace_makes_the_next_message_wait():
    clock = ManualClock()
    kept = Pace(RATE, clock)
    assert kept.delay_ns("a") == 0
    kept.count("a", 500)
    kept.count("a", 10)
    assert kept.delay_ns("a") == 510 * MS
    assert kept.delay_ns("b") == 0
    clock.advance(200 * MS)
    assert kept.delay_ns("a") == 310 * MS


def test_time_in_which_nothing_comes_is_not_saved_up():
    clock = ManualClock()
    kept = Pace(RATE, clock)
    kept.count("a", 1)
    clock.advance(10_000 * MS)
    assert kept.delay_ns("a") == 0
    kept.count("a", 100)
    assert kept.delay_ns("a") == 100 * MS


def test_connections_that_owe_nothing_are_forgotten(monkeypatch):
    monkeypatch.setattr(pace, "MOST_PEERS", 3)
    clock = ManualClock()
    kept = Pace(RATE, clock)
    for number in range(100):
        kept.count(f"{number}", 5)
        clock.advance(10 * MS)
    assert len(kept._free_ns) <= 3
