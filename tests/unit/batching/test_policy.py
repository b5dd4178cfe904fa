"""JIT-EDF decision by decision, on the core stepped by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_server.bench.affine_table import affine_table
from forebay_server.service.batching.core import FormerCore
from forebay_server.service.batching.cost_model import CostModel
from forebay_server.service.batching.decision import Form
from forebay_server.service.batching.policy import decide
from forebay_server.service.batching.settings import BatchingSettings, QueuePolicy
from forebay_server.service.errors import Outcome
from forebay_server.service.request import Delivery
from tests.support.batching import MS, CoreRig, StrictLane, client, cost_model, request, stream


def ids(batch):
    return [r.id for r in batch.requests]


def busy_rig(**options):
    """A rig whose lane computes a full batch, so that later requests are bound late."""
    rig = CoreRig(**options)
    rig.arrive(200, rows=rig.settings.max_batch_size)
    assert len(rig.batches) == 1
    return rig


@pytest.mark.parametrize("callers", [1, 31])
def test_urgent_call_does_not_wait_for_patient_ones_whosever_they_are(callers):
    rig = CoreRig(BatchingSettings(1), cost_model(1, alpha_ms=100.0))
    clients = [client(str(number)) for number in range(callers)]
    for number in range(30):
        rig.arrive(None, on=clients[number % callers])
    urgent = rig.arrive(400, on=clients[-1], timeout_ms=400)
    rig.advance(100)
    rig.finish()
    assert [list(batch.requests) for batch in rig.batches][1] == [urgent]
    assert rig.ended() == {}


def test_batch_is_bound_when_its_upload_must_start():
    rig = busy_rig()
    first = rig.batches[0]
    rig.arrive()
    free_ns = first.formed_ns + rig.cost.h2d_ns(32) + rig.cost.mean_ns(32)
    assert rig.wake_ns == int(free_ns - rig.cost.h2d_ns(1)) - 200_000
    assert [ids(b) for b in rig.advance_to(rig.wake_ns)] == [[rig.arrived[-1].id]]


def test_newcomer_with_a_tighter_deadline_joins_in_front_until_the_batch_is_bound():
    rig = busy_rig()
    late = rig.arrive(40)
    rig.advance(2)
    soon = rig.arrive(20)
    (batch,) = rig.advance_to(rig.wake_ns)
    assert ids(batch) == [soon.id, late.id]


def test_full_batch_is_bound_earlier_since_it_cannot_grow():
    rig = busy_rig()
    rig.arrive(200)
    lone_ns = rig.wake_ns
    for _ in range(31):
        rig.arrive(200)
    assert rig.wake_ns < lone_ns - 0.1 * rig.cost.mean_ns(32)


def test_compute_that_ends_early_pulls_the_next_batch():
    rig = busy_rig()
    rig.arrive()
    rig.advance(1)
    assert [len(b.requests) for b in rig.finish()] == [1]


def test_02_no_more_batches_are_in_flight_than_depth():
    rig = CoreRig(BatchingSettings(1), cost_model(1))
    for _ in range(5):
        rig.arrive(200)
    rig.advance(30)
    assert len(rig.batches) == 2


def test_late_timers_bind_at_once_and_one_deeper():
    rig = CoreRig(BatchingSettings(1), cost_model(1))
    for _ in range(16):
        rig.core.lanes.guard.observe(2 * MS)
    for _ in range(5):
        rig.arrive(200)
    assert len(rig.batches) == 3
    assert {b.formed_ns for b in rig.batches} == {rig.now_ns}


def test_late_binding_is_tried_again_after_timers_were_late_for_a_while():
    rig = CoreRig(BatchingSettings(1), cost_model(1))
    for _ in range(16):
        rig.core.lanes.guard.observe(2 * MS)
    depths = []
    for _ in range(330):
        while len(rig.core.pending) < 3:
            rig.arrive(200)
        depths.append(rig.core.lanes.in_flight)
        rig.advance(3.2)
        rig.finish()
    assert depths[:312] == [3] * 312, "bound at once, for a second"
    assert set(depths[-8:]) <= {1, 2}


def test_rare_late_timers_do_not_end_late_binding():
    rig = CoreRig(BatchingSettings(1), cost_model(1))
    for number in range(64):
        rig.core.lanes.guard.observe(5 * MS if number % 8 == 0 else 100_000)
    rig.arrive(200)
    rig.arrive(200)
    assert len(rig.batches) == 1
    free_ns = rig.batches[0].formed_ns + rig.cost.h2d_ns(1) + rig.cost.mean_ns(1)
    full_batch_lead_ns = 0.15 * rig.cost.mean_ns(1)
    assert rig.wake_ns == int(free_ns - rig.cost.h2d_ns(1) - int(0.1 * rig.cost.mean_ns(1)) - full_batch_lead_ns)


def test_queue_whose_heads_are_lost_is_not_bound_early_as_if_it_were_full():
    rig = busy_rig()
    for _ in range(8):
        rig.arrive(15, step=False)
    for _ in range(26):
        rig.arrive(40, step=False)
    rig.step()
    free_ns = rig.batches[0].formed_ns + rig.cost.h2d_ns(32) + rig.cost.mean_ns(32)
    assert not rig.advance_to(int(free_ns - rig.cost.h2d_ns(32)) - 700_000)
    assert len(rig.advance(2)) == 1


def test_uploads_that_scatter_are_bound_earlier():
    rig = busy_rig()
    steady_ns = rig.cost.h2d_upper_ns(1)
    assert steady_ns == rig.cost.h2d_ns(1)
    for number in range(60):
        rig.cost.observe(32, int(rig.cost.table.h2d_ns[-1] * (0.6 if number % 2 else 1.4)), 0)
    assert rig.cost.h2d_upper_ns(1) > 1.5 * rig.cost.h2d_ns(1)
    rig.arrive()
    free_ns = rig.batches[0].formed_ns + rig.cost.h2d_ns(32) + rig.cost.mean_ns(32)
    assert rig.wake_ns == int(free_ns - rig.cost.h2d_upper_ns(1) - 200_000)


def test_upload_that_is_taken_up_late_widens_the_guard():
    rig = CoreRig()
    guard = rig.core.lanes.guard
    for _ in range(16):
        rig.arrive(200)
        rig.arrive(200)
        rig.advance_to(rig.wake_ns)
        late = rig.running[1]
        assert late.bind_by_ns == rig.now_ns
        late.upload_started_ns = rig.now_ns + MS // 2
        rig.finish()
        rig.advance(4)
        rig.finish()
    assert guard.guard_ns == MS // 2


def test_guard_follows_how_late_timers_are_and_never_falls_below_its_least():
    rig = busy_rig()
    guard = rig.core.lanes.guard
    for _ in range(16):
        guard.observe(700_000)
    assert guard.guard_ns == 700_000
    for _ in range(256):
        guard.observe(0)
    assert guard.guard_ns == 200_000


def test_head_that_is_tight_gets_a_smaller_batch_if_the_rest_can_wait():
    rig = busy_rig()
    tight = rig.arrive(16)
    for _ in range(20):
        rig.arrive(60)
    (batch,) = rig.advance_to(rig.wake_ns)
    assert ids(batch)[0] == tight.id
    assert 1 <= batch.rows < 21
    assert not rig.completions


def test_heads_are_given_up_when_serving_them_would_cost_too_much_rate():
    rig = busy_rig()
    for _ in range(31):
        rig.arrive(14, step=False)
    for _ in range(90):
        rig.arrive(24, step=False)
    rig.step()
    rig.advance(10)
    second = rig.batches[1]
    assert second.rows > 20
    assert set(rig.ended().values()) == {Outcome.EXPIRED}


@pytest.mark.parametrize("source", [stream, client])
def test_least_served_streams_and_clients_go_first_in_a_sustained_overload(source):
    rig = CoreRig(BatchingSettings(4), cost_model(4))
    spoiled, starved = source("spoiled"), source("starved")
    for number in range(3000):  # load 1.5, of which `spoiled` got everything so far
        rig.now_ns += int(rig.cost.mean_ns(4) / 4 / 1.5)
        one = request(rig.now_ns, 200, on=starved if number % 2 else spoiled)
        rig.core.pending.push(one, rig.now_ns)
        if one.stream is spoiled:
            rig.core.pending.take([one.id], rig.now_ns)
        else:
            rig.core.pending.discard(one.id)
    for _ in range(4):
        rig.arrive(190, on=spoiled, step=False)
    for _ in range(4):
        rig.arrive(200, on=starved, step=False)
    rig.step()
    assert {r.stream.name for r in rig.batches[0].requests} == {"starved"}


@pytest.mark.parametrize("stage", ["h2d", "execute", "d2h"])
def test_probe_runs_on_an_idle_executor_however_bad_the_drift_looks(stage):
    sizes = tuple(range(1, 33))
    table = affine_table(sizes, 4 * MS, 0, h2d_ns=(4 * MS, 0), d2h_ns=(4 * MS, 0))
    rig = CoreRig(cost=CostModel(sizes, table))
    drift = getattr(rig.cost, f"{stage}_drift")
    drift.ratio = drift.factor = 8.0
    rig.cost._seen.add(1)
    for _ in range(50):
        rig.arrive(33)
        rig.advance(12)
        while rig.running:
            (batch,) = rig.running
            rig.core.compute_ended(batch, rig.now_ns, 4 * MS, 4 * MS)
            rig.lanes[0].free(batch)
            rig.core.slot_freed(0, batch.slot_index, 4 * MS)
            rig.running.clear()
    assert not rig.completions
    assert drift.ratio < 1.1


def test_lower_level_fills_the_room_that_is_left():
    rig = busy_rig(settings=BatchingSettings(32, priority_levels=2, default_priority_level=2))
    low = [rig.arrive(60, priority=2, step=False) for _ in range(3)]
    high = [rig.arrive(60, priority=1, step=False) for _ in range(3)]
    rig.step()
    (batch,) = rig.advance_to(rig.wake_ns)
    assert ids(batch) == [r.id for r in high + low]


def test_frame_does_not_fill_room_past_one_of_its_stream_that_would_be_late_there():
    levels = BatchingSettings(32, priority_levels=2, default_priority_level=2)
    rig = CoreRig(levels, lanes=[StrictLane(0), StrictLane(1)])
    for _ in rig.lanes:
        rig.arrive(200, rows=32, priority=1)
    camera = stream()
    tight, patient = (rig.arrive(ms, on=camera, priority=2, step=False) for ms in (16, 80))
    for _ in range(14):
        rig.arrive(60, priority=1, step=False)
    rig.step()
    rig.advance(11)
    assert [tight in batch.requests for batch in rig.batches[2:]] == [False, True], "the second lane is in time for it"
    assert patient in rig.batches[3].requests


def test_urgent_level_goes_first_when_there_is_no_room():
    rig = busy_rig(settings=BatchingSettings(4, priority_levels=2, default_priority_level=2), cost=cost_model(4))
    low = [rig.arrive(60, priority=2, step=False) for _ in range(4)]
    high = [rig.arrive(90, priority=1, step=False) for _ in range(4)]
    rig.step()
    (batch,) = rig.advance_to(rig.wake_ns)
    assert ids(batch) == [r.id for r in high]
    assert not set(ids(batch)) & {r.id for r in low}


def test_low_priority_ages_and_leads_one_batch_in_eight_under_a_flood():
    rig = CoreRig(BatchingSettings(4, priority_levels=2, default_priority_level=2), cost_model(4))
    patient = rig.arrive(None, priority=2, step=False)
    for _ in range(200):
        for _ in range(8):
            rig.arrive(100, priority=1, step=False)
        rig.step()
        rig.advance(4)
        while rig.running and patient not in rig.running[-1].requests:
            rig.finish()
        if rig.running:
            break
    assert patient in rig.batches[-1].requests
    assert rig.now_ns - patient.arrival_ns < 1_100 * MS


def test_requests_of_several_rows_stay_whole_and_in_the_limit():
    rig = busy_rig(settings=BatchingSettings(8), cost=cost_model(8))
    for rows in (5, 4, 3, 8):
        rig.arrive(100, rows=rows, step=False)
    rig.step()
    rig.advance(40)
    while rig.running:
        rig.finish()
        rig.advance(20)
    assert [[r.size for r in b.requests] for b in rig.batches[1:]] in ([[5], [4, 3], [8]], [[5], [4], [3], [8]])


@pytest.mark.parametrize(("pending", "rows", "executed_rows"), [(5, 5, 8), (17, 16, 16)], ids=["padded", "cut"])
def test_batches_are_padded_or_cut_to_captured_sizes_whichever_wastes_less(pending, rows, executed_rows):
    rig = busy_rig(cost=cost_model(sizes=(1, 2, 4, 8, 16, 32)))
    for _ in range(pending):
        rig.arrive(100, step=False)
    rig.step()
    (batch,) = rig.advance_to(rig.wake_ns)
    assert (batch.rows, batch.executed_rows) == (rows, executed_rows)


def test_batch_is_no_larger_than_the_load_is_worth():
    """A backlog at a low rate of arrival: more rows in one batch would only make the first of them wait."""
    rig = busy_rig()
    rig.advance(2_000)  # earlier requests are forgotten
    rig.finish()
    rig.arrive(200, rows=32)
    for _ in range(30):
        rig.arrive(200, step=False)
    knee = rig.cost.alpha_base_ns / rig.cost.beta_base_ns
    rig.step()
    rig.advance(10)
    assert knee == pytest.approx(15, rel=0.01)
    assert 15 <= rig.batches[2].rows < 30


def test_requests_of_different_batch_keys_never_share_a_batch():
    rig = busy_rig()
    for number in range(6):
        rig.arrive(100, key="ab"[number % 2], step=False)
    rig.step()
    rig.advance(10)
    rig.finish()
    rig.advance(10)
    assert [b.requests[0].batch_key for b in rig.batches[1:]] == ["a", "b"]
    assert [b.rows for b in rig.batches[1:]] == [3, 3]


def test_company_is_awaited_on_an_idle_executor_no_longer_than_asked_for():
    rig = CoreRig(BatchingSettings(32, max_queue_delay_us=1_000))
    for _ in range(100):  # arrivals every 0.5 ms: worth waiting for
        rig.core.pending.demand.offer(stream_share(rig), 1, rig.now_ns)
        rig.now_ns += MS // 2
    lone = rig.arrive(100)
    assert not rig.batches
    assert rig.wake_ns == lone.arrival_ns + MS
    (batch,) = rig.advance_to(rig.wake_ns)
    assert batch.formed_ns == lone.arrival_ns + MS


def test_company_is_not_awaited_past_what_the_deadline_allows():
    rig = CoreRig(BatchingSettings(32, max_queue_delay_us=5_000))
    for _ in range(100):
        rig.core.pending.demand.offer(stream_share(rig), 1, rig.now_ns)
        rig.now_ns += MS // 2
    lone = rig.arrive(5)
    end_ns = rig.cost.estimate_ns(2) + rig.cost.h2d_ns(2) + rig.cost.d2h_ns(2) + 200_000
    assert rig.wake_ns == int(lone.deadline_ns - end_ns)


def stream_share(rig):
    return rig.core.pending._streams.get(stream(), rig.now_ns).share


def test_draining_holds_nothing_back():
    rig = CoreRig(BatchingSettings(32, max_queue_delay_us=5_000))
    rig.core.is_draining = True
    rig.core.pending.push(request(rig.now_ns, 100), rig.now_ns)
    assert len(rig.step()) == 1


def test_preferred_size_is_taken_while_the_oldest_is_young():
    rig = busy_rig(settings=BatchingSettings(32, preferred_batch_sizes=(4, 8), max_queue_delay_us=50_000))
    for _ in range(7):
        rig.arrive(200, step=False)
    rig.step()
    (batch,) = rig.advance_to(rig.wake_ns)
    assert batch.rows == 4


@pytest.mark.parametrize("budget_ms", [0, -5, -(10**9)])
def test_budget_that_is_past_expires_at_once(budget_ms):
    rig = CoreRig()
    one = rig.arrive(budget_ms)
    assert rig.ended() == {one: Outcome.EXPIRED}


def test_absurd_budget_is_served_like_any_other():
    rig = busy_rig()
    absurd = rig.arrive(10**18)
    (batch,) = rig.advance_to(rig.wake_ns)
    assert ids(batch) == [absurd.id]


def test_max_batch_size_of_one_serves_one_by_one():
    rig = CoreRig(BatchingSettings(1), cost_model(1))
    for _ in range(20):
        rig.arrive(500)
    for _ in range(20):
        rig.advance(10)
        if rig.running:
            rig.finish()
    rig.assert_quiet_after_all()
    assert [batch.rows for batch in rig.batches] == [1] * 20


def test_settings_larger_than_the_engine_are_an_error_at_load():
    with pytest.raises(ValueError, match="max_batch_size to 8"):
        FormerCore([StrictLane()], cost_model(8), BatchingSettings(16))


def test_clock_that_does_not_move_still_gives_batches():
    rig = CoreRig()
    for _ in range(100):
        rig.arrive(33)
        while rig.running:
            rig.finish()
    rig.assert_quiet_after_all()
    assert sum(batch.rows for batch in rig.batches) == 100


def test_ten_thousand_streams_are_served_within_bounded_work():
    rig = CoreRig(BatchingSettings(32))
    for number in range(10_000):
        rig.arrive(60_000, on=stream(str(number), Delivery.LATEST), step=False)
    while rig.arrived and (rig.running or not rig.batches):
        rig.step() if not rig.running else rig.finish()
        rig.advance(1)
    rig.assert_quiet_after_all()
    assert rig.core.counters.decisions < 10_000


def test_decision_changes_nothing():
    rig = busy_rig()
    for _ in range(40):
        rig.arrive(100, step=False)
    rig.core.lanes.states[0].reserve()
    rig.now_ns += 10 * MS
    first, second = (decide(rig.now_ns, rig.core.pending, rig.core.lanes, rig.cost, rig.settings) for _ in range(2))
    assert isinstance(first, Form)
    assert first == second
    assert len(rig.core.pending) == 40


step_kinds = st.one_of(
    st.tuples(st.just("arrive"), st.integers(0, 4), st.sampled_from([None, 0, 3, 12, 33, 200]), st.integers(1, 5)),
    st.tuples(st.just("time"), st.integers(0, 9_000), st.just(0), st.just(0)),
    st.tuples(st.just("finish"), st.integers(0, 3), st.integers(1, 40), st.just(0)),
    st.tuples(st.just("cancel"), st.integers(0, 99), st.booleans(), st.just(0)),
    st.tuples(st.just("deliver"), st.integers(0, 40), st.integers(0, 50), st.integers(0, 30)),
)


@st.composite
def former_settings(draw):
    levels = draw(st.sampled_from([0, 2]))
    return BatchingSettings(
        8,
        preferred_batch_sizes=draw(st.sampled_from([(), (4,), (2, 8)])),
        max_queue_delay_us=draw(st.sampled_from([0, 2_000])),
        depth=draw(st.integers(1, 3)),
        priority_levels=levels,
        default_priority_level=levels,
        default_queue_policy=draw(st.sampled_from([QueuePolicy(), QueuePolicy(max_queue_size=3)])),
        policy=draw(st.sampled_from(["jit_edf", "jit_edf", "window", "eager"])),
    )


def play_step(rig, streams, kind, a, b, c):
    match kind:
        case "arrive":
            rig.arrive(b, on=streams[a], rows=c if a < 2 else 1, key="k" if c < 4 else "other", priority=a % 3)
        case "time":
            rig.advance(a / 1000)
        case "finish" if rig.running:
            rig.finish(rig.running[a % len(rig.running)], execute_ns=b * MS // 2)
        case "cancel" if rig.arrived:
            one = rig.arrived[a % len(rig.arrived)]
            one.is_cancelled |= b
            rig.core.cancel([one], rig.now_ns)
            rig.step()
        case "deliver":
            rig.deliver(a, a + b, c / 10)
            for one in [r for batch in rig.batches for r in batch.requests if r.timeline.readable_ns][-c:]:
                rig.egress_time.observe(one.timeline.readable_ns, rig.now_ns)
            rig.step()
        case _:
            pass


@settings(max_examples=60)
@given(st.lists(step_kinds, max_size=60), former_settings(), st.sampled_from([(1, 2, 3, 4, 5, 6, 7, 8), (1, 4, 8)]))
def test_01_every_request_ends_once_and_every_slot_returns_whatever_happens(steps, knobs, sizes):
    lanes = [StrictLane(0, slot_count=2), StrictLane(1)]
    rig = CoreRig(knobs, cost_model(sizes=sizes), lanes)
    streams = [stream(str(n), Delivery.LATEST if n % 2 else Delivery.EVERY) for n in range(5)]
    for step in steps:
        play_step(rig, streams, *step)
        assert all(s.in_flight <= 3 for s in rig.core.lanes.states)
        assert rig.core.lanes.states[0].in_flight <= 2
    rig.assert_quiet_after_all()
    for one_stream in streams:
        executed = [r.id for b in rig.batches for r in b.requests if r.stream is one_stream]
        if not knobs.priority_levels:
            assert executed == sorted(executed)
    assert all(b.rows <= 8 and b.executed_rows in sizes for b in rig.batches)
