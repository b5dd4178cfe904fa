"""The whole capacity search against servers whose capacity is known, in virtual time.

Everything is real from the options to the printed answer, but the network, the server and the clock: plans, the
generator, the recorder, p99's interval, the document, the search. A minute of load takes a fraction of a second.
"""

import asyncio
import json

import pytest

from forebay_server.loadtest.capacity import search_capacity
from forebay_server.loadtest.cli import TRIAL
from forebay_server.loadtest.errors import ExitCode
from forebay_server.loadtest.options import LoadOptions
from forebay_server.loadtest.report import Circumstances, build
from forebay_server.loadtest.search import Bounds, Objective
from forebay_server.loadtest.summary import merge, summarise
from forebay_server.loadtest.target import Outcome
from tests.unit.loadtest.virtual import INFO, FakeServer, generate, run_virtually


class OneAtATime:
    """Serves frame by frame, each in exactly `service_s`; refuses frames that would wait longer than `patience_s`."""

    def __init__(self, service_s, patience_s=1e9):
        self._service_s = service_s
        self._patience_s = patience_s
        self._free_at_s = 0.0

    def answer(self, _):
        now_s = asyncio.get_running_loop().time()
        starts_s = max(now_s, self._free_at_s)
        if starts_s - now_s > self._patience_s:
            return 0.0, [Outcome.OVERLOADED]
        self._free_at_s = starts_s + self._service_s
        return self._free_at_s - now_s, [Outcome.OK]


def capacity_of(tmp_path, service_s, target_ms, *, patience_s=1e9, options=None, interrupted_at=None, **bounds):
    """Search; return the exit code and the JSON answer. The trial of number `interrupted_at` is the user's last."""
    tried = []

    async def run(at_load, stop):
        job = at_load.job()
        tried.append(job.scenario)
        if len(tried) == interrupted_at:
            stop.set()
        server = FakeServer(OneAtATime(service_s, patience_s).answer)
        merged = merge([await generate(job.scenario, server)])
        circumstances = Circumstances(
            started_at="2026-01-01T00:00:00+00:00",
            spec=job.spec,
            info=INFO,
            frames="test frames",
            processes=1,
            hosts=1,
            cpu_shares=(0.1,),
            ceiling_per_s=None,
            good_within_ms=at_load.good_within_ms(),
        )
        return build(job.scenario, summarise(job.scenario, merged, at_load.good_within_ms()), circumstances, [])

    path = tmp_path / "capacity.json"
    search = search_capacity(
        options or LoadOptions(fps=5.0, duration=TRIAL), Objective(p99_ms=target_ms), Bounds(**bounds), str(path), run
    )
    code = run_virtually(search)
    return code, json.loads(path.read_text()), tried


def test_cameras_are_found_exactly(tmp_path, capsys):
    """25 cameras of 5 fps at 7.98 ms a frame leave 0.2 % free; with 26 the queue grows by 37 ms a second."""
    code, answer, tried = capacity_of(tmp_path, 0.00798, target_ms=120.0, first=8.0)
    assert code == ExitCode.OK
    assert (answer["highest_passing"], answer["lowest_failing"]) == (25, 26)
    assert [scenario.streams for scenario in tried].count(25) == 3
    assert "the target holds with 25 cameras of 5 fps every time, with 26 it does not" in capsys.readouterr().out


def test_cameras_are_found_exactly_when_the_server_sheds_instead_of_letting_the_queue_grow(tmp_path):
    """Then latency always stays within the target, and only the share of dropped frames shows the overload."""
    _, answer, _ = capacity_of(tmp_path, 0.00798, target_ms=120.0, patience_s=0.1, first=8.0)
    assert (answer["highest_passing"], answer["lowest_failing"]) == (25, 26)
    failing = next(trial for trial in answer["trials"] if trial["load"] == 26)
    assert failing["p99_upper_ms"] <= 120 or failing["p99_upper_ms"] is None
    assert failing["dropped_share"] > 0.01


def test_a_poisson_rate_is_found_from_below(tmp_path):
    """M/D/1 at 10 ms: p99 is 50 ms at 56 frames per second; p99's upper end gets there a little earlier."""
    options = LoadOptions(rate=20.0, duration="60s")
    _, answer, _ = capacity_of(
        tmp_path, 0.010, target_ms=50.0, options=options, first=20.0, is_whole=False, repeats=1, resolution=0.05
    )
    assert answer["unit"] == "frames/s"
    assert 0.8 * 56 <= answer["highest_passing"] <= 58
    assert answer["lowest_failing"] <= 1.06 * answer["highest_passing"]


def test_a_server_that_is_too_slow_for_one_camera_is_exit_code_3(tmp_path, capsys):
    code, answer, _ = capacity_of(tmp_path, 0.2, target_ms=100.0, patience_s=1.0)
    assert code == ExitCode.SLO_MISSED
    assert (answer["highest_passing"], answer["lowest_failing"]) == (None, 1)
    assert "1 camera of 5 fps is already too much" in capsys.readouterr().out


@pytest.mark.parametrize(("interrupted_at", "words"), [(1, "no answer"), (3, "no answer; passed: 2 cameras of 5 fps")])
def test_an_interrupted_search_gives_no_answer(tmp_path, capsys, interrupted_at, words):
    code, answer, tried = capacity_of(tmp_path, 0.01, target_ms=500.0, interrupted_at=interrupted_at)
    assert code == ExitCode.INTERRUPTED
    assert answer["is_interrupted"]
    assert len(tried) == interrupted_at
    assert f"capacity: interrupted, {words}\n" in capsys.readouterr().out


def test_a_trial_lasts_long_enough_for_the_interval_of_p99(tmp_path):
    """368 answers are needed; a camera of 5 fps takes more than a minute for them, 8 cameras do not."""
    _, answer, tried = capacity_of(tmp_path, 0.001, target_ms=50.0, highest=8.0)
    lasted = {scenario.streams: scenario.duration_s for scenario in tried}
    assert lasted[1] == pytest.approx(1.5 * 368 / 5, abs=0.1)
    assert lasted[8] == 20
    assert (answer["highest_passing"], answer["lowest_failing"]) == (8, None)
