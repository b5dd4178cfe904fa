"""A `forebay serve` process with the exported networks, and what it says about itself."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.gpu.lane import overlap
from bench.gpu.plan import Plan
from bench.server_process import RunningServer, running_server
from service.observe.journal import BatchEvent

TRACE_SECONDS = 2.0
HTTP_TIMEOUT_S = 20.0
PERMITS = 512
SIDES = {"detector": 416, "detector_fp16": 416, "resnet50": 224}
"""Pixels of the square pictures that each network takes."""


@dataclass(frozen=True, slots=True)
class GpuServer:
    """A running server and where its admin port is."""

    running: RunningServer
    admin: str

    def trace(self) -> dict[str, Any]:
        """Return the last seconds of batches and frames."""
        url = f"http://{self.admin}/trace?seconds={TRACE_SECONDS}"
        with urllib.request.urlopen(url, timeout=HTTP_TIMEOUT_S) as answer:
            trace: dict[str, Any] = json.load(answer)
        return trace


@contextlib.contextmanager
def gpu_server(plan: Plan, models: dict[str, tuple[str, int, int]]) -> Iterator[GpuServer]:
    """Serve networks: name to (network, max_batch_size, instances)."""
    repository = plan.out / "repository"
    shutil.rmtree(repository, ignore_errors=True)
    kind = "KIND_GPU" if plan.device == "cuda" else "KIND_CPU"
    for name, (network, rows, instances) in models.items():
        folder = repository / name / "1"
        folder.mkdir(parents=True)
        (folder / "model.pt2").hardlink_to(plan.path(network))
        text = f'backend: "torch"\nmax_batch_size: {rows}\ninstance_group {{ kind: {kind} count: {instances} }}\n'
        side = SIDES[network]
        text += f'input {{ name: "image" data_type: TYPE_UINT8 format: FORMAT_NHWC dims: [ {side}, {side}, 3 ] }}\n'
        (folder.parent / "config.pbtxt").write_text(text)
    admin = f"127.0.0.1:{_free_port()}"
    os.environ |= {"FOREBAY_MAX_MESSAGE_BYTES": str(64 << 20), "FOREBAY_PERMITS": str(PERMITS)}
    with running_server(None, "--admin-address", admin, model_repository=repository) as running:
        yield GpuServer(running, admin)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
