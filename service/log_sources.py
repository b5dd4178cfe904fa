"""Turns output of Python and libraries to standard error into log events, from `take_over` on.

Such texts may contain a client's text, and the thread that writes them, possibly the event loop's, would wait for the
reader of standard error. As events they are escaped and wait for no reader (`service.log`). The sources are the logging
module (asyncio and gRPC report through it), warnings, uncaught exceptions, on any thread and in finalizers, and texts
that are printed to sys.stderr.
"""

import io
import logging
import sys
import threading
from types import TracebackType

import structlog

from forebay_server.service.log import MAX_VALUE_CHARACTERS

log = structlog.get_logger(__name__)


def take_over() -> None:
    """Log the other output of this process to standard error. Thread: main, once, after `configure_logs`."""
    logging.captureWarnings(capture=True)
    logging.basicConfig(handlers=[RecordHandler()], level=logging.WARNING, force=True)
    sys.excepthook = log_uncaught
    threading.excepthook = _log_thread_end
    sys.unraisablehook = _log_unraisable
    sys.stderr = PrintedText()


class RecordHandler(logging.Handler):
    """Logs the records of the logging module. Thread: any."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record."""
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit the format
            text = str(record.msg)
        write = log.error if record.levelno >= logging.ERROR else log.warning
        write("a library reports", library=record.name, detail=text.strip(), exc_info=record.exc_info)


class PrintedText(io.TextIOBase):
    """A text stream whose lines become events. Thread: any."""

    encoding = "utf-8"

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()
        self._begun = ""

    def write(self, text: str) -> int:
        """Log every line that `text` completes; keep the rest until it is complete."""
        with self._lock:
            *lines, self._begun = (self._begun + text).split("\n")
            if len(self._begun) > MAX_VALUE_CHARACTERS:
                lines.append(self._begun)
                self._begun = ""
        for line in lines:
            if line.strip():
                log.warning("printed to standard error", detail=line)
        return len(text)

    def fileno(self) -> int:
        """The descriptor of standard error, for output that bypasses this stream."""
        return 2

    def writable(self) -> bool:
        """Yes."""
        return True


def log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Log an exception that ends the main thread."""
    log.error("uncaught exception", exc_info=(kind, error, trace))


def _log_thread_end(end: threading.ExceptHookArgs) -> None:
    if end.exc_value is not None and not issubclass(end.exc_type, SystemExit):
        name = "" if end.thread is None else end.thread.name
        log.error(
            "a thread ended by an exception", thread=name, exc_info=(end.exc_type, end.exc_value, end.exc_traceback)
        )


def _log_unraisable(found: "sys.UnraisableHookArgs") -> None:
    error = found.exc_value
    exc_info = None if error is None else (type(error), error, found.exc_traceback)
    log.error("exception ignored", detail=f"{found.err_msg or 'in'} {found.object!r:.200}", exc_info=exc_info)
