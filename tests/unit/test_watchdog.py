from types import SimpleNamespace

from service.watchdog import Watchdog
from tests.support.clock import ManualClock

LIMIT_NS = 2_000_000_000


def watched(busy_since_ns):
    stage = SimpleNamespace(name="detector.1.0.execute", busy_since_ns=busy_since_ns)
    return SimpleNamespace(lanes=[SimpleNamespace(stages=[stage])], hang_limit_ns=LIMIT_NS)


def look(busy_since_ns, now_ns):
    fatal = []
    Watchdog(lambda: [watched(busy_since_ns)], ManualClock(now_ns), fatal.append).look()
    return fatal


def test_stage_busy_for_longer_than_the_limit_is_reported():
    (error,) = look(busy_since_ns=1_000, now_ns=LIMIT_NS + 1_001)
    assert "detector.1.0.execute has hung for 2.0 s" in str(error)


def test_stage_within_the_limit_is_left_alone():
    assert look(busy_since_ns=1_000, now_ns=LIMIT_NS + 1_000) == []


def test_idle_stage_never_hangs():
    assert look(busy_since_ns=0, now_ns=100 * LIMIT_NS) == []
