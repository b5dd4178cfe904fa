"""Structured logs: readable on a terminal, one JSON object a line otherwise. Never one event per frame.

Control characters in values (camera names come from clients) cannot forge a line or move the cursor: they are written
as escapes, in JSON as on a terminal. The lowest logged level can be changed while the process runs.

A call on a logger never raises and never blocks, for all arguments and states of standard error: the event is
rendered on the calling thread and handed to `service.standard_error`.
"""

import json
import logging
import os
import re
from collections.abc import Sequence
from typing import Final, Literal

import structlog

from forebay_server.service.standard_error import STANDARD_ERROR

LogFormat = Literal["auto", "json", "console"]
LEVELS: Final = ("debug", "info", "warning", "error")
MAX_VALUE_CHARACTERS = 8_192  # of one value; of longer ones the beginning and the end are kept
MAX_LINE_CHARACTERS = 65_536  # of an event with many long values only its name is logged

# C0 and C1 controls, line and paragraph separators, and characters that change the direction of writing.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_EXCEPTION_INDENT = "    "  # a line of an exception's text cannot be taken for an event, which begins with the time


class _Threshold:
    """The lowest level that is logged. Thread: any; one attribute, swapped whole."""

    def __init__(self) -> None:
        self.name = "info"
        self.number = logging.INFO

    def set(self, name: str) -> None:
        self.number = logging.getLevelNamesMapping()[name.upper()]
        self.name = name


_threshold = _Threshold()


class _Output:
    """Receives rendered lines from structlog, which looks the method up by the level."""

    def msg(self, line: str) -> None:
        STANDARD_ERROR.put(line)

    debug = info = warning = error = critical = exception = msg


class _Rendering:
    """The last processor: renders an event as one line, as far as possible."""

    def __init__(self, processors: Sequence[structlog.typing.Processor]) -> None:
        self._processors = processors

    def __call__(self, logger: structlog.typing.WrappedLogger, method: str, event: structlog.typing.EventDict) -> str:
        name = str(event.get("event"))[:MAX_VALUE_CHARACTERS]
        try:
            made: object = event
            for processor in self._processors:
                made = processor(logger, method, made)  # type: ignore[arg-type]  # an event until the last one
            line = str(made)
        except Exception as error:  # noqa: BLE001 - a value that cannot be rendered must not end the caller's work
            return json.dumps({"event": name, "level": method, "not_logged": type(error).__name__})
        if len(line) > MAX_LINE_CHARACTERS:
            return json.dumps({"event": name, "level": method, "not_logged": f"{len(line)} characters"})
        return line


def configure_logs(log_format: LogFormat = "auto", level: str = "info") -> None:
    """Send logs of this process to standard error. Thread: main, once."""
    is_console = os.isatty(2) if log_format == "auto" else log_format == "console"
    set_level(level)
    rendering = _Rendering(
        [
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            cut_values,
            *(_CONSOLE if is_console else _JSON),
        ]
    )
    structlog.configure(
        processors=[_drop_below_threshold, rendering],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=lambda *_: _Output(),
        cache_logger_on_first_use=True,
    )
    STANDARD_ERROR.words_for_losses = lambda count: rendering(
        None, "warning", {"event": "log lines are missing here: standard error took no more", "lines": count}
    )


def least_level() -> str:
    """Return the lowest level that is logged: one of LEVELS. Thread: any."""
    return _threshold.name


def set_level(level: str) -> None:
    """Change the lowest level that is logged: one of LEVELS. Thread: any."""
    _threshold.set(level)


def step_level(steps: int) -> str:
    """Log more (a negative number of steps) or less; return the level. Thread: any."""
    index = min(max(LEVELS.index(_threshold.name) + steps, 0), len(LEVELS) - 1)
    _threshold.set(LEVELS[index])
    return LEVELS[index]


def _drop_below_threshold(
    _: structlog.typing.WrappedLogger, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    level = "error" if method == "exception" else method
    if logging.getLevelNamesMapping().get(level.upper(), logging.INFO) < _threshold.number:
        raise structlog.DropEvent
    return event


def cut_values(
    _: structlog.typing.WrappedLogger, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Keep the beginning and the end of texts that are too long."""
    half = MAX_VALUE_CHARACTERS // 2
    for key, value in event.items():
        if isinstance(value, str) and len(value) > MAX_VALUE_CHARACTERS:
            event[key] = f"{value[:half]} [{len(value) - 2 * half} characters] {value[-half:]}"
    return event


def escape_controls(
    _: structlog.typing.WrappedLogger, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    r"""Write control characters of every text as escapes such as \n or \x1b; an exception keeps its lines, indented."""
    for key, value in event.items():
        if key == "exception":
            event[key] = "\n".join(_EXCEPTION_INDENT + _escaped(line) for line in str(value).split("\n"))
        elif isinstance(value, str):
            event[key] = _escaped(value)
    return event


def _escaped(text: str) -> str:
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


_JSON = (structlog.processors.JSONRenderer(),)  # writes all characters but ASCII as escapes
_CONSOLE = (escape_controls, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback))
