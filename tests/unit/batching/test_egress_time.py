"""The delivery time, as learnt from results that left; and the former's use of it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.bench.batching_metrics import evaluate
from forebay_server.bench.batching_workloads import GPU, MS, SECOND_NS, cameras, poisson
from forebay_server.bench.virtual_egress import VirtualEgress
from forebay_server.bench.virtual_time import VirtualTime
from forebay_server.service.batching.egress import Egress
from forebay_server.service.batching.egress_forecast import EgressForecast
from forebay_server.service.batching.egress_time import LONGEST_NS, EgressTime
from forebay_server.service.batching.settings import BatchingSettings
from forebay_server.service.errors import Outcome
from forebay_server.service.request import Batch, Feasibility
from tests.support.batching import CoreRig, request

SETTINGS = BatchingSettings(32)
CAPACITY_PER_S = GPU.capacity_per_ns * SECOND_NS


def deliver_for(egress_time, start_ms, seconds, took_ms, *, results=1, interval_ms=0.0, every_ms=10):
    """Deliver a batch of results every few milliseconds, one after the other; return the millisecond after it."""
    for readable_ms in range(int(start_ms), int(start_ms + seconds * 1e3), every_ms):
        for number in range(results):
            left_ms = readable_ms + took_ms + number * interval_ms
            egress_time.observe(int(readable_ms * MS), int(left_ms * MS))
    return int(start_ms + seconds * 1e3)


def test_nothing_is_known_before_the_first_window_has_ended():
    egress_time = EgressTime()
    now_ms = deliver_for(egress_time, 1_000, 0.09, 7)
    assert (egress_time.mean_ns, egress_time.upper_ns) == (0, 0)
    deliver_for(egress_time, now_ms, 0.09, 7)
    assert (egress_time.mean_ns, egress_time.upper_ns) == (7 * MS, 7 * MS)


def test_what_one_result_takes_and_what_each_further_one_takes_are_told_apart():
    egress_time = EgressTime()
    deliver_for(egress_time, 1_000, 1, 2, results=8, interval_ms=0.25)
    assert egress_time.mean_ns == 2 * MS
    assert egress_time.interval_ns == MS // 4


def test_result_that_waited_for_its_client_counts_as_gone_and_for_nothing_else():
    egress_time = EgressTime()
    now_ms = deliver_for(egress_time, 1_000, 1, 2)
    egress_time.observe(now_ms * MS, (now_ms + 500) * MS, is_typical=False)
    deliver_for(egress_time, now_ms + 501, 0.2, 2)
    assert egress_time.upper_ns == 2 * MS
    assert egress_time.interval_ns == 0


def test_upper_estimate_lies_between_the_mean_and_the_longest():
    egress_time = EgressTime()
    for number in range(100):
        readable_ms = 1_000 + number * 10
        egress_time.observe(readable_ms * MS, (readable_ms + (9 if number % 10 == 9 else 1)) * MS)
    assert egress_time.mean_ns == pytest.approx(1.8 * MS, rel=0.02)
    assert egress_time.upper_ns == pytest.approx((1.8 + 9) / 2 * MS, rel=0.02)


def test_one_stall_does_not_count():
    egress_time = EgressTime()
    now_ms = deliver_for(egress_time, 1_000, 1, 1)
    now_ms = deliver_for(egress_time, now_ms, 0.1, 80, every_ms=100)
    deliver_for(egress_time, now_ms, 0.2, 1)
    assert egress_time.mean_ns == MS
    assert egress_time.upper_ns <= 2 * MS


def test_overload_of_the_front_end_and_its_end_show_within_a_second():
    egress_time = EgressTime()
    now_ms = deliver_for(egress_time, 1_000, 2, 1)
    now_ms = deliver_for(egress_time, now_ms, 0.7, 40, every_ms=50)
    assert egress_time.mean_ns == 40 * MS
    deliver_for(egress_time, now_ms, 0.7, 1)
    assert egress_time.mean_ns == MS


def test_results_that_find_delivery_free_take_back_what_is_believed_of_those_that_wait():
    egress_time = EgressTime()
    now_ms = deliver_for(egress_time, 1_000, 1, 1, results=2, interval_ms=6)
    assert egress_time.interval_ns == 6 * MS
    now_ms = deliver_for(egress_time, now_ms, 0.3, 1)
    assert egress_time.interval_ns == 6 * MS, "three windows are not the most of eight"
    deliver_for(egress_time, now_ms, 0.4, 1)
    assert egress_time.interval_ns == MS


def test_results_that_find_delivery_free_never_make_the_interval_longer():
    egress_time = EgressTime()
    now_ms = deliver_for(egress_time, 1_000, 1, 2, results=8, interval_ms=0.25)
    deliver_for(egress_time, now_ms, 1, 2)
    assert egress_time.interval_ns == MS // 4


def test_silence_makes_it_begin_anew():
    egress_time = EgressTime()
    now_ms = deliver_for(egress_time, 1_000, 2, 40)
    deliver_for(egress_time, now_ms + 2_000, 0.01, 1)
    assert egress_time.mean_ns == egress_time.upper_ns == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 2 * SECOND_NS), st.integers(-SECOND_NS, 3 * SECOND_NS), st.booleans()), max_size=60
    )
)
def test_estimates_stay_in_their_range_whatever_is_observed(steps):
    egress_time, now_ns = EgressTime(), 10 * SECOND_NS
    for elapsed_ns, took_ns, is_typical in steps:
        now_ns += elapsed_ns
        egress_time.observe(now_ns - took_ns, now_ns, is_typical=is_typical)
        assert 0 <= egress_time.mean_ns <= egress_time.upper_ns <= LONGEST_NS
        assert 0 <= egress_time.interval_ns <= LONGEST_NS
        assert egress_time.reached_count > 0


def test_results_leave_after_the_download_or_when_egress_gets_to_them():
    egress = Egress(alone_ns=1000, interval_ns=200, margin_ns=50)
    assert egress.left_ns(10 * MS, 8) == 10 * MS + 1000 + 4 * 200
    assert egress.left_upper_ns(10 * MS, 8) == 10 * MS + 1000 + 50 + 8 * 200
    busy = egress._replace(free_ns=20 * MS)
    assert busy.left_ns(10 * MS, 8) == 20 * MS + 1000 + 4 * 200
    assert busy.left_upper_ns(10 * MS, 1) == 20 * MS + 1000 + 50 + 200


def handed_over(rig, instants_ms, results):
    """Batches whose outputs were readable at `instants_ms` are on their way out."""
    forecast = EgressForecast(rig.egress_time)
    rig.egress_time.observe(1, 2)
    for instant_ms in instants_ms:
        batch = Batch(1, 0, 0, [request() for _ in range(results)], results, results, 0)
        batch.requests[0].timeline.readable_ns = instant_ms * MS
        forecast.handed(batch)
    return forecast


def test_results_on_their_way_out_are_counted_until_they_leave():
    rig = CoreRig()
    forecast = handed_over(rig, (100, 110, 120), 4)
    assert forecast.waiting(121 * MS) == 12
    rig.egress_time.observe(100 * MS, 122 * MS)
    assert forecast.waiting(122 * MS) == 11
    rig.egress_time.observe(110 * MS, 123 * MS)
    assert forecast.waiting(123 * MS) == 7, "what has been overtaken waits for a client, not for the front end"
    for _ in range(4):
        rig.egress_time.observe(120 * MS, 124 * MS)
    assert forecast.waiting(124 * MS) == 0


def test_results_of_two_lanes_are_counted_whichever_is_told_of_first():
    rig = CoreRig()
    forecast = handed_over(rig, (110, 100), 4)
    for left in range(1, 5):
        rig.egress_time.observe(100 * MS, 111 * MS)
        assert forecast.waiting(111 * MS) == 8 - left


def test_results_whose_clients_have_gone_are_forgotten():
    rig = CoreRig()
    forecast = handed_over(rig, (100,), 4)
    assert forecast.waiting(1_100 * MS) == 4
    assert forecast.waiting(1_101 * MS) == 0


def test_a_tight_stream_is_served_while_another_client_takes_nothing():
    rig = CoreRig()
    rig.deliver(1, interval_ms=40)
    slow = rig.arrive(200)
    rig.advance(5)
    rig.finish()
    rig.egress_time.observe(slow.timeline.readable_ns, rig.now_ns, is_typical=False)  # parked behind its client
    tight = rig.arrive(33)
    assert rig.batches[1].requests == [tight]
    assert rig.core.egress.is_idle


def test_forecast_is_the_queue_that_is_left_when_the_next_batch_is_done():
    rig = CoreRig()
    forecast = handed_over(rig, (1_000,), 100)
    rig.deliver(1, interval_ms=0.5)
    rig.arrive(200, rows=32, step=False)
    egress = forecast.next_batch(1_000 * MS, rig.cost, rig.core.lanes, rig.core.pending)
    assert egress.first_result_ns == pytest.approx((1 + 100 * 0.5 - 9.4) * MS, abs=MS // 2)
    assert not egress.is_idle


@pytest.mark.parametrize(("rows", "results"), [((1,) * 32, 32), ((32,), 1), ((8, 8, 8, 8), 4)])
def test_delivery_of_a_batch_takes_as_many_intervals_as_it_has_results_and_not_rows(rows, results):
    rig = CoreRig()
    rig.deliver(1, interval_ms=0.5)
    rig.arrive(200, rows=32)
    for size in rows:
        rig.arrive(200, rows=size, step=False)
    rig.step()
    egress = rig.core.egress
    beside_ns = 0.21 * MS + egress.first_result_ns
    assert egress.with_download_ns(rig.cost.d2h_ns(32), 32) == pytest.approx(beside_ns + results * MS // 4, abs=1000)


def test_frame_that_delivery_would_make_late_is_given_up_for_one_that_can_be_in_time():
    rig = CoreRig()
    rig.deliver(10)
    rig.arrive(200, rows=32)
    tight, patient = rig.arrive(20), rig.arrive(60)
    rig.advance(11)
    assert rig.ended() == {tight: Outcome.EXPIRED}
    assert rig.batches[1].requests == [patient]
    assert "10.0 ms to be delivered" in rig.completions[0].error.message


def test_batch_is_made_smaller_so_that_delivery_keeps_its_deadline():
    sizes = []
    for delivery_ms in (0, 6):
        rig = CoreRig()
        rig.deliver(delivery_ms)
        rig.arrive(200, rows=32)
        rig.arrive(23, step=False)
        for _ in range(30):
            rig.arrive(60, step=False)
        rig.step()
        rig.advance(10)
        assert not rig.completions
        sizes.append(rig.batches[1].rows)
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("interval_ms", [3, 5, 8])
@pytest.mark.parametrize("count", [32, 72])
def test_batch_is_charged_for_the_results_that_it_has_and_not_for_those_that_it_gives_up(interval_ms, count):
    rig = CoreRig()
    rig.deliver(0, interval_ms=interval_ms)
    deadlines_ns = [rig.arrive(30, step=False).deadline_ns for _ in range(count)]
    batch = rig.step()[0]

    def left_ns(rows):
        executed_ns = batch.formed_ns + rig.cost.h2d_ns(rows) + rig.cost.estimate_ns(rows)
        return executed_ns + rig.cost.table.d2h_ns[rows - 1] + rows * interval_ms * MS / 2

    assert left_ns(batch.rows) <= deadlines_ns[0] < left_ns(batch.rows + 1)
    assert batch.rows > 1


def test_idle_executor_runs_a_frame_however_slow_delivery_looks():
    rig = CoreRig()
    rig.deliver(500)
    probe = rig.arrive(33)
    assert rig.batches[0].requests == [probe]
    hopeless = rig.arrive(33)
    rig.advance(3)
    assert rig.ended() == {hopeless: Outcome.EXPIRED}


def test_admission_counts_delivery_while_the_executor_is_busy_and_not_on_an_idle_one():
    rig = CoreRig()
    rig.deliver(12.7)
    least_ns = int(rig.cost.least_service_ns())
    rig.arrive(100)
    assert rig.published[-1] == Feasibility(least_ns, 12 * MS, executed_ns=0)
    assert rig.published[-1].is_hopeless(0, least_ns + 11 * MS, 0)
    assert not rig.published[-1].is_hopeless(0, least_ns + 13 * MS, 0)
    rig.advance(5)
    rig.finish()
    assert rig.published[-1].egress_ns == 0
    count = len(rig.published)
    rig.deliver(0.9)
    rig.arrive(100)
    assert len(rig.published) == count, "what costs next to nothing is not published"


def served(workload, egress_ns, *, is_known=True):
    virtual = VirtualTime(workload, SETTINGS, egress_ns=egress_ns)
    if not is_known:
        virtual.delivery = VirtualEgress(egress_ns, EgressTime())  # the former reads another one
    run = virtual.run()
    return run, evaluate(workload, "jit_edf", run.finished_ns, run.batch_rows)


@pytest.mark.parametrize("kind", [poisson, cameras])
def test_slow_deliverer_in_overload_makes_frames_expire_and_not_late(kind):
    workload = kind(1.3, 4, 3)
    scatter = random.Random(1)  # noqa: S311 - scatter
    egress_ns = lambda: int(scatter.uniform(0.15, 0.4) * MS)  # noqa: E731 - 8.8 ms for the last of a batch
    _, knowing = served(workload, egress_ns)
    _, blind = served(workload, egress_ns, is_known=False)
    assert knowing.late_share <= 0.005
    assert blind.late_share > 0.1
    assert knowing.goodput_per_s >= 0.98 * CAPACITY_PER_S
    assert knowing.goodput_per_s > 1.15 * blind.goodput_per_s


@pytest.mark.parametrize(("kind", "interval_ms"), [(poisson, 0.35), (cameras, 0.6)])
def test_deliverer_that_is_slower_than_the_executor_is_kept_busy_with_frames_that_are_in_time(kind, interval_ms):
    workload = kind(1.3, 3, 3)
    scatter = random.Random(1)  # noqa: S311 - scatter
    egress_ns = lambda: int(scatter.uniform(0.5, 1.5) * interval_ms * MS)  # noqa: E731
    _, knowing = served(workload, egress_ns)
    _, blind = served(workload, egress_ns, is_known=False)
    assert blind.goodput_per_s < 100, "it serves all streams too late"
    assert knowing.goodput_per_s >= 0.95 * 1e3 / interval_ms
    assert knowing.late_share <= 0.01


@pytest.mark.parametrize("load", [0.3, 0.6])
def test_slow_deliverer_costs_nothing_while_deadlines_allow_for_it(load):
    _, cell = served(cameras(load, 3, 3), MS // 10)
    assert cell.in_time_share == 1.0


def test_former_recovers_from_a_deliverer_that_was_too_slow_for_any_deadline():
    workload = cameras(0.5, 6, 3)
    is_slow = lambda: virtual.now_ns < 2 * SECOND_NS  # noqa: E731 - a late binding
    virtual = VirtualTime(workload, SETTINGS, egress_ns=lambda: 2 * MS if is_slow() else MS // 20)
    run = virtual.run()
    calm = workload.arrivals_ns > 4 * SECOND_NS
    assert (run.finished_ns[calm] >= 0).all()
    assert (run.finished_ns[calm] <= workload.arrivals_ns[calm] + workload.budgets_ns[calm]).all()


def test_the_same_trace_gives_the_same_batches_with_a_slow_deliverer():
    first, second = (served(poisson(1.2, 1, 3), MS // 3)[0] for _ in range(2))
    assert first.batches == second.batches
    assert first.endings == second.endings
