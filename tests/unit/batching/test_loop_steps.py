"""The event loop steps formers as long as that is quick, and always tries again."""

from forebay_server.service.batching.loop_steps import LONG_STEP_NS, LONG_STEPS, REST_NS, LoopSteps


def after(*steps_ns):
    """Steps one after the other from 0 on; return them and when the last one ended."""
    steps, now_ns = LoopSteps(), 0
    for took_ns in steps_ns:
        steps.observe(now_ns, now_ns + took_ns)
        now_ns += took_ns
    return steps, now_ns


def test_long_steps_in_a_row_give_the_work_back_for_a_while():
    steps, now_ns = after(*[LONG_STEP_NS] * LONG_STEPS)
    assert not steps.may_step(now_ns)
    assert not steps.may_step(now_ns + REST_NS - 1)
    assert steps.may_step(now_ns + REST_NS)


def test_a_short_step_in_between_shows_that_the_machine_was_slow_and_not_the_model():
    long = [LONG_STEP_NS] * (LONG_STEPS - 1)
    steps, now_ns = after(*long, LONG_STEP_NS - 1, *long)
    assert steps.may_step(now_ns)


def test_after_a_rest_one_long_step_is_enough_and_one_short_step_ends_the_suspicion():
    steps, now_ns = after(*[LONG_STEP_NS] * LONG_STEPS)
    now_ns += REST_NS
    steps.observe(now_ns, now_ns + LONG_STEP_NS)
    assert not steps.may_step(now_ns + LONG_STEP_NS)
    now_ns += LONG_STEP_NS + REST_NS
    steps.observe(now_ns, now_ns + 1)
    steps.observe(now_ns, now_ns + LONG_STEP_NS)
    assert steps.may_step(now_ns + LONG_STEP_NS)
