"""Faults of servers and of Envoy under 30 cameras: `bench.scaling` with few repeats; its times are not judged here."""

import json
import subprocess

import pytest

from tests.heavy.tritonclient.conftest import SERVER_PYTHON
from tests.support.repository import ROOT

ENVOY = ROOT / ".venv-scaling" / "bin" / "envoy"
LIMIT_S = 600

pytestmark = pytest.mark.skipif(not ENVOY.exists(), reason="Envoy's wheel is for Linux on x86-64")


def rows_of(tmp_path, *scenarios, repeats=2):
    """Run scenarios; their rows, by name."""
    path = tmp_path / "rows.json"
    command = [SERVER_PYTHON, "-m", "forebay_server.bench.scaling", *scenarios, "--envoy", str(ENVOY)]
    command += ["--repeats", str(repeats), "--json", str(path)]
    ended = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=LIMIT_S)
    assert ended.returncode == 0, ended.stderr
    return {row["name"]: row for row in json.loads(path.read_text())}


def test_servers_that_stop_cost_no_frame_and_none_is_sent_twice(tmp_path):
    rows = rows_of(tmp_path, "term", "direct-term")
    for row in rows.values():
        assert (row["lost"], row["twice"], row["resent"]) == (0, 0, 0), row
        assert row["moved"] >= 10, row
    assert rows["term"]["unary_calls"] > 0
    assert rows["term"]["unary_errors"] == 0, rows["term"]
    assert all(8 <= count <= 12 for count in rows["direct-term"]["spread"])


def test_servers_that_are_killed_cost_no_frame_and_each_is_sent_again_at_most_once(tmp_path):
    rows = rows_of(tmp_path, "kill", "direct-kill")
    for row in rows.values():
        assert (row["lost"], row["twice"]) == (0, 0), row
        assert row["moved"] >= 10, row
        assert row["most_reopened"] <= 1, row  # calls of a camera after one kill: no frame was sent more often again
    assert all(8 <= count <= 12 for count in rows["direct-kill"]["spread"])


def test_an_envoy_that_is_killed_costs_no_frame(tmp_path):
    row = rows_of(tmp_path, "envoy")["envoy"]
    assert (row["lost"], row["twice"]) == (0, 0)
    assert row["moved"] >= 60


def test_a_server_that_is_added_gets_streams_of_those_that_have_too_much_to_do(tmp_path):
    row = rows_of(tmp_path, "fourth")["fourth"]
    assert (row["lost"], row["twice"]) == (0, 0)
    assert row["share"] >= 0.15, row
    assert row["moved_share"] <= 0.4, row


def test_heavy_and_light_cameras_even_out(tmp_path):
    row = rows_of(tmp_path, "mixed")["mixed"]
    assert (row["lost"], row["twice"]) == (0, 0)
    assert row["frames_max_over_min"] <= 1.6, row  # 1.2 to 1.5 in a minute; two heavy cameras too many are 1.75


def test_a_proxy_that_cuts_every_stream_again_and_again_costs_no_frame(tmp_path):
    row = rows_of(tmp_path, "cut")["cut"]
    assert (row["lost"], row["twice"]) == (0, 0)
    assert row["moved"] >= 60, row  # each camera twice, at least
    assert "camera" in row["said"][0], row
    assert "trying again in" in row["said"][0], row


def test_an_overload_is_not_amplified_by_retries(tmp_path):
    """Refusals because of too much work are no reason to try elsewhere: servers see each call once."""
    row = rows_of(tmp_path, "amplified")["amplified"]
    assert row["refused"] > row["calls"] / 4, row
    assert row["calls_at_servers"] == row["calls"], row
