"""TensorRT or TensorRT-RTX, and its log. One code path: both have the same names; 10.x and 11.x differ in numbers only.

This package never stores the number of an enum, because enums were renumbered between 10 and 11; it stores and looks up
names. Names that only some releases have are looked up with hasattr, and tests/heavy/vendor checks every other one
against the real bindings of 10.16, 11.4 and TensorRT-RTX.

TensorRT signals failure by returning None or False and logging; `Library.errors_of` turns the log into a message. It
keeps one process-wide logger and ignores a second, so there is one here too. It is called from build threads.
"""

import threading
from collections import deque
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from forebay_server.engines.errors import BackendUnavailableError
from forebay_server.engines.extras import install_hint

NAMES = ("tensorrt", "tensorrt-rtx")
_MODULES = {"tensorrt": ("tensorrt",), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
_KEPT_LINES = 50
_SHOWN_LINES = 3


class Log:
    """The last errors and warnings of the library. Thread: any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: deque[tuple[int, str, str]] = deque(maxlen=_KEPT_LINES)
        self._count = 0

    def add(self, severity: str, text: str) -> None:
        """Keep a line of severity `error` or `warning`."""
        with self._lock:
            self._count += 1
            self._lines.append((self._count, severity, text))

    def mark(self) -> int:
        """Return the current end of the log."""
        with self._lock:
            return self._count

    def since(self, mark: int, severity: str = "error") -> list[str]:
        """Return the lines of a severity after a mark."""
        with self._lock:
            return [text for number, kind, text in self._lines if number > mark and kind == severity]


@dataclass(frozen=True, slots=True)
class Library:
    """One of the two libraries, loaded.

    Attributes:
        name: `tensorrt` or `tensorrt-rtx`.
        trt: the module.
        logger: for all calls that take one.
        log: lines that the logger kept.
    """

    name: str
    trt: Any
    logger: Any
    log: Log

    @property
    def version(self) -> str:
        """As the library reports it."""
        return str(self.trt.__version__)

    @property
    def major(self) -> int:
        """First number of the version."""
        return int(self.version.split(".")[0])

    def errors_of(self, mark: int) -> str:
        """Return the errors of the log after `mark`, in one line, for an exception."""
        lines = self.log.since(mark) or ["no error in its log"]
        return "; ".join(" ".join(line.split()) for line in lines[-_SHOWN_LINES:])


_loaded: dict[str, Library] = {}
_lock = threading.Lock()


def load(name: str) -> Library:
    """Load `tensorrt`, `tensorrt-rtx`, or the first that is installed for `auto`.

    On a machine without a driver only the builder may be used: deserializing can crash the process. Code that runs
    plans opens the CUDA device first, which refuses such machines.

    Raises:
        BackendUnavailableError: not installed, with what to install.
    """
    if name == "auto":
        for candidate in NAMES:
            try:
                return load(candidate)
            except BackendUnavailableError:
                continue
        raise BackendUnavailableError(
            f"TensorRT is not installed: {install_hint('tensorrt')} or {install_hint('tensorrt-rtx')}"
        )
    with _lock:
        if name not in _loaded:
            _loaded[name] = _open(name)
        return _loaded[name]


def _open(name: str) -> Library:
    problem = ""
    for module in _MODULES[name]:
        try:
            trt = import_module(module)
        except ImportError as error:
            problem = problem or str(error)
            continue
        log = Log()
        return Library(name, trt, _make_logger(trt, log), log)
    raise BackendUnavailableError(f"{name} cannot be loaded ({problem}): {install_hint(name)}")


def _make_logger(trt: Any, log: Log) -> Any:  # noqa: ANN401 - the libraries have no stubs
    severities = {
        trt.ILogger.Severity.INTERNAL_ERROR: "error",
        trt.ILogger.Severity.ERROR: "error",
        trt.ILogger.Severity.WARNING: "warning",
    }

    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps errors and warnings."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:  # noqa: ANN401
            """Called by the library, from any of its threads."""
            kind = severities.get(severity)
            if kind is not None:
                log.add(kind, text)

    return Logger()
