"""Front-end processes before one engine process, beside one process for all: closed loops, cameras, overload."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from forebay_server.bench.gpu.lane import Setup, measure_alone
from forebay_server.bench.gpu.loads import CLIENT_TIMEOUT_S, ServedModel, cameras_load, frames_result, write_payloads
from forebay_server.bench.gpu.memory import gpu_mib
from forebay_server.bench.gpu.plan import Plan
from forebay_server.bench.gpu.server import GpuServer, ServedNetwork, clients, gpu_group
from forebay_server.bench.server_process import RunningServer, running_server, simulated_config

CLIENTS = 8
STREAMS, WINDOW = 4, 3  # of a client, a connection each: 96 frames in flight
UNARY = "oip-unary"
MIB = 1 << 20


def front_ends(plan: Plan) -> Iterator[dict[str, Any]]:
    """Identity of two sizes and unary, ResNet-50, the detector with typed results, and cameras, in both forms."""
    for count in plan.front_ends:
        yield from _identity(plan, count)
    payloads = write_payloads(plan)
    rows = plan.batch_sizes[-1]
    network = plan.networks[-1]
    alone = measure_alone(Setup(network, plan.path(network), plan.device, rows, seconds=plan.seconds))
    yield {"way": "engine alone", "model": network, "rows": rows} | alone
    models = {"raw": ServedNetwork(network, rows), "typed": ServedNetwork(plan.detector, rows, is_typed=True)}
    for count in plan.front_ends:
        before_mib = gpu_mib()
        with gpu_group(plan, models, count) as server:
            facts = {"front_ends": count, "gpu_mib": gpu_mib() - before_mib} | _memory(server.running)
            for name, payload in (("raw", payloads[network]), ("typed", payloads[plan.detector])):
                model = network if name == "raw" else f"{plan.detector}, detections"
                found = _closed_loop(server.running, name, ["--payload-file", str(payload)], plan.load_seconds)
                yield facts | {"way": "frames", "model": model} | found
            yield from _cameras(plan, server, facts, payloads)


def _identity(plan: Plan, count: int) -> Iterator[dict[str, Any]]:
    sizes = {"a": 150_528, "b": 519_168}
    configs = {name: simulated_config(alpha_ms=0, beta_ms=0, input_bytes=nbytes) for name, nbytes in sizes.items()}
    with running_server(configs, front_ends=count) as server:
        facts = {"front_ends": count} | _memory(server)
        for name, nbytes in sizes.items():
            found = _closed_loop(server, name, ["--payload-bytes", str(nbytes)], plan.load_seconds)
            yield facts | {"way": "frames", "model": f"identity, {nbytes} bytes"} | found
        more = ["--payload-bytes", str(sizes["a"]), "--protocol", UNARY]
        found = _closed_loop(server, "a", more, plan.load_seconds)
        yield facts | {"way": "unary", "model": f"identity, {sizes['a']} bytes"} | found


def _closed_loop(server: RunningServer, model: str, more: Sequence[str], seconds: float) -> dict[str, Any]:
    """Run 96 frames in flight for about some seconds, after a run that shows how fast it is."""
    _load(server, model, more, STREAMS * WINDOW * 50)
    rate = _load(server, model, more, STREAMS * WINDOW * 100)["rows_per_s"]
    before_s, started_s = server.cpu_s(), time.perf_counter()
    result = _load(server, model, more, max(int(rate / CLIENTS * seconds), STREAMS * WINDOW * 2))
    used_s = server.cpu_s() - before_s
    result["server_cpu_ms_per_row"] = used_s * 1e3 / result["frames"]
    result["server_cores"] = used_s / (time.perf_counter() - started_s)
    return result


def _load(server: RunningServer, model: str, more: Sequence[str], frames: int) -> dict[str, Any]:
    options = ["--streams", str(STREAMS), "--window", str(WINDOW), "--frames", str(frames)]
    arguments = [[server.address, model, *options, *more] for _ in range(CLIENTS)]
    results = clients("forebay_server.bench.frame_load", arguments, CLIENT_TIMEOUT_S)
    return {"in_flight": CLIENTS * STREAMS * WINDOW} | frames_result(results)


def _cameras(
    plan: Plan, server: GpuServer, facts: dict[str, Any], payloads: dict[str, Path]
) -> Iterator[dict[str, Any]]:
    # One process for all is measured where it fails already, and no further.
    crowds = [("raw", plan.raw_crowds), ("jpeg", plan.jpeg_crowds)]
    cells = [(encoding, n) for encoding, counts in crowds for n in (counts if facts["front_ends"] else counts[:1])]
    for encoding, count in cells:
        target = ServedModel(
            [server], "typed", payloads["jpeg" if encoding == "jpeg" else plan.detector], encoding == "jpeg"
        )
        load = cameras_load(target, min(CLIENTS, count), count, "every")
        before_s = server.running.cpu_s()
        found = load(plan.camera_seconds)
        cpu_ms = (server.running.cpu_s() - before_s) * 1e3 / max(1.0, found["frames"])
        yield facts | {"way": f"{encoding} cameras", "cameras": count, "server_cpu_ms_per_row": cpu_ms} | found


def _memory(server: RunningServer) -> dict[str, Any]:
    """Return the proportional set size of the processes, in MiB: the first is the engine process."""
    pss = [psutil.Process(pid).memory_full_info().pss / MIB for pid in (server.process.pid, *server.others)]
    return {"engine_pss_mib": pss[0], "front_end_pss_mib": pss[1:]}
