"""`forebay config`: its output can be read back."""

import json
import tomllib

import pytest
from typer.testing import CliRunner

from forebay_server.service.cli.commands import app
from forebay_server.service.settings import ServeSettings, load_settings


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in ServeSettings.model_fields:
        monkeypatch.delenv(f"FOREBAY_{name.upper()}", raising=False)


def run(*arguments):
    result = CliRunner().invoke(app, ["config", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_what_show_prints_is_a_file_that_gives_the_same_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("FOREBAY_MODEL_REPOSITORY", '["a", "b"]')
    shown = tmp_path / "shown.toml"
    shown.write_text(run("show"))
    monkeypatch.delenv("FOREBAY_MODEL_REPOSITORY")
    assert load_settings({}, shown, {}).values.model_dump(mode="json")["model_repository"] == ["a", "b"]


def test_origins_are_told(tmp_path, monkeypatch):
    config = tmp_path / "forebay.toml"
    config.write_text("max_streams = 5\n")
    monkeypatch.setenv("FOREBAY_PERMITS", "7")
    lines = {
        line.split()[0]: line.rpartition("# ")[2] for line in run("show", "--origin", "--config", config).splitlines()
    }
    assert (lines["max_streams"], lines["permits"], lines["max_window"]) == ("file", "environment", "default")
    report = json.loads(run("show", "--origin", "--json", "--config", config))
    assert report["permits"] == {"value": 7, "origin": "environment"}


def test_show_without_origins_is_toml_and_json():
    assert tomllib.loads(run("show"))["permits"] == json.loads(run("show", "--json"))["permits"]


def test_the_schema_has_every_setting_with_its_meaning():
    properties = json.loads(run("schema"))["properties"]
    assert set(properties) == set(ServeSettings.model_fields)
    assert all(entry["description"] for entry in properties.values())


def test_a_mistake_is_one_line_and_code_2(monkeypatch):
    monkeypatch.setenv("FOREBAY_PERMITS", "many")
    result = CliRunner().invoke(app, ["config", "show"])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
