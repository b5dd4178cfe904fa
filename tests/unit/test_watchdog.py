import errno
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from forebay_server.service.watchdog import PATIENCE, PAUSE_NS, Watchdog, WatchdogThread, waits_for_cpu_ns
from tests.support.clock import ManualClock
from tests.support.guard import HANG_GUARD_S

LIMIT_NS = 2_000_000_000
STEP_NS = 500_000_000
START_NS = 1_000


class Watched:
    """One version with one stage that has been busy since the beginning, and the reports."""

    def __init__(self, busy_since_ns: int = START_NS) -> None:
        stage = SimpleNamespace(name="detector.1.0.execute", busy_since_ns=busy_since_ns)
        version = SimpleNamespace(lanes=[SimpleNamespace(stages=[stage])], hang_limit_ns=LIMIT_NS)
        self.clock = ManualClock(START_NS)
        self.fatal = []
        self.waits_ns = {"1": 0, "2": 0}
        self.stage = stage
        self.reads = 0
        self.fail = None
        self.watchdog = Watchdog(lambda: [version], self.clock, self.fatal.append, self.read_waits)

    def read_waits(self) -> dict[str, int]:
        self.reads += 1
        if self.fail is not None:
            raise self.fail
        return dict(self.waits_ns)

    def look_until(self, now_ns: int) -> None:
        """Look every half second, and at `now_ns`."""
        while (now := self.clock.now_ns()) < now_ns:
            self.clock.advance(min(STEP_NS, now_ns - now))
            self.watchdog.look()


def test_stage_busy_for_longer_than_the_limit_is_reported():
    watched = Watched()
    watched.look_until(START_NS + LIMIT_NS + 1)
    (error,) = watched.fatal
    assert "detector.1.0.execute has hung for 2.0 s" in str(error)


def test_stage_within_the_limit_is_left_alone():
    watched = Watched()
    watched.look_until(START_NS + LIMIT_NS)
    assert watched.fatal == []


def test_idle_stage_never_hangs():
    watched = Watched(busy_since_ns=0)
    watched.look_until(10 * LIMIT_NS)
    assert watched.fatal == []


def test_pause_of_the_whole_process_is_not_taken_for_a_hang():
    watched = Watched()
    watched.clock.advance(max(PAUSE_NS, LIMIT_NS) + 1)
    watched.watchdog.look()
    assert watched.fatal == []
    watched.look_until(watched.clock.now_ns() + LIMIT_NS + 1)
    assert len(watched.fatal) == 1


def test_time_without_a_cpu_is_not_taken_for_a_hang():
    """One thread of the process waits for three quarters of the time: the limit is four times as far."""
    watched = Watched()
    for _ in range(int(3 * LIMIT_NS / STEP_NS)):
        watched.waits_ns["2"] += STEP_NS * 3 // 4
        watched.look_until(watched.clock.now_ns() + STEP_NS)
    assert watched.fatal == []
    watched.look_until(watched.clock.now_ns() + 2 * LIMIT_NS)  # now it gets all it wants, and the stage is still there
    assert watched.fatal


def test_waiting_before_the_batch_does_not_excuse_a_hang():
    watched = Watched(busy_since_ns=0)
    watched.waits_ns = {"1": 100 * LIMIT_NS, "2": 0}
    watched.look_until(10 * LIMIT_NS)
    watched.stage.busy_since_ns = watched.clock.now_ns()
    watched.look_until(watched.clock.now_ns() + LIMIT_NS + STEP_NS)
    assert watched.fatal


def test_thread_that_began_under_suspicion_counts_from_then():
    watched = Watched()
    watched.look_until(START_NS + LIMIT_NS // 2)
    watched.waits_ns["3"] = 100 * LIMIT_NS
    watched.look_until(START_NS + LIMIT_NS + STEP_NS)
    assert watched.fatal


def test_the_kernel_says_how_long_the_threads_of_this_process_have_waited():
    waits = waits_for_cpu_ns()
    assert all(wait >= 0 for wait in waits.values())
    assert waits == {} or max(waits.values()) < 1e15


def test_one_thread_that_never_gets_a_cpu_excuses_no_hang_for_ever():
    watched = Watched()
    while watched.clock.now_ns() < START_NS + PATIENCE * LIMIT_NS:
        assert watched.fatal == []
        watched.waits_ns["2"] += STEP_NS
        watched.look_until(watched.clock.now_ns() + STEP_NS)
    watched.waits_ns["2"] += STEP_NS
    watched.look_until(watched.clock.now_ns() + STEP_NS)
    assert len(watched.fatal) == 1


def test_the_kernel_is_asked_once_a_look_and_only_under_suspicion():
    watched = Watched(busy_since_ns=0)
    watched.look_until(LIMIT_NS)
    assert watched.reads == 0
    watched.stage.busy_since_ns = watched.clock.now_ns()
    watched.look_until(watched.clock.now_ns() + 3 * STEP_NS)
    assert watched.reads == 3


def test_without_the_kernels_numbers_a_hang_is_still_found_and_it_is_said_once():
    watched = Watched()
    watched.fail = OSError(errno.EMFILE, "Too many open files")
    with capture_logs() as logs:
        watched.look_until(START_NS + LIMIT_NS)
        assert watched.fatal == []
        watched.look_until(START_NS + LIMIT_NS + 1)
    assert len(watched.fatal) == 1
    assert [line["error"] for line in logs] == ["[Errno 24] Too many open files"]


def test_numbers_that_come_back_count_from_then():
    watched = Watched()
    watched.fail = OSError(errno.EMFILE, "Too many open files")
    watched.look_until(START_NS + LIMIT_NS // 2)
    watched.fail, watched.waits_ns = None, {"1": 100 * LIMIT_NS}
    watched.look_until(START_NS + LIMIT_NS + STEP_NS)
    assert watched.fatal


def test_running_out_of_descriptors_is_no_thread_that_has_ended(tmp_path):
    (tmp_path / "1" / "schedstat").mkdir(parents=True)  # cannot be read, and is there
    (tmp_path / "2").mkdir()
    with pytest.raises(OSError, match="schedstat"):
        waits_for_cpu_ns(tmp_path)
    (tmp_path / "1" / "schedstat").rmdir()
    assert waits_for_cpu_ns(tmp_path) == {}


def test_the_watchdogs_thread_looks_at_every_interval_until_it_is_stopped():
    clock, looks = ManualClock(START_NS), []
    thread = WatchdogThread(lambda: looks.append(clock.now_ns()), STEP_NS, clock, lambda _: None)
    thread.start()
    for number in (1, 2):
        clock.wait_for_sleeper(START_NS + number * STEP_NS)
        clock.advance(STEP_NS)
    clock.wait_for_sleeper(START_NS + 3 * STEP_NS)
    thread.stop()
    thread.stop()
    assert looks == [START_NS + STEP_NS, START_NS + 2 * STEP_NS]


def test_a_watchdog_that_fails_is_fatal():
    clock, fatal = ManualClock(START_NS), []
    bug = RuntimeError("our bug")

    def fail():
        raise bug

    thread = WatchdogThread(fail, STEP_NS, clock, fatal.append)
    thread.start()
    clock.wait_for_sleeper(START_NS + STEP_NS)
    with capture_logs():
        clock.advance(STEP_NS)
        thread._thread.join(HANG_GUARD_S)
    thread.stop()
    assert fatal == [bug]
