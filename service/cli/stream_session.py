"""All cameras of one `forebay stream` on one event loop, until the last has ended or a signal comes."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import typer

import forebay
from forebay.client.clock import MonotonicClock
from forebay_server.service.cli import exit_codes
from forebay_server.service.cli.stream_camera import CameraRun
from forebay_server.service.cli.stream_loop import stream_loop
from forebay_server.service.cli.stream_output import AnnotatedClip, open_sink
from forebay_server.service.cli.stream_plan import CameraPlan
from forebay_server.service.cli.stream_server import StreamServer

CODES = {signal.SIGINT: exit_codes.INTERRUPTED, signal.SIGTERM: exit_codes.TERMINATED}


@dataclass(frozen=True, slots=True)
class StreamSession:
    """The words of the command line, checked.

    Attributes:
        cameras: each source, with its clip.
        address: of the server; None: start one.
        tls: None speaks plain text.
        model: the user's word; None: the server's only model.
        headers: of every call.
        is_json: JSON lines also on a terminal.
    """

    cameras: Sequence[tuple[CameraPlan, AnnotatedClip | None]]
    address: str | None
    tls: forebay.Tls | None
    model: str | None
    headers: dict[str, str]
    is_json: bool


def run_session(session: StreamSession) -> int:
    """Send every source and return the exit code: that of the signal, or of the first camera that failed.

    A camera whose device or network hangs in a read ends with the process, here and at once: an interpreter that shuts
    down while a library's thread comes back from a read may crash.
    """
    with asyncio.Runner(loop_factory=stream_loop) as runner:
        code, hangs = runner.run(_run(session))
    if hangs:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


async def _run(session: StreamSession) -> tuple[int, bool]:
    with open_sink(is_json=session.is_json) as sink:
        async with StreamServer(session.address, session.tls, session.model, session.headers) as server:
            clock = MonotonicClock()
            runs = [CameraRun(plan, server, sink, clip, clock, _say) for plan, clip in session.cameras]
            tasks = [asyncio.create_task(run.run()) for run in runs]
            received: list[int] = []

            def stop(code: int) -> None:
                received.append(code)
                if len(received) == 1:  # a second one would end what ends in order already, within seconds
                    for task in tasks:
                        task.cancel()

            with _on_signals(stop):
                try:
                    codes = await asyncio.gather(*tasks)
                finally:  # standard output cannot be written
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
    failed = [code for code in codes if code != exit_codes.OK]
    return (received or failed or [exit_codes.OK])[0], any(run.hangs for run in runs)


@contextlib.contextmanager
def _on_signals(stop: Callable[[int], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number, code in CODES.items():
        with contextlib.suppress(ValueError, RuntimeError):  # not the main thread: it gets no signals
            loop.add_signal_handler(number, stop, code)
    try:
        yield
    finally:
        for number in CODES:
            loop.remove_signal_handler(number)


def _say(line: str) -> None:
    typer.echo(line, err=True)
