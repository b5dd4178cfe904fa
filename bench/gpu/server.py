"""`forebay serve` processes with the exported networks, and their own measurements."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forebay_server.bench.gpu.lane import overlap
from forebay_server.bench.gpu.plan import MODELS, Plan
from forebay_server.bench.server_process import RunningServer, running_server
from forebay_server.service.journal.events import BatchEvent

TRACE_SECONDS = 1.5
HTTP_TIMEOUT_S = 20.0
PERMITS = 512
SIDES = {"detector": 416, "detector_fp16": 416, "resnet50": 224}
"""Pixels of the square pictures that each network takes."""


@dataclass(frozen=True, slots=True)
class ServedNetwork:
    """A network as a model of a server: typed results (detections) or raw tensors, on which GPUs, how urgent."""

    network: str
    max_batch_size: int
    is_typed: bool = False
    gpus: tuple[int, ...] = (0,)
    instances: int = 1
    priority: str = ""


@dataclass(frozen=True, slots=True)
class GpuServer:
    """A running server and where its admin port is."""

    running: RunningServer
    admin: str

    @property
    def pid(self) -> int:
        """Of the server process."""
        return int(self.running.process.pid)

    def trace(self) -> dict[str, Any]:
        """Return the last seconds of batches and frames. The server's own thread makes it: not while p99 counts."""
        url = f"http://{self.admin}/trace?seconds={TRACE_SECONDS}"
        with urllib.request.urlopen(url, timeout=HTTP_TIMEOUT_S) as answer:
            trace: dict[str, Any] = json.load(answer)
        return trace


@contextlib.contextmanager
def gpu_server(plan: Plan, models: Mapping[str, ServedNetwork]) -> Iterator[GpuServer]:
    """Serve networks by name."""
    with gpu_servers(plan, [models]) as servers:
        yield servers[0]


@contextlib.contextmanager
def gpu_servers(plan: Plan, models_of: Sequence[Mapping[str, ServedNetwork]]) -> Iterator[list[GpuServer]]:
    """Serve from several processes, each with models of its own, started at once."""
    os.environ |= {"FOREBAY_MAX_MESSAGE_BYTES": str(64 << 20), "FOREBAY_PERMITS": str(PERMITS)}
    repositories = [_write_repository(plan, index, models) for index, models in enumerate(models_of)]
    admins = [f"127.0.0.1:{port}" for port in free_ports(len(repositories))]
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(len(repositories)) as pool:

        def start(repository: Path, admin: str) -> GpuServer:
            running = running_server(None, "--admin-address", admin, model_repository=repository)
            return GpuServer(stack.enter_context(running), admin)

        yield list(pool.map(start, repositories, admins))


@contextlib.contextmanager
def gpu_group(plan: Plan, models: Mapping[str, ServedNetwork], front_ends: int, *flags: str) -> Iterator[GpuServer]:
    """Serve networks with front-end processes; 0: one process for all. `flags` are more of `forebay serve`."""
    os.environ |= {"FOREBAY_MAX_MESSAGE_BYTES": str(64 << 20), "FOREBAY_PERMITS": str(PERMITS)}
    repository = _write_repository(plan, 0, models)
    (port,) = free_ports(1)
    admin = f"127.0.0.1:{port}"
    flags = ("--admin-address", admin, *flags)
    with running_server(None, *flags, model_repository=repository, front_ends=front_ends) as running:
        yield GpuServer(running, admin)


def _write_repository(plan: Plan, index: int, models: Mapping[str, ServedNetwork]) -> Path:
    repository = plan.work / f"repository-{index}"
    shutil.rmtree(repository, ignore_errors=True)
    for name, model in models.items():
        folder = repository / name
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "model.pt2").hardlink_to(plan.path(model.network))
        (folder / "config.pbtxt").write_text(_config(plan, model))
        if model.is_typed:
            shutil.copy(MODELS / "detector" / "labels.txt", folder)
    return repository


def _config(plan: Plan, model: ServedNetwork) -> str:
    place = f"kind: KIND_GPU gpus: {list(model.gpus)}" if plan.device == "cuda" else "kind: KIND_CPU"
    lines = [
        'backend: "torch"',
        f"max_batch_size: {model.max_batch_size}",
        f"instance_group {{ {place} count: {model.instances} }}",
    ]
    if model.priority:
        lines.append(f"optimization {{ priority: {model.priority} }}")
    if model.is_typed:
        bundled = (MODELS / "detector" / "config.pbtxt").read_text()
        return "\n".join(lines) + "\n" + bundled[bundled.index("input {") :]
    side = SIDES[model.network]
    lines.append(f'input {{ name: "image" data_type: TYPE_UINT8 format: FORMAT_NHWC dims: [ {side}, {side}, 3 ] }}')
    return "\n".join(lines) + "\n"


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that no program uses."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def clients(module: str, arguments: list[list[str]], timeout_s: float) -> list[dict[str, Any]]:
    """Run several client processes at once; return what each printed."""
    processes = [
        subprocess.Popen([sys.executable, "-m", module, *more], stdout=subprocess.PIPE, text=True)  # noqa: S603
        for more in arguments
    ]
    try:
        outputs = [process.communicate(timeout=timeout_s)[0] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    return [json.loads(output) for output in outputs]


def device_use(trace: dict[str, Any], model: str) -> dict[str, Any]:
    """Return idle share, overlap and sizes of the batches of one model in a trace."""
    names = {e["pid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "process_name"}
    batches: dict[tuple[int, int], dict[str, Any]] = {}
    for event in trace["traceEvents"]:
        if event.get("cat") == "batch" and model in names.get(event["pid"], ""):
            batch = batches.setdefault((event["pid"], event["args"]["batch"]), dict(event["args"]))
            stage = event["name"].split(" ")[0]
            batch[stage] = (event["ts"] * 1e3, (event["ts"] + event["dur"]) * 1e3)
    whole = [_event(batch) for batch in batches.values() if {"h2d", "execute", "d2h"} <= set(batch)]
    if len(whole) < 3:
        return {"batches": len(whole)}
    whole.sort(key=lambda batch: batch.execute_end_ns)
    span_ns = whole[-1].execute_end_ns - whole[0].execute_end_ns
    busy_ns = sum(batch.execute_end_ns - batch.execute_start_ns for batch in whole[1:])
    return {
        "batches": len(whole),
        "mean_rows": sum(batch.rows for batch in whole) / len(whole),
        "idle_share": 1 - busy_ns / span_ns,
        "overlap_share": overlap(whole),
    }


def _event(batch: dict[str, Any]) -> BatchEvent:
    instants = [int(instant) for stage in ("h2d", "execute", "d2h") for instant in batch[stage]]
    return BatchEvent("", 0, batch["batch"], batch["rows"], batch["executed_rows"], 0, *instants)


def write_trace(trace: dict[str, Any], path: Path, last_events: int = 1500) -> None:
    """Keep the end of a trace, small enough for a repository."""
    named = [event for event in trace["traceEvents"] if event["ph"] == "M"]
    others = [event for event in trace["traceEvents"] if event["ph"] != "M"]
    path.write_text(json.dumps({"traceEvents": named + sorted(others, key=lambda e: e["ts"])[-last_events:]}))
