import json

import pytest
import structlog

from forebay_server.service import log as log_module
from forebay_server.service.log import MAX_LINE_CHARACTERS, MAX_VALUE_CHARACTERS, configure_logs, set_level, step_level
from forebay_server.service.standard_error import STANDARD_ERROR
from tests.support.guard import HANG_GUARD_S
from tests.support.logs import forget_configuration

AWKWARD = "gate\n2026 [error] forged\r\x1b[2J\x07\u2028\u202ename"


@pytest.fixture(autouse=True)
def _restored():
    yield
    assert STANDARD_ERROR.close(HANG_GUARD_S)
    forget_configuration()
    set_level("info")


def written(capfd):
    """The text on standard error, after everything logged so far has been written."""
    assert STANDARD_ERROR.close(HANG_GUARD_S)
    return capfd.readouterr().err


def logged(capfd, log_format, level="info", **values):
    configure_logs(log_format, level)
    structlog.get_logger("test").info("stream opened", **values)
    return written(capfd)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_name_cannot_forge_a_line_or_move_the_cursor(capfd, log_format):
    text = logged(capfd, log_format, stream=AWKWARD)
    assert text.count("\n") == 1
    assert not [character for character in "\r\x07\u2028\u202e" if character in text]
    assert "\x1b[2J" not in text


def test_json_gives_the_name_back(capfd):
    assert json.loads(logged(capfd, "json", stream=AWKWARD))["stream"] == AWKWARD


@pytest.mark.parametrize("value", [3, None, ["a\nb"], {"k": "v\n"}])
def test_other_values_stay_on_one_line(capfd, value):
    assert logged(capfd, "console", value=value).count("\n") == 1


def test_the_level_can_be_changed_while_running(capfd):
    configure_logs("json", "warning")
    logger = structlog.get_logger("test")
    logger.info("unseen")
    assert written(capfd) == ""
    assert step_level(-1) == "info"
    logger.info("seen")
    logger.debug("unseen")
    assert json.loads(written(capfd))["event"] == "seen"
    assert step_level(-9) == "debug"
    logger.debug("seen")
    assert "seen" in written(capfd)
    assert step_level(9) == "error"
    logger.warning("unseen")
    assert written(capfd) == ""


def test_exceptions_are_logged_at_error(capfd):
    configure_logs("json", "error")
    try:
        int("wrong")
    except ValueError:
        structlog.get_logger("test").exception("failed")
    assert "ValueError: invalid literal" in json.loads(written(capfd))["exception"]


def test_levels_are_those_of_the_settings():
    from forebay_server.service.settings import ServeSettings

    schema = ServeSettings.model_json_schema()["properties"]["log_level"]
    assert list(log_module.LEVELS) == schema["enum"]


class Unwritable:
    def __repr__(self):
        raise RuntimeError("not now")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_value_that_cannot_be_written_down_costs_the_event_its_values(capfd, log_format):
    assert json.loads(logged(capfd, log_format, value=Unwritable())) == {
        "event": "stream opened",
        "level": "info",
        "not_logged": "RuntimeError",
    }


def test_an_event_that_contains_itself_does_not_end_the_caller(capfd):
    value = []
    value.append(value)
    assert json.loads(logged(capfd, "json", value=value))["event"] == "stream opened"


def test_long_values_keep_their_beginning_and_their_end(capfd):
    value = json.loads(logged(capfd, "json", value="a" + "-" * (1 << 24) + "z"))["value"]
    assert value.startswith("a---")
    assert value.endswith("---z")
    assert len(value) < MAX_VALUE_CHARACTERS + 40


def test_an_event_that_is_too_long_in_all_is_only_named(capfd):
    line = logged(capfd, "json", value=["-" * 100] * 1000)
    assert json.loads(line)["not_logged"].endswith(" characters")
    assert len(line) < MAX_LINE_CHARACTERS


def fail():
    raise ValueError(AWKWARD)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_the_text_of_an_exception_cannot_forge_a_line_or_move_the_cursor(capfd, log_format):
    configure_logs(log_format)
    try:
        fail()
    except ValueError:
        structlog.get_logger("test").exception("failed")
    text = written(capfd)
    assert "[2J" in text
    assert "\x1b[2J" not in text
    assert not [line for line in text.splitlines() if line.startswith("2026 [error] forged")]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_half_a_surrogate_pair_is_written_as_an_escape(capfd, log_format):
    assert "\\udc80" in logged(capfd, log_format, value="\udc80")
