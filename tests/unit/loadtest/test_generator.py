"""The generator against a fake server, in virtual time: its offered frames, its counts, its measurements."""

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_server.loadtest.accounting import account, violations
from forebay_server.loadtest.arrivals import plan
from forebay_server.loadtest.errors import CannotConnectError
from forebay_server.loadtest.generator import GIVE_UP_S, Generator
from forebay_server.loadtest.recorder import Counters
from forebay_server.loadtest.scenario import ArrivalProcess, Phase, Policy, Scenario
from forebay_server.loadtest.summary import merge, summarise
from forebay_server.loadtest.target import Outcome
from forebay_server.loadtest.verdict import generator_fault
from tests.unit.loadtest.virtual import SOURCE, FakeServer, LoopClock, LoopPacer, generate, offer, run_virtually

ENDS = [
    Outcome.OK,
    Outcome.SUPERSEDED,
    Outcome.EXPIRED,
    Outcome.OVERLOADED,
    Outcome.INVALID,
    Outcome.FAILED,
    Outcome.CANCELLED,
]


def latency_ms(run):
    done = run.rows["outcome"] == Outcome.OK
    return ((run.rows["done_ns"] - run.rows["intended_ns"]) / 1e6)[done]


def test_latency_counts_from_the_intended_send_time():
    run = offer(Scenario(streams=3, fps=20, duration_s=5), FakeServer(lambda _: (0.007, [Outcome.OK])))
    assert run.counters.answers == {"OK": 300}
    assert latency_ms(run) == pytest.approx(7.0, abs=0.01)


def test_a_stall_of_the_server_shows_in_every_frame_that_was_due_meanwhile():
    """Coordinated omission: a closed loop would see one slow frame, the open loop sees all of them."""

    class Stalling(FakeServer):
        async def open(self, stream_id, resume_from=None):
            stream = await super().open(stream_id, resume_from)
            send = stream.send

            async def held_back(*arguments):
                now_s = asyncio.get_running_loop().time()
                if 3 <= now_s < 4:
                    await asyncio.sleep(4 - now_s)
                await send(*arguments)

            stream.send = held_back
            return stream

    scenario = Scenario(fps=50, duration_s=6, policy=Policy.BLOCK, phase=Phase.ALIGNED)
    run = offer(scenario, Stalling(lambda _: (0.001, [Outcome.OK])))
    slow = latency_ms(run)[latency_ms(run) > 2]
    assert len(slow) == pytest.approx(50, abs=1)
    assert slow.max() > 975
    # The time was lost at the server's door, not in the generator.
    assert summarise(scenario, run, 100).latencies["schedule_lag_p99_ms"] < 0.1


def test_drop_oldest_keeps_the_newest_frame_and_counts_the_others():
    class NeverWritable(FakeServer):
        async def open(self, stream_id, resume_from=None):
            stream = await super().open(stream_id, resume_from)

            async def blocked(*_):
                await asyncio.sleep(1e6)

            stream.send = blocked
            return stream

    run = offer(Scenario(fps=10, duration_s=2, queue_depth=3, drain_s=1), NeverWritable())
    accounts = account(run.rows, run.counters)
    assert (accounts.offered, accounts.sent, accounts.lost, accounts.client_dropped) == (20, 1, 1, 19)
    assert not violations(run.rows, run.counters)


@settings(max_examples=30, deadline=None)
@given(
    script=st.lists(st.tuples(st.integers(0, 300), st.sampled_from([*ENDS, None])), min_size=1, max_size=40),
    garbage=st.sets(st.integers(1, 40), max_size=2),
    break_at=st.sets(st.integers(1, 40), max_size=2),
    move_at=st.sets(st.integers(1, 40), max_size=2),
    streams=st.integers(1, 3),
    policy=st.sampled_from(Policy),
)
def test_every_frame_has_exactly_one_end_whatever_the_server_does(script, garbage, break_at, move_at, streams, policy):
    def answer(number):
        delay_ms, outcome = script[number % len(script)]
        return delay_ms / 1e3, [] if outcome is None else [outcome]

    server = FakeServer(answer, garbage=garbage, break_at=break_at, move_at=move_at)
    run = offer(Scenario(streams=streams, fps=20, duration_s=1, policy=policy, drain_s=1), server)
    accounts = account(run.rows, run.counters)
    assert accounts.is_balanced
    assert len(run.rows) == accounts.offered == 20 * streams
    wrong = violations(run.rows, run.counters)
    assert bool(wrong) == (run.counters.garbage > 0)
    assert not np.isin(run.rows["outcome"], [Outcome.QUEUED, Outcome.SENT]).any()


def test_frames_that_are_never_answered_are_lost():
    run = offer(Scenario(fps=10, duration_s=5), FakeServer(lambda n: (0.01, [] if n % 10 == 3 else [Outcome.OK])))
    accounts = account(run.rows, run.counters)
    assert (accounts.answered, accounts.lost) == (45, 5)
    assert accounts.is_balanced


def test_an_answer_after_the_drain_time_is_lost():
    server = FakeServer(lambda number: (3.0 if number == 50 else 0.01, [Outcome.OK]))
    run = offer(Scenario(fps=10, duration_s=5, drain_s=1), server)
    assert account(run.rows, run.counters).lost == 1


def test_answers_out_of_order_are_counted_and_still_answers():
    run = offer(Scenario(fps=10, duration_s=2), FakeServer(lambda n: (0.25 if n == 5 else 0.01, [Outcome.OK])))
    assert run.counters.out_of_order == 1
    assert run.counters.answers == {"OK": 20}
    assert not violations(run.rows, run.counters)


def test_a_second_answer_is_a_fault_of_the_server_and_the_first_one_counts():
    run = offer(Scenario(fps=10, duration_s=2), FakeServer(lambda n: (0.01, [Outcome.OK] * (2 if n == 7 else 1))))
    assert run.counters.answers == {"OK": 20}
    assert violations(run.rows, run.counters) == ["the server sent 1 answers for frames that were already answered"]


def test_garbage_is_counted_and_its_frame_is_lost():
    run = offer(Scenario(fps=10, duration_s=2), FakeServer(garbage={4}))
    assert account(run.rows, run.counters).lost == 1
    assert violations(run.rows, run.counters) == ["the server sent 1 messages that could not be understood"]


def test_a_broken_stream_loses_what_was_in_flight_and_is_opened_again():
    server = FakeServer(lambda _: (0.15, [Outcome.OK]), break_at={10})
    run = offer(Scenario(fps=20, duration_s=2, policy=Policy.BLOCK, phase=Phase.ALIGNED), server)
    assert server.opened == [None, 11]
    assert run.counters.broken_streams == 1
    assert account(run.rows, run.counters).is_balanced
    assert 1 <= account(run.rows, run.counters).lost <= 4
    assert not run.ended_early


def test_a_stream_that_the_server_moves_loses_nothing():
    server = FakeServer(lambda _: (0.12, [Outcome.OK]), move_at={10, 20})
    run = offer(Scenario(fps=20, duration_s=2), server)
    assert run.counters.answers == {"OK": 40}
    assert run.counters.reconnects == 2
    assert run.counters.broken_streams == 0
    assert len(server.opened) == 3


def test_a_server_that_goes_away_ends_the_run_early_and_the_part_before_is_kept():
    def is_down():
        return asyncio.get_running_loop().time() > 4

    run = offer(Scenario(fps=10, duration_s=60), FakeServer(is_down=is_down))
    assert run.ended_early.startswith("no stream could be reopened for 5 s: connection refused")
    accounts = account(run.rows, run.counters)
    assert accounts.is_balanced
    assert accounts.answered == pytest.approx(29, abs=1)
    assert run.offered_for_s < 12


def test_answers_that_take_longer_than_giving_up_would_are_waited_for():
    scenario = Scenario(fps=10, duration_s=2, policy=Policy.BLOCK, drain_s=10)
    merged = offer(scenario, FakeServer(lambda _: (GIVE_UP_S + 3, [Outcome.OK])))
    assert merged.ended_early == ""
    assert merged.counters.answers == {"OK": 20}


def test_a_server_that_dies_shortly_before_the_end_is_given_up_while_frames_wait():
    scenario = Scenario(fps=10, duration_s=2, policy=Policy.BLOCK, drain_s=10)
    loop_s = lambda: asyncio.get_running_loop().time()  # noqa: E731
    merged = offer(scenario, FakeServer(is_down=lambda: loop_s() > 2.5))
    assert "could be reopened" in merged.ended_early


def test_no_server_at_all_is_an_error():
    with pytest.raises(CannotConnectError, match="refused"):
        offer(Scenario(), FakeServer(is_down=lambda: True))


def test_a_closed_loop_keeps_its_frames_in_flight_and_no_more():
    scenario = Scenario(arrival=ArrivalProcess.CLOSED, streams=2, concurrency=3, duration_s=5)
    run = offer(scenario, FakeServer(lambda _: (0.1, [Outcome.OK])))
    assert run.counters.answers["OK"] == pytest.approx(2 * 3 * 5 / 0.1, rel=0.03)
    assert latency_ms(run) == pytest.approx(100, abs=0.1)


def test_stage_durations_and_the_network_add_up_to_the_latency():
    server = FakeServer(lambda _: (0.02, [Outcome.OK]), stages_us=(100, 2000, 3000, 400, 8000, 500, 1000, 15_000))
    scenario = Scenario(fps=20, duration_s=20)
    stages = summarise(scenario, offer(scenario, server), 100).stages
    assert list(stages) == ["client", "network", "receive", "decode", "queue", "h2d", "execute", "d2h", "deliver"]
    assert stages["execute"]["mean_ms"] == 8.0
    assert stages["network"]["mean_ms"] == pytest.approx(5.0, abs=0.05)
    assert sum(part["mean_ms"] for part in stages.values()) == pytest.approx(20.0, abs=0.05)


def test_the_age_of_a_result_counts_from_the_capture():
    scenario = Scenario(fps=10, duration_s=30, jitter_ms=40)
    summary = summarise(scenario, offer(scenario, FakeServer(lambda _: (0.01, [Outcome.OK]))), 100)
    assert summary.latencies["p99_ms"] == pytest.approx(10, abs=0.1)
    assert 45 < summary.latencies["age_p99_ms"] <= 50.1
    # Just before the next result arrives, the newest one is a period older.
    assert 100 < summary.latencies["staleness_p99_ms"] < 151


def test_a_stream_that_is_no_longer_answered_grows_stale_until_the_end():
    """p99 does not include it, because p99 is of the answers."""
    server = FakeServer(lambda number: (0.01, [Outcome.OK] if number <= 150 else []))
    summary = summarise(Scenario(fps=10, duration_s=30), offer(Scenario(fps=10, duration_s=30), server), 100)
    assert summary.latencies["p99_ms"] == pytest.approx(10, abs=0.1)
    assert 14_500 < summary.latencies["staleness_p99_ms"] < 15_200


class ThrottledClock(LoopClock):
    """A generator that does not get to run: every reading is late by up to 30 ms, as on a starved host."""

    def __init__(self):
        self._readings = 0

    def now_ns(self):
        self._readings += 1
        return super().now_ns() + (self._readings % 31) * 1_000_000


def test_a_throttled_generator_calls_its_own_run_invalid():
    scenario = Scenario(fps=20, duration_s=20)
    run = run_virtually(generate(scenario, FakeServer(), clock=ThrottledClock()))
    latencies = summarise(scenario, merge([run]), 100).latencies
    fault = generator_fault(latencies["schedule_lag_p99_ms"], latencies["p50_ms"], is_open_loop=True)
    assert "the generator was the bottleneck" in fault


def test_progress_is_reported_while_the_run_goes_on():
    seen: list[int] = []

    async def run():
        scenario, clock = Scenario(fps=10, duration_s=3), LoopClock()
        generator = Generator(
            scenario=scenario,
            plans=plan(scenario),
            target=FakeServer(),
            source=SOURCE,
            clock=clock,
            pacer=LoopPacer(clock),
        )
        await generator.prepare()

        def note(rows, counters: Counters):
            seen.append(counters.sent)

        return await generator.run(clock.now_ns(), note)

    run_virtually(run())
    assert len(seen) == 6
    assert seen == sorted(seen)
