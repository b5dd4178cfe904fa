"""While the front end is behind, a share of the frames with a deadline is refused, the same for every stream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.wire import frames_pb2 as pb
from forebay_server.service.errors import Outcome, OverloadedError
from forebay_server.service.frontend.lag import (
    LEAST_ADMITTED,
    LONGEST_ADVICE_MS,
    SILENCE_NS,
    Gate,
    Lag,
)
from tests.support.front_end import Scene

MS = 1_000_000
BUDGET_NS = 90 * MS


class Loop:
    """A front end whose answers take as long to write as a test says, one each millisecond."""

    def __init__(self):
        self.now_ns = 10 * SILENCE_NS
        self.lag = Lag()

    def run(self, took_ms, seconds):
        for _ in range(round(seconds * 1000)):
            self.now_ns += MS
            self.lag.observe(round(took_ms * MS), self.now_ns)

    def share(self, budget_ns=BUDGET_NS):
        return self.lag.refused_share(budget_ns, self.now_ns)

    def refused(self, gate, frames, budget_ns=BUDGET_NS):
        count = 0
        for _ in range(frames):
            try:
                gate.check(budget_ns, self.now_ns)
            except OverloadedError:
                count += 1
        return count


def test_nothing_is_refused_before_anything_is_known():
    assert Loop().share() == 0.0


def test_nothing_is_refused_while_the_loop_keeps_up():
    loop = Loop()
    loop.run(5, seconds=2)
    assert loop.share() == 0.0


def test_the_share_rises_with_the_lag_and_some_always_get_through():
    loop = Loop()
    shares = []
    for took_ms in (5, 10, 15, 20, 50, 900):
        loop.run(took_ms, seconds=2)
        shares.append(loop.share())
    assert shares == sorted(shares)
    assert shares[0] == 0.0 < shares[1]
    assert shares[-1] == 1.0 - LEAST_ADMITTED


def test_a_tight_budget_bears_less_lag_than_a_long_one():
    loop = Loop()
    loop.run(10, seconds=2)
    assert loop.share(33 * MS) > loop.share(BUDGET_NS) > loop.share(1000 * MS) == 0.0


@pytest.mark.parametrize("budget_ns", [0, 1, 5 * MS])
def test_a_loop_that_is_as_quick_as_threads_allow_refuses_no_budget(budget_ns):
    loop = Loop()
    loop.run(4.9, seconds=2)
    assert loop.share(budget_ns) == 0.0


def test_a_single_stall_is_no_overload():
    loop = Loop()
    loop.run(1, seconds=1)
    loop.now_ns += 60 * MS
    loop.lag.observe(60 * MS, loop.now_ns)
    assert loop.refused(Gate(loop.lag), 5) == 0
    loop.run(1, seconds=0.1)
    assert loop.share() == 0.0


@pytest.mark.parametrize("took_ms", [30, 100, 3000])
def test_a_lag_that_is_over_is_forgotten_within_half_a_second(took_ms):
    loop = Loop()
    loop.run(took_ms, seconds=2)
    assert loop.share() == 1.0 - LEAST_ADMITTED
    loop.run(1, seconds=0.7 if took_ms == 3000 else 0.5)
    assert loop.share() == 0.0


def test_a_lag_is_forgotten_when_no_answer_leaves_any_more():
    loop = Loop()
    loop.run(100, seconds=2)
    loop.now_ns += SILENCE_NS + 1
    assert loop.share() == 0.0
    loop.lag.observe(MS, loop.now_ns)
    assert loop.share() == 0.0


@given(took_ms=st.lists(st.floats(0, 5000), min_size=1, max_size=40), seconds=st.floats(0.01, 1.0))
def test_no_lag_is_believed_for_more_than_a_second(took_ms, seconds):
    """Whatever the loop went through: a second in which answers leave at once, and nothing is refused."""
    loop = Loop()
    for each_ms in took_ms:
        loop.run(each_ms, seconds=seconds / len(took_ms))
    loop.run(1, seconds=1.0)
    assert loop.share() == 0.0


def test_every_stream_loses_the_same_share_of_its_frames():
    loop = Loop()
    loop.run(9, seconds=2)
    share = loop.share()
    busy, calm = Gate(loop.lag), Gate(loop.lag)
    assert 0.1 < share < 0.2
    assert loop.refused(busy, 1000) == pytest.approx(1000 * share, abs=1)
    assert loop.refused(calm, 100) == pytest.approx(100 * share, abs=1)


def test_what_a_stream_was_spared_in_one_overload_is_forgotten_in_the_next():
    loop = Loop()
    gate = Gate(loop.lag)
    loop.run(900, seconds=2)
    assert loop.refused(gate, 3) == 0  # three quarters of a frame are owed
    loop.run(1, seconds=1)
    assert loop.refused(gate, 1) == 0
    loop.run(900, seconds=2)
    assert loop.refused(gate, 3) == 0
    assert loop.refused(gate, 1) == 1


def test_a_frame_without_a_budget_is_never_refused():
    loop = Loop()
    loop.run(900, seconds=2)
    assert loop.refused(Gate(loop.lag), 10, budget_ns=None) == 0


@pytest.mark.parametrize(("budget_ms", "advice_ms"), [(90, 270), (0.2, 1), (400, LONGEST_ADVICE_MS)])
def test_the_advice_is_to_wait_for_three_budgets(budget_ms, advice_ms):
    loop = Loop()
    loop.run(900, seconds=3)
    gate = Gate(loop.lag)
    assert loop.refused(gate, 3, round(budget_ms * MS)) == 0
    with pytest.raises(OverloadedError) as refused:
        gate.check(round(budget_ms * MS), loop.now_ns)
    assert refused.value.retry_after_ms == advice_ms


def test_a_client_that_takes_its_answers_slowly_is_not_taken_for_the_server():
    """One answer of fifty takes a second, the others a millisecond."""
    loop = Loop()
    for _ in range(100):
        loop.run(1, seconds=0.049)
        loop.run(1000, seconds=0.001)
        assert loop.share() == 0.0


def test_a_session_that_is_behind_refuses_frames_and_advises_to_wait():
    scene = Scene(latency_budget_ms=90.0, delivery=pb.DELIVERY_EVERY)
    for _ in range(100):
        scene.clock.advance(MS)
        scene.lag.observe(40 * MS, scene.clock.now_ns())
    for seq in range(1, 9):
        scene.send(seq)
        scene.settle()
    refused = [result for result in scene.results if result.status.code == pb.STATUS_OVERLOADED]
    assert [result.seq for result in refused] == [4, 8]
    assert {result.status.retry_after_ms for result in refused} == {270}
    assert [result.seq for result in scene.results] == list(range(1, 9))
    assert scene.session.outcomes[Outcome.OVERLOADED] == 2


def test_the_budget_of_the_frame_counts_not_that_of_the_stream():
    scene = Scene(latency_budget_ms=90.0, delivery=pb.DELIVERY_EVERY)
    for _ in range(100):
        scene.clock.advance(MS)
        scene.lag.observe(40 * MS, scene.clock.now_ns())
    for seq in range(1, 9):
        scene.send(seq, budget_ms=5000.0)
        scene.settle()
    assert {result.status.code for result in scene.results} == {pb.STATUS_OK}
