"""`forebay plan` from a file of costs: words, JSON, chart, exit codes."""

import dataclasses
import json
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from forebay_server.bench.plan import fit as fit_module
from forebay_server.bench.plan.fleet import parse_machines
from forebay_server.bench.plan.real_runs import RealRun, RealRuns
from forebay_server.service.cli.commands import app
from tests.support.plans import costs_of


@pytest.fixture(autouse=True)
def _short_runs(monkeypatch):
    monkeypatch.setattr(fit_module, "MOST_FRAMES", 400)


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "costs.json").write_text(costs_of().to_json())

    def run(*words):
        return CliRunner().invoke(app, ["plan", "--costs", str(tmp_path / "costs.json"), "--fps", "10", *words])

    return run


def test_the_answer_in_words_names_machines_cameras_and_what_limits_them(plan):
    result = plan("--machines", "3x2", "--machines", "1")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].startswith("crossing: cameras of 10 frames a second, jpeg 640x360 of 30 KB, budget 100 ms, latest")
    three, one = (line.split() for line in lines if line.startswith(("3 of 2 cores", "1 of 1 core")))
    assert lines[-1] == f"in all: {3 * int(three[4]) + int(one[4])} cameras"
    assert "the model" in " ".join(three) or "the cores" in " ".join(three)
    assert "the cores" in " ".join(one)


def test_a_plan_says_that_its_costs_are_those_of_a_busy_machine(plan, tmp_path):
    assert "note:" not in plan("--machines", "2").output
    (tmp_path / "costs.json").write_text(dataclasses.replace(costs_of(), others_cores=1.23).to_json())
    output = plan("--machines", "2").output
    assert "note: measured while other programs used 1.2 of 2 cores; measure again on a quiet machine\n" in output
    assert json.loads(plan("--machines", "2", "--json").output)["costs"]["others_cores"] == 1.23


def test_a_plan_says_what_the_real_runs_showed_and_takes_the_slowdown_that_follows(plan, tmp_path):
    before = json.loads(plan("--machines", "2", "--json").output)
    disturbed = RealRun(21, False, 9, 0.5, None, 5.0, 0.7, is_disturbed=True)
    runs = (disturbed, RealRun(20, False, 1000, 0.098, 94.2, 5.0), RealRun(17, True, 850, 0.0, 61.0, 5.0))
    real = RealRuns(10.0, 100.0, "latest", 100.0, 0.01, 20, runs)
    costs = dataclasses.replace(costs_of(), slowdown=1.25, real=real)
    (tmp_path / "costs.json").write_text(costs.to_json())
    output = plan("--machines", "2").output
    assert "real runs on the machine that measured, 10 frames a second, p99 within 100 ms:\n" in output
    assert "  21 cameras kept 50.0% of 9 frames: it does not count, other programs used 0.7 cores meanwhile\n" in output
    assert "  20 cameras kept 90.2% of 1000 frames at p99 94 ms: they do not fit\n" in output
    assert "  17 cameras kept 100.0% of 850 frames at p99 61 ms: they fit\n" in output
    assert "the simulation had said 20: all its times are taken 1.25 times as long for these numbers\n" in output
    after = json.loads(plan("--machines", "2", "--json").output)
    assert after["fits"] == pytest.approx(before["fits"] / 1.25, abs=1)
    assert after["costs"]["slowdown"] == 1.25
    assert [run["cameras"] for run in after["costs"]["real_runs"]["runs"]] == [21, 20, 17]
    assert after["costs"]["frame_us"] == before["costs"]["frame_us"]


def test_a_plan_without_a_correction_says_why(plan, tmp_path):
    assert "no real run corrects these numbers: the costs were measured without any; measure again" in plan().output
    real = RealRuns(10.0, 100.0, "latest", 100.0, 0.01, 20, (RealRun(20, True, 1000, 0.0, 50.0, 5.0),))
    for changed, words in (
        (real, "the simulation agrees: it says 20\n"),
        (dataclasses.replace(real, promised=0, runs=()), "in the simulation not even one camera fits"),
        (dataclasses.replace(real, doubt="it rained"), "note: no real run corrects these numbers: it rained\n"),
    ):
        (tmp_path / "costs.json").write_text(dataclasses.replace(costs_of(), real=changed).to_json())
        assert words in plan("--machines", "2").output


def test_a_model_that_leaves_cores_idle_is_told_to_have_more_instances(plan):
    output = plan("--machines", "16").output
    assert "the model: its 1 instance, busy 100%, while 1." in output
    assert "of 16 cores are in use; add instances\n" in output


def test_the_answer_in_json_has_every_point(plan):
    result = plan("--machines", "2x2", "--json")
    document = json.loads(result.output)
    assert document["schema"] == "forebay.plan/1"
    (machine,) = document["machines"]
    assert document["fits"] == machine["fits_on_all"] == 2 * machine["fits"]
    passing = [point["cameras"] for point in machine["points"] if point["passes"]]
    assert max(passing) == machine["fits"]
    assert all(point["p99_ms"] is None or point["p99_ms"] > 0 for point in machine["points"])


def test_cameras_that_do_not_fit_are_exit_code_1_and_how_many_machines_would_do(plan):
    fits = json.loads(plan("--machines", "2", "--json").output)["fits"]
    assert plan("--machines", "2", "--cameras", str(fits)).exit_code == 0
    result = plan("--machines", "2", "--cameras", str(3 * fits))
    assert result.exit_code == 1
    assert result.output.endswith(f"{3 * fits} do not fit: 2 more of 2 cores would do\n")


def test_the_chart_is_one_svg_file_with_a_line_for_each_machine_and_the_target(plan, tmp_path):
    assert plan("--machines", "2", "--machines", "1", "--chart", str(tmp_path / "plan.svg")).exit_code == 0
    root = ElementTree.fromstring((tmp_path / "plan.svg").read_text())  # noqa: S314 - written by this test
    texts = ["".join(element.itertext()) for element in root.iter() if element.tag.endswith("}text")]
    assert {"2 cores", "1 core", "target 100 ms"} <= set(texts)
    assert sum(element.tag.endswith("}polyline") for element in root.iter()) == 3


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--machines", "x8"), "write 8 for one machine of 8 cores"),
        (("--machines", "2", "--front-ends", "3"), "front_ends is 3"),
        (("--delivery", "some"), "latest or every"),
        (("--encoding", "jpeg"), "--encoding: nothing is measured beside --costs"),
        (("--size", "64x64", "-m", "models", "--seconds", "3"), "--model-repository, --size, --seconds: nothing is"),
        (("--slo-p99", "soon"), "--slo-p99"),
        (("--slo-p99", "0ms"), "--slo-p99 is '0ms', which no frame can keep"),
        (("--size", "64x64"), "leave it out, or measure"),
        (("detector",), "give the name of a model, or --costs with a file that --save wrote, not both"),
        (("--chart", "/nowhere/at/all.svg"), "there is no folder"),
        (("--chart", "plan.png"), "its name must end in .svg"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(plan, words, part):
    result = plan(*words)
    assert result.exit_code == 2
    assert part in result.output
    assert len(result.output.splitlines()) == 1


def test_an_unknown_encoding_is_exit_code_2_before_a_server_starts():
    result = CliRunner().invoke(app, ["plan", "detector", "--encoding", "gif"])
    assert result.exit_code == 2
    assert "--encoding is 'gif': one of jpeg" in result.output


def test_a_wrong_size_is_one_line_and_exit_code_2_before_a_server_starts():
    result = CliRunner().invoke(app, ["plan", "detector", "--size", "1280"])
    assert result.exit_code == 2
    assert result.output == "forebay plan: --size is WIDTHxHEIGHT, for example 640x480\n"


def test_a_file_that_holds_no_costs_is_exit_code_65(tmp_path):
    (tmp_path / "x.json").write_text("[]")
    result = CliRunner().invoke(app, ["plan", "--costs", str(tmp_path / "x.json")])
    assert result.exit_code == 65
    assert "no file of costs" in result.output


def test_machines_are_a_count_and_cores():
    assert parse_machines("8") == (1, 8)
    assert parse_machines("3x16") == (3, 16)
    for text in ("", "0", "3x", "x3", "3x0", "-1", "3x2x1", "99999999"):
        with pytest.raises(ValueError, match="no number of machines"):
            parse_machines(text)


def test_cores_that_are_all_taken_are_refused_before_anything_is_measured(plan):
    result = plan("--machines", "8", "--machines", "2x4", "--taken", "4")
    assert result.exit_code == 2
    assert "--taken is 4, of a machine with 4 cores: none is left for the server" in result.output


def test_frames_that_are_not_there_are_refused_before_a_server_starts(tmp_path):
    (tmp_path / "clip.mp4").touch()
    result = CliRunner().invoke(app, ["plan", "faces", "--frames", str(tmp_path / "clap.mp4")])
    assert result.exit_code == 2
    assert result.output.startswith(f"forebay plan: there is no video or folder {tmp_path / 'clap.mp4'}")
    assert "the server's log" not in result.output
