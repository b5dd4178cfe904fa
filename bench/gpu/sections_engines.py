"""Several GPUs behind one port: one engine process with a lane for each, beside an engine process for each."""

import json
import os
import random
import signal
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from forebay_server.bench.deaths import Report, cameras_of, report_of
from forebay_server.bench.gpu.loads import FPS, ServedModel, cameras_load, write_payloads
from forebay_server.bench.gpu.memory import gpu_mib
from forebay_server.bench.gpu.plan import Plan
from forebay_server.bench.gpu.sections_front_ends import MIB, SIMULATED_MS, closed_loop, load_of
from forebay_server.bench.gpu.server import HTTP_TIMEOUT_S, SIDES, GpuServer, ServedNetwork, free_ports, gpu_group
from forebay_server.bench.server_process import RunningServer, running_server, simulated_config

MODEL = "raw"
CORES_EACH = 3  # as `service.group.count`
TOLD_S = 1.6  # a quarter of a second until the first engine process knows, and a second until its observer has counted
DEATHS = 2  # one of the first engine process, one of another
OPENED_S = 2.0  # for the cameras of a death to open their streams
CALM_S = 2.0  # before a death, and after the gap that it may leave
BACK_LIMIT_S = 60.0  # until a new engine process has loaded its models


def engines(plan: Plan) -> Iterator[dict[str, Any]]:
    """One GPU; all with one engine process; all with one for each. Frames, cameras, memory, and deaths."""
    network = plan.networks[-1]
    payload = write_payloads(plan)[network]
    most = plan.gpus if plan.device == "cuda" else 2
    front_ends = max(1, min(plan.front_ends[-1] * most, (os.cpu_count() or 1) // CORES_EACH))
    for gpus, count in dict.fromkeys([(most, 1), (1, 1), (most, most)]):
        before_mib = gpu_mib()
        with _served(plan, network, gpus, count, front_ends) as server:
            facts: dict[str, Any] = {"gpus": gpus, "engines": count, "front_ends": front_ends}
            yield facts | {"way": "memory", "gpu_mib": gpu_mib() - before_mib} | _memory(server.running, count)
            yield facts | {"way": "frames", "model": network} | _frames(plan, server, payload, gpus)
            cameras = plan.raw_crowds[0] * gpus
            load = cameras_load(ServedModel([server], MODEL, payload), plan.group_clients * gpus, cameras, "every")
            yield facts | {"way": "raw cameras", "cameras": cameras} | load(plan.group_camera_seconds / 2)
            if count > 1:
                yield facts | {"way": "deaths"} | _deaths(plan, server.running, count, SIDES[network] ** 2 * 3)


def _frames(plan: Plan, server: GpuServer, payload: Path, gpus: int) -> dict[str, Any]:
    """Run a closed loop for its rate and CPU, and once more to see how long the lanes execute meanwhile."""
    processes, more = plan.group_clients * gpus, ["--payload-file", str(payload)]
    found = closed_loop(plan, server.running, MODEL, more, processes)
    time.sleep(TOLD_S)  # noqa: TID251 - see TOLD_S
    busy_s = _busy_s(server)
    again = load_of(processes, server.running, MODEL, more, int(found["frames"] / processes))
    time.sleep(TOLD_S)  # noqa: TID251 - the same
    spent_s = again["frames"] / again["rows_per_s"]
    return found | {"idle_share": 1 - (_busy_s(server) - busy_s) / (spent_s * gpus)}


@contextmanager
def _served(plan: Plan, network: str, gpus: int, engines: int, front_ends: int) -> Iterator[GpuServer]:
    """Serve the network on the first `gpus` GPUs."""
    rows = plan.batch_sizes[-1]
    if plan.device != "simulated":
        models = {MODEL: ServedNetwork(network, rows, gpus=tuple(range(gpus)))}
        with gpu_group(plan, models, front_ends, "--engines", str(engines)) as server:
            yield server
        return
    config = simulated_config(**SIMULATED_MS, input_bytes=SIDES[network] ** 2 * 3)
    config += f"instance_group {{ count: {gpus} kind: KIND_CPU }}\n"
    (port,) = free_ports(1)
    flags = ["--engines", str(engines), "--admin-address", f"127.0.0.1:{port}"]
    with running_server({MODEL: config}, *flags, front_ends=front_ends) as running:
        yield GpuServer(running, f"127.0.0.1:{port}")


def _busy_s(server: GpuServer) -> float:
    """Return how long all lanes have executed so far."""
    with urllib.request.urlopen(f"http://{server.admin}/metrics", timeout=HTTP_TIMEOUT_S) as answer:
        lines = answer.read().decode().splitlines()
    name = "forebay_stage_busy_seconds_total{"
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name) and 'stage="execute"' in line)


def _memory(server: RunningServer, engines: int) -> dict[str, Any]:
    """Return the proportional set size of the processes, in MiB."""
    pss = [psutil.Process(pid).memory_full_info().pss / MIB for pid in (server.process.pid, *server.others)]
    return {"engine_pss_mib": pss[:engines], "front_end_pss_mib": pss[engines:]}


def _deaths(plan: Plan, server: RunningServer, engines: int, row_bytes: int) -> dict[str, Any]:
    """Kill engine processes by turns, while cameras send; return what these notice."""
    parent = server.process.parent()
    assert parent is not None  # noqa: S101 - it runs
    chance = random.Random(plan.gpus)  # noqa: S311 - repeatable, no secret
    running = [server.process.pid, *server.others[: engines - 1]]
    others = {child.pid for child in parent.children()} - set(running)
    deaths_ns: list[int] = []
    back_s: list[float] = []
    with cameras_of(server.address, 8, 8, FPS, MODEL, row_bytes) as cameras:
        time.sleep(OPENED_S)  # noqa: TID251 - see there
        for death in range(DEATHS):
            time.sleep(CALM_S + chance.uniform(0, 0.5))  # noqa: TID251 - a random instant
            number = death % engines
            os.kill(running[number], signal.SIGKILL)
            deaths_ns.append(time.monotonic_ns())
            running[number] = _successor(parent, others | set(running), deaths_ns[-1])
            _wait_mapped(running[number], deaths_ns[-1])
            back_s.append((time.monotonic_ns() - deaths_ns[-1]) / 1e9)
        output, _ = cameras.communicate("\n", timeout=2 * BACK_LIMIT_S)
    report = report_of(json.loads(output), deaths_ns)
    return {"deaths": len(deaths_ns), "back_s": back_s} | _gaps(report)


def _successor(parent: psutil.Process, known: set[int], death_ns: int) -> int:
    """Return the pid of the engine process that takes the place of a killed one."""
    while True:
        found = {child.pid for child in parent.children()} - known
        if found:
            return int(found.pop())
        if time.monotonic_ns() - death_ns > BACK_LIMIT_S * 1e9:
            raise RuntimeError("no engine process took the place of the one that was killed")
        time.sleep(0.005)  # noqa: TID251 - waits for the time that it measures


def _wait_mapped(pid: int, death_ns: int) -> None:
    """Wait until an engine process has made the memory of its version: it serves within milliseconds then."""
    while time.monotonic_ns() - death_ns < BACK_LIMIT_S * 1e9:
        try:
            if any("forebay version" in each.path for each in psutil.Process(pid).memory_maps(grouped=True)):
                return
        except psutil.Error as error:
            raise RuntimeError("an engine process that took the place of another one ended") from error
        time.sleep(0.05)  # noqa: TID251 - the same
    raise RuntimeError("an engine process that took the place of another one does not serve")


def _gaps(report: Report) -> dict[str, Any]:
    statuses = sum(report.statuses.values(), start=type(report.sent)())
    return {
        "frames": sum(report.sent.values()),
        "lost": dict(report.lost),
        "twice": sum(report.twice.values()),
        "statuses": dict(statuses),
        "longest_gap_before_ms": max(report.gaps_before_ms, default=0.0),
        "longest_gap_after_ms": max(report.gaps_after_ms, default=0.0),
        "reconnected": len(report.own_gaps_ms),
    }
