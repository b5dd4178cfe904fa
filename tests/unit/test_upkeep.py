"""The upkeep runs each job at its interval, independent of the others, and ends when it is closed."""

import threading

from forebay_server.service.upkeep import Upkeep
from tests.support.guard import HANG_GUARD_S


def test_jobs_run_as_often_as_they_ask_for_and_one_that_fails_stops_no_other():
    ran, done = [], threading.Event()

    def often():
        ran.append("often")
        if len(ran) == 100:
            done.set()
        return 0.0

    def once():
        ran.append("once")
        return 1e6

    def fails():
        ran.append("fails")
        raise ValueError("for the test")

    upkeep = Upkeep([often, once, fails])
    upkeep.start()
    assert done.wait(HANG_GUARD_S)
    upkeep.close()
    assert ran.count("once") == 1
    assert ran[:3] == ["often", "once", "fails"]


def test_one_that_was_never_started_can_be_closed():
    Upkeep([lambda: 1.0]).close()
