"""Faults of servers and of Envoy under 30 cameras: `bench.scaling` with few repeats; its times are not judged here."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.heavy.tritonclient.conftest import SERVER_PYTHON
from tests.support.repository import ROOT

ENVOY = ROOT / ".venv-scaling" / "bin" / "envoy"
LIMIT_S = 600

pytestmark = pytest.mark.skipif(not ENVOY.exists(), reason="Envoy's wheel is for Linux on x86-64")


LONGEST_FIRST = ("mixed", "cut", "term", "kill", "direct-term", "direct-kill", "envoy")
"""Two of these run at a time, each with servers and cameras of its own: they wait for most of their time."""
ALONE = ("fourth", "amplified")  # the servers have more to do than they can, and measure it


def needs(*scenarios):
    """Mark a test that looks at these scenarios."""

    def mark(test):
        test.scenarios = scenarios
        return test

    return mark


def row_of(scenario, folder, repeats=2):
    """Run a scenario; its row, or the words of its failure: other scenarios run all the same."""
    path = folder / f"{scenario}.json"
    command = [SERVER_PYTHON, "-m", "forebay_server.bench.scaling", scenario, "--envoy", str(ENVOY)]
    command += ["--repeats", str(repeats), "--json", str(path)]
    try:
        ended = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired as error:
        return str(error)
    return json.loads(path.read_text())[0] if ended.returncode == 0 else ended.stderr


class Rows(dict):
    """Rows by scenario; to ask for that of a scenario that failed fails the test."""

    def __getitem__(self, scenario):
        row = super().__getitem__(scenario)
        assert not isinstance(row, str), row
        return row


@pytest.fixture(scope="module")
def rows(request, tmp_path_factory):
    """The rows of the scenarios that the chosen tests need, by name."""
    folder = tmp_path_factory.mktemp("rows")
    chosen = {name for item in request.session.items for name in getattr(item.function, "scenarios", ())}
    with ThreadPoolExecutor(2) as pool:
        names = [name for name in LONGEST_FIRST if name in chosen]
        found = Rows(zip(names, pool.map(lambda name: row_of(name, folder), names), strict=True))
    found.update({name: row_of(name, folder) for name in ALONE if name in chosen})
    return found


@needs("term", "direct-term")
def test_servers_that_stop_cost_no_frame_and_none_is_sent_twice(rows):
    for row in (rows["term"], rows["direct-term"]):
        assert (row["lost"], row["twice"], row["resent"]) == (0, 0, 0), row
        assert row["moved"] >= 10, row
    assert rows["term"]["unary_calls"] > 0
    assert rows["term"]["unary_errors"] == 0, rows["term"]
    assert all(8 <= count <= 12 for count in rows["direct-term"]["spread"])


@needs("kill", "direct-kill")
def test_servers_that_are_killed_cost_no_frame_and_each_is_sent_again_at_most_once(rows):
    for row in (rows["kill"], rows["direct-kill"]):
        assert (row["lost"], row["twice"]) == (0, 0), row
        assert row["moved"] >= 10, row
        assert row["most_reopened"] <= 1, row  # calls of a camera after one kill: no frame was sent more often again
    assert all(8 <= count <= 12 for count in rows["direct-kill"]["spread"])


@needs("envoy")
def test_an_envoy_that_is_killed_costs_no_frame(rows):
    row = rows["envoy"]
    assert (row["lost"], row["twice"]) == (0, 0)
    assert row["moved"] >= 60


@needs("fourth")
def test_a_server_that_is_added_gets_streams_of_those_that_have_too_much_to_do(rows):
    row = rows["fourth"]
    assert (row["lost"], row["twice"]) == (0, 0)
    assert row["share"] >= 0.15, row
    assert row["moved_share"] <= 0.45, row  # nine streams, and one of each server before there is room for it


@needs("mixed")
def test_heavy_and_light_cameras_even_out(rows):
    row = rows["mixed"]
    assert (row["lost"], row["twice"]) == (0, 0)
    assert row["frames_max_over_min"] <= 1.3, row


@needs("cut")
def test_a_proxy_that_cuts_every_stream_again_and_again_costs_no_frame(rows):
    row = rows["cut"]
    assert (row["lost"], row["twice"]) == (0, 0)
    assert row["moved"] >= 60, row  # each camera twice, at least
    assert "camera" in row["said"][0], row
    assert "trying again in" in row["said"][0], row


@needs("amplified")
def test_an_overload_is_not_amplified_by_retries(rows):
    """Refusals because of too much work are no reason to try elsewhere: servers see each call once."""
    row = rows["amplified"]
    assert row["refused"] > row["calls"] / 4, row
    assert row["calls_at_servers"] == row["calls"], row
