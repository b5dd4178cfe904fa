"""The measuring path of `forebay plan`, with a real server and a small real model."""

import json

from typer.testing import CliRunner

from forebay_server.bench.plan import fit as fit_module
from forebay_server.bench.plan import measuring
from forebay_server.bench.plan.costs import CostsError, read_costs
from forebay_server.service.cli import exit_codes
from forebay_server.service.cli.commands import app

MS = 1_000_000


def test_the_costs_of_a_real_model_are_measured_saved_and_planned_with_again(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "PILOT_S", 1.0)
    monkeypatch.setattr(fit_module, "MOST_FRAMES", 400)
    file = tmp_path / "faces.json"
    words = ("--fps", "5", "--machines", "2", "--json")
    measured = ("faces", "--size", "320x240", "--seconds", "2", "--save", str(file))
    made = CliRunner().invoke(app, ["plan", *measured, *words])
    assert made.exit_code == 0, made.output
    costs = read_costs(file)
    assert (costs.model, costs.encoding, costs.width, costs.height) == ("faces", "jpeg", 320, 240)
    assert 5_000 < costs.frame_bytes < 100_000
    assert costs.table.sizes[-1] == costs.executed_sizes[-1] == 16
    assert (costs.instances, costs.strands) == (1, 1)
    for name in ("transport_ns", "loop_ns", "decode_ns", "result_ns", "stage_ns", "camera_ns"):
        assert 1_000 < getattr(costs.frame, name) < 50 * MS, name
    assert 100_000 < costs.table.execute_ns[0] < 100 * MS
    assert costs.real is not None
    assert costs.real.promised >= 1
    assert costs.real.runs[0].cameras == costs.real.promised
    assert all(run.frames > 0 for run in costs.real.runs)
    planned = json.loads(made.output)
    assert planned["fits"] >= 1
    again = CliRunner().invoke(app, ["plan", "--costs", str(file), *words])
    assert json.loads(again.output) == planned


def test_a_repository_is_found_from_where_the_command_runs(tmp_path, monkeypatch):
    asked = []

    def start(wanted, _say):
        asked.append(wanted.repository)
        raise CostsError("enough")

    monkeypatch.setattr(measuring, "measure_costs", start)
    (tmp_path / "best.onnx").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert plan("best", "-m", "best.onnx").stderr == "forebay plan: enough\n"
    assert asked == [tmp_path / "best.onnx"]


def plan(*words):
    return CliRunner().invoke(app, ["plan", *map(str, words)])


def test_a_model_that_is_not_there_is_one_line_with_those_that_are(tmp_path):
    result = plan("detectr")
    assert result.exit_code == exit_codes.MODEL
    assert result.stderr == (
        "forebay plan: no model 'detectr' in the repository; it has detector, faces; did you mean 'detector'?\n"
    )
    (tmp_path / "best.onnx").write_bytes(b"")
    assert plan("nope", "-m", tmp_path).stderr == "forebay plan: no model 'nope' in the repository; it has best\n"
    gone = plan("best", "-m", tmp_path / "bets.onnx")
    assert gone.exit_code == exit_codes.MODEL
    assert f"did you mean {tmp_path}/best.onnx?" in gone.stderr


def test_a_file_in_place_of_a_name_is_answered_with_the_words_to_write(tmp_path):
    file = tmp_path / "best.onnx"
    file.write_bytes(b"")
    result = plan(file)
    assert result.exit_code == exit_codes.USAGE
    assert result.stderr.endswith(f"is a file: give the name of its model, and the file with -m: -m {file} best\n")


def test_frames_that_are_no_pictures_are_hardly_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "PILOT_S", 1.0)
    monkeypatch.setattr(fit_module, "MOST_FRAMES", 400)
    file = tmp_path / "faces.json"
    made = CliRunner().invoke(app, ["plan", "faces", "--encoding", "tensor", "--seconds", "2", "--save", str(file)])
    assert made.exit_code == 0, made.output
    assert read_costs(file).frame.decode_ns < 200_000
