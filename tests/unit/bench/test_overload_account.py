"""Every frame of an overloaded run is counted once, and the shares come from those counts."""

import json
import math

import pytest

from forebay_server.bench.overload_account import Cost, Fate, Frame, account_of, frames_of, mean_stage_ms, quantile


def executed(due_s, latency_ms, batch_size=8):
    fate = Fate.IN_TIME if latency_ms <= 100 else Fate.LATE
    return Frame(fate, due_s, 1.0, latency_ms, 90.0, 50.0, batch_size)


def refused(due_s, latency_ms=60.0, budget_ms=90.0, decided_ms=30.0, fate=Fate.EXPIRED):
    return Frame(fate, due_s, 2.0, latency_ms, budget_ms, decided_ms)


def test_what_became_of_the_frames_adds_up_to_what_was_offered():
    frames = [
        executed(0.1, 50),
        executed(0.2, 150),
        refused(0.3),
        refused(0.4, fate=Fate.SUPERSEDED),
        refused(0.5, fate=Fate.OVERLOADED),
        Frame(Fate.NOT_SENT, 0.6),
    ]
    account = account_of(frames, 2.0)
    assert account.offered_per_s == 3.0
    assert sum(account.fates.values()) == len(frames)
    assert {fate: count for fate, count in account.fates.items() if count} == {
        "in time": 1,
        "late": 1,
        "expired": 1,
        "overloaded": 1,
        "superseded": 1,
        "not sent": 1,
    }
    assert account.void == []


def test_the_share_is_over_what_could_be_in_time():
    account = account_of([executed(second / 10, 50) for second in range(10)] + [refused(0.5)] * 10, 1.0)
    assert account.in_time_per_s == 10.0
    assert account.share_of(capacity_per_s=16.0) == 10 / 16
    assert account.share_of(capacity_per_s=1000.0) == 0.5


def test_a_late_frame_is_no_frame_in_time_but_its_latency_and_batch_count():
    account = account_of([executed(0.0, 40, batch_size=4), executed(0.0, 140, batch_size=8)], 1.0)
    assert account.in_time_per_s == 1.0
    assert (account.p50_ms, account.p99_ms, account.mean_batch) == (40, 140, 6.0)


def test_frames_in_time_are_counted_for_each_second_so_that_a_collapse_shows():
    frames = [executed(0.1, 50), executed(0.9, 50), executed(1.5, 500), executed(2.0, 50)]
    assert account_of(frames, 3.5).in_time_each_s == [2, 0, 1, 0]


def test_refusals_are_judged_by_the_servers_clock_and_by_the_clients():
    frames = [refused(0.0, latency_ms=70.0), refused(0.0, latency_ms=300.0, budget_ms=20.0, decided_ms=21.0)]
    account = account_of(frames, 1.0)
    assert account.refusals == 2
    assert account.decided_share == 0.5
    assert (account.refusal_p50_ms, account.refusal_p99_ms) == (70.0, 300.0)


def test_a_superseded_frame_is_a_refusal_and_one_that_was_not_sent_is_none():
    account = account_of([refused(0.0, fate=Fate.SUPERSEDED), Frame(Fate.NOT_SENT, 0.0)], 1.0)
    assert account.refusals == 1


def test_without_refusals_or_executions_quantiles_are_no_numbers():
    account = account_of([Frame(Fate.NOT_SENT, 0.0)], 1.0)
    assert math.isnan(account.refusal_p99_ms)
    assert math.isnan(account.p99_ms)
    assert math.isnan(account.lag_p99_ms)
    assert account.mean_batch == 0.0


@pytest.mark.parametrize("fate", [Fate.UNANSWERED, Fate.OTHER])
def test_a_frame_that_got_lost_or_failed_makes_the_run_void(fate):
    account = account_of([executed(0.0, 50), Frame(fate, 0.0, 1.0)], 1.0)
    assert account.void == [f"1 frames {fate.value}"]


def test_a_run_without_frames_says_nothing():
    with pytest.raises(ValueError, match="no frame was offered"):
        account_of([], 1.0)


def test_quantile_is_the_value_that_so_many_do_not_exceed():
    assert quantile([3.0, 1.0, 2.0, 4.0], 0.5) == 2.0
    assert quantile([float(value) for value in range(1, 101)], 0.99) == 99.0
    assert quantile([5.0], 0.01) == 5.0


def test_cost_of_a_frame_says_how_many_the_cores_can_move():
    cost = Cost(server=0.6, clients=0.4, hog=0.0, others=0.1, cores=2, sent_per_s=1000.0, server_waited=0.0)
    assert cost.server_ms == pytest.approx(0.6)
    assert cost.clients_ms == pytest.approx(0.4)
    assert cost.movable_per_s == pytest.approx(2000.0)


def test_without_a_frame_sent_a_frame_has_no_cost():
    cost = Cost(server=0.6, clients=0.4, hog=0.0, others=0.1, cores=2, sent_per_s=0.0, server_waited=0.0)
    assert math.isnan(cost.server_ms)
    assert math.isnan(cost.movable_per_s)


def test_frames_of_a_process_come_back_from_json():
    frames = [Frame(Fate.IN_TIME, 1.5, lag_ms=0.5, latency_ms=20.0, batch_size=4), Frame(Fate.EXPIRED, 2.0)]
    (executed, expired) = frames_of(json.loads(json.dumps({"frames": frames})))
    assert executed[:4] == frames[0][:4]
    assert (executed.fate, executed.batch_size, expired.fate) == (Fate.IN_TIME, 4, Fate.EXPIRED)


def test_stages_are_means_over_the_executed_frames_of_all_processes():
    results = [{"stages_us": {"queue": 1000, "execute": 4000}}, {"stages_us": {"queue": 3000, "execute": 4000}}]
    assert mean_stage_ms(results, executed=4) == {"queue": 1.0, "execute": 2.0}
    assert mean_stage_ms([{"stages_us": {}}], executed=0) == {}
