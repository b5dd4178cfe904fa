"""Structured logs: readable on a terminal, one JSON object a line otherwise. Never one event per frame.

Control characters in values (camera names come from clients) cannot forge a line: JSON escapes them, and the console
renderer prints values with repr.
"""

import logging
import sys
from typing import Literal, TextIO, cast

import structlog

LogFormat = Literal["auto", "json", "console"]


class _StandardError:
    """Standard error as it is when a line is written: loggers are kept for good, a redirected stream is not."""

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
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if not is_console else _keep,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _StandardError())),
        cache_logger_on_first_use=True,
    )


def _keep(_: structlog.typing.WrappedLogger, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return event  # the console renderer formats exceptions itself
