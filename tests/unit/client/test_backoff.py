"""When a stream tries again: full jitter, a bound, advice obeyed, and never too often."""

from hypothesis import given
from hypothesis import strategies as st

from forebay.client.backoff import BURST, Backoff

SECOND_NS = 1_000_000_000


def backoff(draw=lambda: 1.0, reopenings_per_s=1e6):
    return Backoff(base_s=0.1, cap_s=2.0, reopenings_per_s=reopenings_per_s, draw=draw)


def test_bound_doubles_up_to_the_cap():
    paced = backoff()
    delays = [paced.delay_s(index, has_failed=True) for index in range(7)]
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_full_jitter_draws_from_zero():
    assert backoff(draw=lambda: 0.0).delay_s(0, has_failed=True) == 0.0


def test_an_answer_makes_the_next_failure_the_first():
    paced = backoff()
    paced.delay_s(0, has_failed=True)
    paced.delay_s(1, has_failed=True)
    paced.succeeded()
    assert paced.delay_s(2, has_failed=True) == 0.1


def test_orderly_reopening_needs_no_back_off():
    assert backoff().delay_s(0, has_failed=False) == 0.0


def test_server_advice_is_a_lower_bound():
    assert backoff().delay_s(0, has_failed=True, hint_ms=1500) == 1.5


def test_many_failures_do_not_overflow():
    paced = backoff()
    assert max(paced.delay_s(index, has_failed=True) for index in range(5000)) == 2.0


def test_calls_that_were_not_opened_take_no_token():
    paced = backoff(draw=lambda: 0.0, reopenings_per_s=1.0)
    assert [paced.delay_s(0, has_failed=True) for _ in range(20)] == [0.0] * 20


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), min_size=1, max_size=60))
def test_a_stream_is_never_reopened_more_often_than_allowed(calls):
    paced = backoff(draw=lambda: 0.0, reopenings_per_s=1.0)
    now_ns, opened_ns = 0, []
    for lasted_s, has_failed in calls:
        now_ns += round(paced.delay_s(now_ns, has_failed=has_failed) * SECOND_NS)
        paced.opened(now_ns)
        opened_ns.append(now_ns)
        now_ns += round(lasted_s * SECOND_NS)
    for first, start_ns in enumerate(opened_ns):
        for last, end_ns in enumerate(opened_ns[first:], start=1):
            assert last <= BURST + 1 + (end_ns - start_ns) / SECOND_NS + 1e-6
