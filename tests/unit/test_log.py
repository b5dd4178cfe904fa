import json

import pytest
import structlog

from service import log as log_module
from service.log import configure_logs, set_level, step_level

AWKWARD = "gate\n2026 [error] forged\r\x1b[2J\x07\u2028\u202ename"


@pytest.fixture(autouse=True)
def _restored():
    yield
    structlog.reset_defaults()
    set_level("info")


def logged(capsys, log_format, level="info", **values):
    configure_logs(log_format, level)
    structlog.get_logger("test").info("stream opened", **values)
    return capsys.readouterr().err


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_name_cannot_forge_a_line_or_move_the_cursor(capsys, log_format):
    text = logged(capsys, log_format, stream=AWKWARD)
    assert text.count("\n") == 1
    assert not [character for character in "\r\x07\u2028\u202e" if character in text]
    assert "\x1b[2J" not in text


def test_json_gives_the_name_back(capsys):
    assert json.loads(logged(capsys, "json", stream=AWKWARD))["stream"] == AWKWARD


@pytest.mark.parametrize("value", [3, None, ["a\nb"], {"k": "v\n"}])
def test_other_values_stay_on_one_line(capsys, value):
    assert logged(capsys, "console", value=value).count("\n") == 1


def test_the_level_can_be_changed_while_running(capsys):
    configure_logs("json", "warning")
    logger = structlog.get_logger("test")
    logger.info("unseen")
    assert capsys.readouterr().err == ""
    assert step_level(-1) == "info"
    logger.info("seen")
    logger.debug("unseen")
    assert json.loads(capsys.readouterr().err)["event"] == "seen"
    assert step_level(-9) == "debug"
    logger.debug("seen")
    assert "seen" in capsys.readouterr().err
    assert step_level(9) == "error"
    logger.warning("unseen")
    assert capsys.readouterr().err == ""


def test_exceptions_are_logged_at_error(capsys):
    configure_logs("json", "error")
    try:
        int("wrong")
    except ValueError:
        structlog.get_logger("test").exception("failed")
    assert "ValueError: invalid literal" in json.loads(capsys.readouterr().err)["exception"]


def test_levels_are_those_of_the_settings():
    from service.settings import ServeSettings

    schema = ServeSettings.model_json_schema()["properties"]["log_level"]
    assert list(log_module.LEVELS) == schema["enum"]
