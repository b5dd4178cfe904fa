"""More cameras than a server can serve, as their clients see it: `python -m forebay_server.bench.cameras --overload`.

Every cell has a server of its own (simulated engine, t(b) = 15 + 1*b ms, at most 32 rows: 681 frames per second), the
cameras in processes of their own, a probe that asks for health, and, if it is a disturbed cell, a hog on one core. The
load is a multiple of the capacity: of the engine's, or of the rate of the same machine, closed loop with 64 frames in
flight right before, if that is less.

Server and clients share the machine, so a frame in time counts for both; `Cost` says what each of them took, and what
others took meanwhile. On a machine that others use, `--alone` gives the quiet cells a real-time priority.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from forebay_server.bench.cameras import ALPHA_MS, BETA_MS, CAPACITY_PER_S, LARGEST
from forebay_server.bench.identity import offer
from forebay_server.bench.overload_account import Cost, Fate, FrameAccount, account_of, frames_of
from forebay_server.bench.server_process import RunningServer, running_server, simulated_config

SIZES = (1024, 150_528, 602_112)
DELIVERIES = ("latest", "every")
LOADS = (1.2, 1.5, 2.0, 3.0)
SECONDS, QUICK_SECONDS = 20.0, 6.0
LIMIT_MS = 100.0
WARM_UP_SHARE = 0.1
CAMERAS = 48  # more than a batch has rows: of each LATEST camera one frame waits, so that fewer could not fill it
CONNECTIONS = 2  # of each process of cameras
LEAST_BUDGET_MS = 20.0  # one row takes the engine 16 ms: with less a frame is certainly late
CLIENTS = 2  # processes of cameras: one event loop cannot send 2,000 frames of 602 KB in a second
WINDOW = 64  # frames in flight, closed loop
CLOSED_LOOP_STREAMS = 4  # with a connection each
CLOSED_LOOP_S = 4.0
START_AFTER_S = 0.3  # for all processes to have read the start time
GUARD_S = 120.0  # above the time of a run


@dataclass(frozen=True, slots=True)
class Cell:
    """One case: bytes of a frame, delivery, load in capacities, and whether a hog runs beside it."""

    payload_bytes: int
    delivery: str
    load: float
    is_disturbed: bool


@dataclass(frozen=True, slots=True)
class Health:
    """Health checks of one run: how many failed, and how long the answers took."""

    failed: int
    p50_ms: float
    most_ms: float


@dataclass(frozen=True, slots=True)
class Measured:
    """One cell, measured."""

    cell: Cell
    capacity_per_s: float
    account: FrameAccount
    cost: Cost
    health: Health


def config_of(payload_bytes: int) -> dict[str, str]:
    """Return the model repository of a server under overload: one model called `slow`."""
    options = {"alpha_ms": ALPHA_MS, "beta_ms": BETA_MS, "input_bytes": payload_bytes, "max_batch_size": LARGEST}
    return {"slow": simulated_config(**options)}


def closed_loop_per_s(payload_bytes: int, seconds: float = CLOSED_LOOP_S) -> float:
    """Return frames per second with WINDOW in flight, no budget: the capacity of engine and machine together."""
    options: dict[str, int | str] = {
        "model": "slow",
        "streams": CLOSED_LOOP_STREAMS,
        "window": WINDOW // CLOSED_LOOP_STREAMS,
    }
    with running_server(config_of(payload_bytes)) as server:
        rates: list[float] = []
        for share in (0.25, 1.0):  # the first run warms up
            run = offer(server, server.address, payload_bytes, frames=int(CAPACITY_PER_S * seconds * share), **options)
            rates.append(run["frames"] / run["wall_s"])
        return rates[-1]


def measure(cell: Cell, capacity_per_s: float, seconds: float, clients: int = CLIENTS) -> Measured:
    """Run one cell against a server of its own."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running_server(config_of(cell.payload_bytes)))
        if cell.is_disturbed:
            hog = stack.enter_context(_process("hog", str(min(os.sched_getaffinity(0))), str(seconds + GUARD_S)))
        else:
            hog = None
        cameras = [
            stack.enter_context(_process("camera_load", server.address, "slow", *options))
            for options in _clients(cell, capacity_per_s, seconds, clients)
        ]
        probe = stack.enter_context(_process("health_probe", server.address, "--seconds", str(seconds)))
        for helper in (*cameras, probe):
            _expect_ready(helper)
        start = time.monotonic() + START_AFTER_S
        for helper in (*cameras, probe):
            _tell(helper, f"{start}\n")
        before = _usage_at(start + WARM_UP_SHARE * seconds, server, hog)
        after = _usage_at(start + seconds, server, hog)
        results = [_result(helper, seconds) for helper in cameras]
        health = _result(probe, seconds)
    span_s = seconds * (1.0 - WARM_UP_SHARE)
    frames = [frame for result in results for frame in frames_of(result)]
    account = account_of(frames, span_s)
    answers_ms = sorted(health["answers_ms"]) or [float("nan")]
    return Measured(
        cell,
        capacity_per_s,
        account,
        _cost(before, after, sum(result["cpu_s"] for result in results), account, span_s),
        Health(health["failed"], answers_ms[len(answers_ms) // 2], answers_ms[-1]),
    )


def _clients(cell: Cell, capacity_per_s: float, seconds: float, clients: int) -> Iterator[list[str]]:
    """Yield the options of every process of cameras: they share the cameras, as evenly as it goes."""
    fps = cell.load * capacity_per_s / CAMERAS
    first = 0
    for index in range(clients):
        count = CAMERAS * (index + 1) // clients - first
        options = ["--payload-bytes", str(cell.payload_bytes), "--cameras", str(count), "--first", str(first)]
        options += ["--fps", str(fps), "--seconds", str(seconds), "--limit-ms", str(LIMIT_MS), "--wait"]
        options += ["--connections", str(CONNECTIONS), "--least-budget-ms", str(LEAST_BUDGET_MS)]
        yield [*options, "--warm-up", str(WARM_UP_SHARE * seconds), "--delivery", cell.delivery]
        first += count


@contextlib.contextmanager
def _process(module: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a module of this folder in a process of its own; end it with the block, also after an error."""
    command = [sys.executable, "-m", f"forebay_server.bench.{module}", *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
    with process:
        try:
            yield process
        finally:
            process.kill()  # one that has ended is left alone


def _expect_ready(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None  # noqa: S101 - for mypy: it is a pipe
    if process.stdout.readline() != "ready\n":
        raise RuntimeError(f"{process.args!r} did not start; its output is above")


def _tell(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdin is not None  # noqa: S101 - for mypy: it is a pipe
    process.stdin.write(line)
    process.stdin.flush()


def _result(process: "subprocess.Popen[str]", seconds: float) -> dict[str, Any]:
    output, _ = process.communicate(timeout=seconds + GUARD_S)
    if process.returncode:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}; its output is above")
    result: dict[str, Any] = json.loads(output)
    return result


@dataclass(frozen=True, slots=True)
class _Usage:
    """CPU seconds used so far."""

    server_s: float
    server_waited_s: float
    hog_s: float
    cores_s: float  # of all processes, on the cores that this one may use


def _usage_at(instant: float, server: RunningServer, hog: "subprocess.Popen[str] | None") -> _Usage:
    time.sleep(max(0.0, instant - time.monotonic()))  # noqa: TID251 - others work meanwhile
    times = psutil.cpu_times(percpu=True)
    busy_s = [sum(core) - core.idle - core.iowait - core.guest - core.guest_nice for core in times]
    hog_times = psutil.Process(hog.pid).cpu_times() if hog is not None else None
    return _Usage(
        server.cpu_s(),
        _waited_s(server.process.pid),
        hog_times.user + hog_times.system if hog_times is not None else 0.0,
        sum(busy_s[core] for core in os.sched_getaffinity(0)),
    )


def _waited_s(pid: int) -> float:
    """Return for how long the threads of a process have been ready to run without running, by the kernel's account."""
    waited_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            waited_ns += int((task / "schedstat").read_text().split()[1])
    return waited_ns / 1e9


def _cost(before: _Usage, after: _Usage, clients_s: float, account: FrameAccount, span_s: float) -> Cost:
    server, hog = (after.server_s - before.server_s) / span_s, (after.hog_s - before.hog_s) / span_s
    clients = clients_s / span_s
    cores = (after.cores_s - before.cores_s) / span_s
    return Cost(
        server=server,
        clients=clients,
        hog=hog,
        others=max(0.0, cores - server - clients - hog),
        cores=len(os.sched_getaffinity(0)),
        sent_per_s=account.offered_per_s - account.fates[Fate.NOT_SENT] / span_s,
        server_waited=(after.server_waited_s - before.server_waited_s) / span_s,
    )


def cells(sizes: Sequence[int], deliveries: Sequence[str], loads: Sequence[float], *, has_hog: bool) -> list[Cell]:
    """Return what to measure; a disturbed cell follows its quiet one, and both begin at load 1 if there are any."""
    at = (1.0, *loads) if has_hog else loads
    disturbed = (False, True) if has_hog else (False,)
    return [
        Cell(size, delivery, load, is_disturbed)
        for size in sizes
        for delivery in deliveries
        for load in at
        for is_disturbed in disturbed
    ]
