"""Real runs correct costs: their number and length, their consequence, and the cases in which they cannot be made."""

import dataclasses

import pytest

from forebay_server.bench.plan import fit as fit_module
from forebay_server.bench.plan import trying
from forebay_server.bench.plan.fit import Cameras, Machine, Target, fit
from forebay_server.bench.plan.offering import Offered
from forebay_server.bench.plan.real_runs import RealRun
from forebay_server.bench.plan.thread_times import ThreadTimes
from forebay_server.bench.plan.trying import Asked, corrected, real_run_of
from forebay_server.loadtest.errors import CannotConnectError
from forebay_server.service.request import Delivery
from tests.support.plans import costs_of

ASKED = Asked(Cameras(10.0, 100.0, Delivery.LATEST), Target(100.0))
HERE = Machine(2, has_cameras=True)


@pytest.fixture(autouse=True)
def _short_runs(monkeypatch):
    monkeypatch.setattr(fit_module, "MOST_FRAMES", 400)
    monkeypatch.setattr(trying, "SIMULATED_FRAMES", 400)


class Server:
    """A server that keeps the target with up to `limit` cameras."""

    def __init__(self, limit: float, others_cores: float = 0.0) -> None:
        self.limit, self.others_cores = limit, others_cores
        self.seconds: list[float] = []

    def __call__(self, cameras: int, seconds: float) -> RealRun:
        self.seconds.append(seconds)
        passes = cameras <= self.limit
        is_disturbed = self.others_cores >= 0.2
        return RealRun(
            cameras, passes, 1000, 0.0 if passes else 0.1, 50.0, seconds, self.others_cores, "", is_disturbed
        )


def planned(costs):
    return fit(costs, ASKED.cameras, HERE, ASKED.target).fits


def correct(server, seconds=20.0, costs=None):
    return corrected(costs or costs_of(), ASKED, server, 1, seconds)


def test_a_server_that_keeps_what_is_promised_and_no_more_changes_nothing():
    promised = correct(Server(0)).real.promised
    costs = correct(Server(promised))
    assert costs.slowdown == 1.0
    assert costs.real.runs[0].cameras == promised == planned(costs_of())


@pytest.mark.parametrize("share", [0.5, 0.8, 1.1])
def test_the_plan_for_this_machine_is_then_what_the_server_kept(share):
    limit = round(share * planned(costs_of()))
    costs = correct(Server(limit))
    assert (costs.slowdown > 1.0) == (share < 1.0)
    assert planned(costs) == pytest.approx(limit, abs=1)
    assert dataclasses.replace(costs, slowdown=1.0, real=None) == costs_of()


def test_runs_take_the_time_that_they_have_and_the_first_no_more_than_half():
    server = Server(0)
    correct(server, 20.0)
    assert server.seconds[0] == 5.0
    assert all(5.0 <= seconds <= 10.0 for seconds in server.seconds)
    assert 10.0 < sum(server.seconds) <= 20.0
    slow, costs = Server(0), costs_of(beta_ns=60_000_000)
    corrected(costs, Asked(Cameras(1.0, 200.0, Delivery.LATEST), Target(200.0)), slow, 1, 20.0)
    assert slow.seconds == [10.0, 10.0]  # few frames a second: a run as long as p99 needs would take all the time


def test_runs_beside_other_programs_correct_nothing_and_say_so():
    costs = correct(Server(3, others_cores=0.8))
    assert costs.slowdown == 1.0
    assert "other programs used the cores" in costs.real.doubt
    assert {run.cameras for run in costs.real.runs} == {costs.real.promised}
    assert correct(Server(3, others_cores=0.1)).slowdown > 1.0


def test_a_run_whose_cameras_sent_late_is_repeated_before_it_counts():
    server, numbers = Server(0), []

    def late_once(cameras: int, seconds: float) -> RealRun:
        numbers.append(cameras)
        if len(numbers) > 1:
            return server(cameras, seconds)
        return RealRun(cameras, False, 1000, 0.0, 50.0, seconds, remark="the cameras sent late")

    assert correct(late_once).slowdown > 1.0
    assert numbers[0] == numbers[1] > numbers[2]


def test_a_server_that_goes_away_leaves_the_costs_uncorrected_with_the_reason():
    def gone(cameras: int, seconds: float) -> RealRun:
        raise CannotConnectError("nothing listens")

    costs = correct(gone)
    assert costs.slowdown == 1.0
    assert costs.real.doubt.endswith("cameras could not be made: nothing listens")


def test_nothing_is_tried_where_the_simulation_fits_no_camera():
    server = Server(9)
    costs = correct(server, costs=costs_of(beta_ns=200_000_000))
    assert (costs.slowdown, costs.real.promised, costs.real.runs, server.seconds) == (1.0, 0, (), [])


def document(**changed):
    return {
        "verdict": "OK", "reasons": [], "p95_ms": 70.0, "p99_ms": 80.0, "dropped_share": 0.004, "offered": 500,
        "duration_s": 5.0,
    } | changed  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "passes"),
    [
        ({}, True),
        ({"verdict": "INCONCLUSIVE", "reasons": ["the run is too short"]}, True),
        ({"p99_ms": 101.0}, False),
        ({"p99_ms": None}, True),
        ({"p99_ms": None, "p95_ms": 101.0}, False),
        ({"p99_ms": None, "p95_ms": None}, False),
        ({"dropped_share": 0.02}, False),
        ({"dropped_share": None}, False),
        ({"verdict": "INVALID", "reasons": ["the generator was late"]}, False),
    ],
)
def test_a_run_passes_within_the_target_if_the_cameras_sent_in_time(changed, passes):
    run = real_run_of(Offered(document(**changed), ThreadTimes(), 5.5, 0.2), 7, Target(100.0), 4)
    assert (run.cameras, run.passes, run.frames, run.others_cores) == (7, passes, 500, 0.2)
    assert not run.is_disturbed
    assert run.remark == ("the generator was late" if changed.get("verdict") == "INVALID" else "")


def test_a_run_that_missed_the_target_anyway_has_no_remark():
    missed = document(verdict="INVALID", reasons=["the generator was late"], dropped_share=0.2)
    assert not real_run_of(Offered(missed, ThreadTimes(), 5.5, 0.0), 7, Target(100.0), 2).remark


def test_a_run_beside_programs_that_use_a_tenth_of_the_cores_is_disturbed():
    for others_cores, is_disturbed in ((0.19, False), (0.2, True)):
        offered = Offered(document(), ThreadTimes(), 5.5, others_cores)
        assert real_run_of(offered, 7, Target(100.0), 2).is_disturbed == is_disturbed


def test_a_run_whose_server_went_away_is_an_error():
    away = document(verdict="NO_SERVER", reasons=["the server went away"])
    with pytest.raises(CannotConnectError, match="went away"):
        real_run_of(Offered(away, ThreadTimes(), 5.5, 0.0), 7, Target(100.0), 2)
