"""Structured logs: readable on a terminal, one JSON object a line otherwise. Never one event per frame.

Control characters in values (camera names come from clients) cannot forge a line or move the cursor: they are written
as escapes, in JSON as on a terminal. The least level that is logged can be changed while the process runs.
"""

import io
import logging
import re
import sys
from typing import Final, Literal, TextIO, cast

import structlog

LogFormat = Literal["auto", "json", "console"]
LEVELS: Final = ("debug", "info", "warning", "error")

# C0 and C1 controls, line and paragraph separators, and what turns the direction of writing around.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class _Threshold:
    """The least level that is logged. Thread: any; one attribute, swapped whole."""

    def __init__(self) -> None:
        self.name = "info"
        self.number = logging.INFO

    def set(self, name: str) -> None:
        self.number = logging.getLevelNamesMapping()[name.upper()]
        self.name = name


_threshold = _Threshold()


class _StandardError:
    """Standard error as it is when a line is written: loggers are kept for good, a redirected stream is not."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class _CurrentStandardError(io.TextIOBase):
    """Writes to whatever sys.stderr is at that moment: loggers are cached, and outlive a replaced one."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure_logs(log_format: LogFormat = "auto", level: str = "info") -> None:
    """Send logs of this process to standard error. Thread: main, once."""
    is_console = sys.stderr.isatty() if log_format == "auto" else log_format == "console"
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if is_console else structlog.processors.JSONRenderer()
    )
    set_level(level)
    structlog.configure(
        processors=[
            _drop_below_threshold,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            escape_controls if is_console else structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _StandardError())),
        cache_logger_on_first_use=True,
    )


def least_level() -> str:
    """Return the least level that is logged: one of LEVELS. Thread: any."""
    return _threshold.name


def set_level(level: str) -> None:
    """Change the least level that is logged: one of LEVELS. Thread: any."""
    _threshold.set(level)


def step_level(steps: int) -> str:
    """Log more (a negative number of steps) or less from now on; return the level. Thread: any."""
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


def escape_controls(
    _: structlog.typing.WrappedLogger, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    r"""Write control characters of every text as escapes such as \n or \x1b."""
    for key, value in event.items():
        if isinstance(value, str) and _CONTROLS.search(value):
            event[key] = _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), value)
    return event
