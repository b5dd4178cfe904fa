import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_server.loadtest.arrivals import merged, plan, read_trace
from forebay_server.loadtest.errors import UsageError
from forebay_server.loadtest.scenario import ArrivalProcess, Phase, Scenario, TraceEntry

OPEN = [arrival for arrival in ArrivalProcess if arrival not in {ArrivalProcess.CLOSED, ArrivalProcess.TRACE}]


def instants_s(scenario):
    return np.sort(np.concatenate([p.intended_ns for p in plan(scenario)])) / 1e9


@pytest.mark.parametrize("arrival", OPEN)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), streams=st.integers(1, 5))
def test_every_arrival_process_has_its_rate_keeps_order_and_stays_inside_the_run(arrival, seed, streams):
    scenario = Scenario(arrival=arrival, duration_s=40, streams=streams, rate_per_s=100, peak_per_s=300, seed=seed)
    plans = plan(scenario)
    count = sum(len(p.intended_ns) for p in plans)
    expected = scenario.planned_frames
    spread = 1 if arrival is ArrivalProcess.CAMERAS else 6 * np.sqrt(expected / scenario.gamma_shape)
    assert abs(count - expected) <= spread * streams
    for p in plans:
        assert np.all(np.diff(p.intended_ns) >= 0)
        assert np.all(p.capture_ns <= p.intended_ns)
        assert np.all((p.intended_ns >= 0) & (p.intended_ns < 40e9))


@pytest.mark.parametrize("arrival", OPEN)
def test_the_same_seed_gives_the_same_plan_and_another_seed_another(arrival):
    def frames(seed):
        scenario = Scenario(arrival=arrival, streams=3, duration_s=5, jitter_ms=5, seed=seed)
        return [p.intended_ns.tolist() for p in plan(scenario)]

    assert frames(7) == frames(7)
    assert frames(7) != frames(8)


def test_cameras_keep_their_period_from_their_phase():
    (camera,) = plan(Scenario(streams=1, fps=25, duration_s=2))
    assert np.unique(np.diff(camera.intended_ns)).tolist() == [40_000_000]


def test_aligned_cameras_fire_together_and_even_ones_share_the_period_out():
    aligned = plan(Scenario(streams=4, fps=10, duration_s=1, phase=Phase.ALIGNED))
    assert {int(p.intended_ns[0]) for p in aligned} == {0}
    even = plan(Scenario(streams=4, fps=10, duration_s=1, phase=Phase.EVEN))
    assert [int(p.intended_ns[0]) for p in even] == [0, 25_000_000, 50_000_000, 75_000_000]


def test_jitter_delays_the_sending_but_not_the_capture():
    (camera,) = plan(Scenario(fps=10, duration_s=20, jitter_ms=30, phase=Phase.ALIGNED))
    delay_ms = (camera.intended_ns - camera.capture_ns) / 1e6
    assert np.unique(np.diff(camera.capture_ns)).tolist() == [100_000_000]
    assert 0 <= delay_ms.min() < 5
    assert 25 < delay_ms.max() <= 30


def test_streams_connect_one_after_the_other_and_send_nothing_before():
    plans = plan(Scenario(streams=4, fps=10, duration_s=10, connect_ramp_s=4))
    assert [p.connect_ns for p in plans] == [0, 1_000_000_000, 2_000_000_000, 3_000_000_000]
    assert all(p.intended_ns[0] >= p.connect_ns for p in plans)


def test_every_nth_frame_of_a_camera_is_larger():
    (camera,) = plan(Scenario(fps=10, duration_s=1, burst_every=3, burst_scale=5, phase=Phase.ALIGNED))
    assert camera.scale.tolist() == [5, 1, 1, 5, 1, 1, 5, 1, 1, 5]


def test_gamma_gaps_below_shape_one_are_burstier_than_poisson():
    def variation(arrival):
        gaps = np.diff(instants_s(Scenario(arrival=arrival, rate_per_s=200, duration_s=60, gamma_shape=0.25)))
        return gaps.std() / gaps.mean()

    assert variation(ArrivalProcess.POISSON) == pytest.approx(1.0, abs=0.05)
    assert variation(ArrivalProcess.GAMMA) == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize(
    ("arrival", "window_s", "rate"),
    [
        (ArrivalProcess.RAMP, (0, 2), 105),
        (ArrivalProcess.RAMP, (38, 40), 195),
        (ArrivalProcess.STEP, (0, 20), 100),
        (ArrivalProcess.STEP, (20, 40), 200),
        (ArrivalProcess.SPIKE, (0, 17), 100),
        (ArrivalProcess.SPIKE, (17.5, 22.5), 200),
        (ArrivalProcess.SINE, (4, 6), 198),
        (ArrivalProcess.SINE, (9.5, 10.5), 101),
    ],
)
def test_shaped_load_has_its_shape(arrival, window_s, rate):
    # Twenty streams average out the randomness of one.
    counts = []
    for seed in range(20):
        scenario = Scenario(arrival=arrival, rate_per_s=100, peak_per_s=200, duration_s=40, spike_s=5, seed=seed)
        at_s = instants_s(scenario)
        counts.append(np.count_nonzero((at_s >= window_s[0]) & (at_s < window_s[1])))
    assert np.mean(counts) / (window_s[1] - window_s[0]) == pytest.approx(rate, rel=0.06)


def test_merging_streams_keeps_every_frame_and_the_order_of_time():
    plans = plan(Scenario(streams=7, fps=33, duration_s=3))
    entries = list(merged(plans))
    assert [entry[0] for entry in entries] == sorted(entry[0] for entry in entries)
    assert sorted((owner, frame) for _, owner, frame in entries) == [
        (owner, frame) for owner, p in enumerate(plans) for frame in range(len(p.intended_ns))
    ]


def test_a_trace_is_replayed_as_it_was_recorded(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("time_s,stream,size_bytes\n0.5,1,900\n0.25,0,\n0.75,1,100\n99,0,1\n")
    scenario = Scenario(arrival=ArrivalProcess.TRACE, trace=read_trace(path), streams=2, duration_s=1)
    first, second = plan(scenario)
    assert first.intended_ns.tolist() == [250_000_000]
    assert second.intended_ns.tolist() == [500_000_000, 750_000_000]
    assert second.size_bytes.tolist() == [900, 100]


@pytest.mark.parametrize("content", ["", "time_s\n", "when\n1\n", "time_s\nsoon\n", "time_s\n-1\n", "\x00\xff"])
def test_a_file_that_is_no_trace_is_a_usage_error(tmp_path, content):
    path = tmp_path / "trace.csv"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError):
        read_trace(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"fps": 0},
        {"duration_s": -1},
        {"streams": 0},
        {"jitter_ms": -1},
        {"connect_ramp_s": 60},
        {"fps": float("nan")},
        {"arrival": ArrivalProcess.TRACE},
        {"streams": 10_000, "fps": 1000},
    ],
)
def test_a_scenario_that_cannot_be_run_is_refused(fields):
    with pytest.raises(UsageError):
        Scenario(**fields)


def test_a_scenario_survives_the_way_to_another_process():
    scenario = Scenario(arrival=ArrivalProcess.TRACE, trace=(TraceEntry(0.5, 1, 3),), streams=2, seed=9)
    assert Scenario.from_dict(scenario.to_dict()) == scenario
    with pytest.raises(UsageError, match="unknown"):
        Scenario.from_dict({"speed": 1})
