"""Writes the ready line to standard output, and the ready file.

The reader of standard output may be slow or gone, and a disk may be full. So a separate thread writes both, and a
failure is reported as one error, which ends the server: otherwise it would serve although its users are not notified.
"""

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

STANDARD_OUTPUT = 1


class ReadyError(Exception):
    """The readiness of the server cannot be announced. The message has the reason and a remedy."""


class ReadyLine(Protocol):
    """The ready line of a process."""

    def to_json(self) -> str:
        """One line."""
        ...


@dataclass(frozen=True, slots=True)
class Ready:
    """See the module; also the content of the ready file."""

    address: str
    uds: str | None
    admin_address: str | None
    pid: int
    models: dict[str, list[str]]

    def to_json(self) -> str:
        """One line."""
        return json.dumps({"event": "ready"} | asdict(self))


def tell_ready(line: str, path: Path | None, on_end: Callable[[ReadyError | None], None]) -> None:
    """Write the ready file, if there is a path for it, then the ready line. Blocks: no. Raises nothing.

    Args:
        line: without its end.
        path: of the ready file.
        on_end: called with the error, or None. Thread: the writing one; the caller's if no thread can be started.
    """

    def write() -> None:
        try:
            if path is not None:
                write_whole(path, line)
            write_line(line)
        except ReadyError as error:
            on_end(error)
        else:
            on_end(None)

    try:
        threading.Thread(target=write, name="ready line", daemon=True).start()
    except RuntimeError as error:  # no more threads
        on_end(ReadyError(f"cannot write the ready line: {error}"))


async def ready_was_told(line: str, path: Path | None, stopped: Coroutine[Any, Any, None]) -> None:
    """Announce that the server is ready; return when that is written, or `stopped` has come. Raises ReadyError."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[ReadyError | None] = loop.create_future()

    def end(error: ReadyError | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: the server was stopped before the line was read
            loop.call_soon_threadsafe(told.set_result, error)

    tell_ready(line, path, end)
    stopping = asyncio.create_task(stopped)
    await asyncio.wait((told, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if told.done() and (error := told.result()) is not None:
        raise error


def write_line(line: str) -> None:
    """Write a line to standard output. Blocks: while its reader takes nothing. Raises ReadyError."""
    rest = (line + "\n").encode()
    try:
        while rest:
            rest = rest[os.write(STANDARD_OUTPUT, rest) :]
    except OSError as error:
        words = f"cannot write the ready line to standard output: {error.strerror}"
        raise ReadyError(f"{words}; redirect it to where it can be written, or to /dev/null") from None


def write_whole(path: Path, line: str) -> None:
    """Write a file that a reader sees complete or not at all. Raises ReadyError."""
    partial = path.with_name(path.name + ".partial")
    try:
        try:
            partial.write_text(line + "\n")
            partial.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
    except OSError as error:
        raise ReadyError(f"cannot write {path}: {error.strerror}; give another --ready-file") from None
