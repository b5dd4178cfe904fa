"""`forebay demo`: a server, several cameras that play the bundled clip, and a picture of the detections."""

import contextlib
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forebay_server.service.cli import exit_codes

if TYPE_CHECKING:
    from forebay_server.service.cli.player import CameraLog

FILES = ("demo.png", "demo.mp4")
# The detector takes 40 to 50 ms of one core a frame: 8 frames a second leave room on two cores for everything else.
FPS = 4.0
CORES_PER_CAMERA = 1
MOST_CAMERAS = 4
SECONDS = 10.0  # with start and drawing well below 30 s, also on a busy machine
SECONDS_ON_TERMINAL = 20.0
LEAD_S = 0.5  # for the streams to open before the first frame is due
REFRESH_S = 0.25


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """Options of a run; see the flags of `demo`."""

    cameras: int
    fps: float
    seconds: float
    encoding: str
    address: str | None
    out: Path
    has_live_table: bool


def demo(
    *,
    cameras: Annotated[int | None, typer.Option(min=1, max=64, help="cameras [one per core, at most 4]")] = None,
    fps: Annotated[float, typer.Option(min=0.1, max=60, help="frames a second of each camera")] = FPS,
    seconds: Annotated[
        float | None, typer.Option(min=0.5, max=3600, help="how long to play [20 on a terminal, else 10]")
    ] = None,
    encoding: Annotated[str, typer.Option(help="bgr8 or jpeg")] = "bgr8",
    address: Annotated[str | None, typer.Option(help="use this server instead of starting one")] = None,
    out: Annotated[Path, typer.Option(help="folder for demo.png and demo.mp4")] = Path("out"),
    is_json: Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")] = False,
) -> None:
    """Start a server, play the bundled clip as several cameras, and draw the detections."""
    import sys

    import forebay

    forebay.tune_process()  # before anything imports grpc
    if encoding not in {"bgr8", "jpeg"}:
        typer.echo(f"forebay: --encoding must be bgr8 or jpeg, not {encoding}", err=True)
        raise typer.Exit(exit_codes.USAGE)
    if address is not None:
        _check_address(address)
    is_live = sys.stdout.isatty() and not is_json
    options = DemoOptions(
        cameras=cameras or max(2, min(MOST_CAMERAS, len(os.sched_getaffinity(0)) // CORES_PER_CAMERA)),
        fps=fps,
        seconds=seconds or (SECONDS_ON_TERMINAL if is_live else SECONDS),
        encoding=encoding,
        address=address,
        out=out,
        has_live_table=is_live,
    )
    raise typer.Exit(_run(options, is_json=is_json))


def _check_address(address: str) -> None:
    """End the command with a line if a server cannot have this address."""
    from forebay.addresses import parse_addresses

    try:
        parse_addresses(address)
    except ValueError as error:
        typer.echo(f"forebay: --address: {error}", err=True)
        raise typer.Exit(exit_codes.USAGE) from None


def _run(options: DemoOptions, *, is_json: bool) -> int:
    import asyncio

    from forebay_server.service.cli.player import CameraLog
    from forebay_server.service.cli.server_process import ServerStartError

    if problem := _made_folder_fault(options.out):
        typer.echo(f"forebay: --out: {problem}", err=True)
        return exit_codes.CANNOT_WRITE
    logs = [CameraLog(f"camera-{number + 1}") for number in range(options.cameras)]
    with resources.as_file(resources.files("forebay_server.models") / "pedestrians.mp4") as clip:
        try:
            asyncio.run(_play_all(options, logs, str(clip)))
        except ServerStartError as error:
            typer.echo(f"forebay: {error}", err=True)
            return exit_codes.UNAVAILABLE
        written, problem = _draw(options, logs, str(clip))
    report = summarise(logs, options.fps)
    if is_json:
        typer.echo(json.dumps({**report, "files": [str(path) for path in written]}))
    else:
        _print(report, logs, written)
    if problem:
        typer.echo(f"forebay: {problem}; give another --out", err=True)
        return exit_codes.CANNOT_WRITE
    return exit_codes.OK if _is_good(report) else exit_codes.FAILED


def _made_folder_fault(folder: Path) -> str:
    """Make the folder; return why its files cannot be written, empty if they can."""
    from forebay_server.loadtest.places import place_fault

    for name in FILES:
        if problem := place_fault(folder / name, makes_folders=True):
            return problem
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"cannot write to {folder}: {error.strerror}"
    return ""


async def _play_all(options: DemoOptions, logs: Sequence["CameraLog"], clip: str) -> None:
    import asyncio

    import forebay.aio
    from forebay.client.clock import MonotonicClock
    from forebay_server.service.cli.player import Plan, play

    clock = MonotonicClock()
    frames = max(1, round(options.seconds * options.fps))
    async with _server(options) as address, forebay.aio.Client(address) as client, _live(options, logs):
        start_ns = clock.now_ns() + round(LEAD_S * 1e9)
        async with asyncio.TaskGroup() as group:
            for number, log in enumerate(logs):
                # Cameras are not in step: each starts at another place in the clip and in the interval between two
                # frames.
                plan = Plan(
                    clip=clip,
                    encoding="jpeg" if options.encoding == "jpeg" else "bgr8",
                    fps=options.fps,
                    frames=frames,
                    start_ns=start_ns + round(number / len(logs) * 1e9 / options.fps),
                    first_index=number * 37 % 150,
                )
                group.create_task(play(client, log, plan, clock))


@contextlib.asynccontextmanager
async def _server(options: DemoOptions) -> AsyncIterator[str]:
    from forebay_server.service.cli.server_process import running_server

    if options.address is not None:
        yield options.address
        return
    async with running_server() as address:
        yield address


@contextlib.asynccontextmanager
async def _live(options: DemoOptions, logs: Sequence["CameraLog"]) -> AsyncIterator[None]:
    """Show the live table during the block, on a terminal."""
    if not options.has_live_table:
        yield
        return
    import asyncio

    from rich.live import Live

    from forebay_server.service.cli.live_table import camera_table

    title = f"{options.cameras} cameras at {options.fps:g} frames a second"
    with Live(camera_table(title, logs), auto_refresh=False) as live:

        async def refresh() -> None:
            while True:
                await asyncio.sleep(REFRESH_S)
                live.update(camera_table(title, logs), refresh=True)

        refresher = asyncio.create_task(refresh())
        try:
            yield
        finally:
            refresher.cancel()
            live.update(camera_table(title, logs), refresh=True)


def summarise(logs: Sequence["CameraLog"], fps: float) -> dict[str, Any]:
    """Return the figures of a run, as `--json` prints them. Latencies are of OK results, in ms; None without any."""
    from forebay_server.service.cli.player import percentile

    latencies = [latency for log in logs for latency in log.latencies_ms]
    ages = [age for log in logs for age in log.ages_ms]
    answered = sum(
        sum(log.by_status.values()) - log.by_status["not_sent"] - log.by_status["unanswered"] for log in logs
    )
    frames_sent = sum(log.statistics.sent for log in logs)
    statuses: Counter[str] = sum((log.by_status for log in logs), Counter())
    return {
        "cameras": len(logs),
        "fps": fps,
        "frames_sent": frames_sent,
        "results": answered,
        "lost": frames_sent - answered,
        "out_of_order": sum(log.disorders + log.statistics.out_of_order for log in logs),
        "status_counts": dict(sorted(statuses.items())),
        "p50_ms": _rounded(percentile(latencies, 0.5)),
        "p99_ms": _rounded(percentile(latencies, 0.99)),
        "age_p99_ms": _rounded(percentile(ages, 0.99)),
        "detections": sum(log.detections for log in logs),
        "frames_with_person": sum(log.frames_with_person for log in logs),
        "errors": [f"{log.name}: {log.error}" for log in logs if log.error],
    }


def _is_good(report: dict[str, Any]) -> bool:
    is_alive = report["results"] > 0 and not report["errors"]
    return is_alive and report["lost"] == 0 and report["out_of_order"] == 0


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _draw(options: DemoOptions, logs: Sequence["CameraLog"], clip: str) -> tuple[list[Path], str]:
    """Write the picture and the clip, if there is something to draw; return the written files, and a problem."""
    from forebay_server.service.cli.clip_writer import CannotWriteError
    from forebay_server.service.cli.drawing import draw_clip, draw_picture

    seen = [log for log in logs if log.findings]
    if not seen:
        return [], ""
    picture, film = (options.out / name for name in FILES)
    written = []
    try:
        draw_picture(picture, clip, [(log.name, log.findings) for log in seen[:MOST_CAMERAS]])
        written.append(picture)
        draw_clip(film, clip, seen[0].name, seen[0].findings, options.fps)
        written.append(film)
    except CannotWriteError as error:
        return written, str(error)
    return written, ""


def _print(report: dict[str, Any], logs: Sequence["CameraLog"], written: Sequence[Path]) -> None:
    from rich.console import Console

    from forebay_server.service.cli.live_table import camera_table

    console = Console(soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console.print(camera_table(f"{report['cameras']} cameras at {report['fps']:g} frames a second", logs))
    statuses = ", ".join(f"{count} {status}" for status, count in report["status_counts"].items())
    statuses = f" ({statuses})" if statuses else ""
    console.print(f"{report['frames_sent']} frames sent, {report['results']} answered{statuses}")
    console.print(f"{report['lost']} lost, {report['out_of_order']} out of order")
    if report["p50_ms"] is not None:
        console.print(f"from the intended sending to the result: p50 {report['p50_ms']} ms, p99 {report['p99_ms']} ms")
    console.print(f"{report['detections']} objects found; a person in {report['frames_with_person']} frames")
    for error in report["errors"]:
        console.print(f"failed: {error}", markup=False)
    for path in written:
        console.print(f"written: {path}", markup=False)
