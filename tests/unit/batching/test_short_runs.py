"""Work runs at once as long as that is quick, and is always tried again."""

from forebay_server.service.batching.short_runs import LONG_RUNS, REST_NS, ShortRuns

LONG_NS = 5_000_000


def after(*runs_ns):
    """Runs one after the other from 0 on; return them and the end of the last one."""
    runs, now_ns = ShortRuns(LONG_NS), 0
    for took_ns in runs_ns:
        now_ns += took_ns
        runs.observe(took_ns, now_ns)
    return runs, now_ns


def test_long_runs_in_a_row_give_the_work_back_for_a_while():
    runs, now_ns = after(*[LONG_NS] * LONG_RUNS)
    assert not runs.may_run(now_ns)
    assert not runs.may_run(now_ns + REST_NS - 1)
    assert runs.may_run(now_ns + REST_NS)


def test_a_short_run_in_between_shows_that_the_machine_was_slow_and_not_the_model():
    long = [LONG_NS] * (LONG_RUNS - 1)
    runs, now_ns = after(*long, LONG_NS - 1, *long)
    assert runs.may_run(now_ns)


def test_after_a_rest_one_long_run_is_enough_and_one_short_run_ends_the_suspicion():
    runs, now_ns = after(*[LONG_NS] * LONG_RUNS)
    now_ns += REST_NS
    runs.observe(LONG_NS, now_ns)
    assert not runs.may_run(now_ns)
    now_ns += REST_NS
    runs.observe(1, now_ns)
    runs.observe(LONG_NS, now_ns)
    assert runs.may_run(now_ns)
