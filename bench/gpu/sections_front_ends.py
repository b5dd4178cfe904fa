"""Front-end processes before one engine process, beside one process for all: closed loops, cameras, overload."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from forebay_server.bench.gpu.lane import Setup, measure_alone
from forebay_server.bench.gpu.loads import (
    CLIENT_TIMEOUT_S,
    FPS,
    ServedModel,
    cameras_load,
    frames_result,
    write_payloads,
)
from forebay_server.bench.gpu.memory import gpu_mib
from forebay_server.bench.gpu.plan import Plan
from forebay_server.bench.gpu.server import SIDES, GpuServer, ServedNetwork, clients, gpu_group
from forebay_server.bench.group_startup import measure as measure_start
from forebay_server.bench.server_process import RunningServer, running_server, simulated_config

STREAMS, WINDOW = 4, 3  # of a client, a connection each: 96 frames in flight of eight clients
UNARY = "oip-unary"
MIB = 1 << 20


SIMULATED_MS = {"alpha_ms": 0.4, "beta_ms": 0.062}
"""Of the networks of a dry run without torch: about ResNet-50 in FP16 on an H200."""


def front_ends(plan: Plan) -> Iterator[dict[str, Any]]:
    """Identity of two sizes and unary, ResNet-50, the detector with typed results, cameras, overload, and the start."""
    for count in plan.front_ends:
        yield from _identity(plan, count)
    payloads = write_payloads(plan)
    network = plan.networks[-1]
    yield _alone(plan, network)
    for count in plan.front_ends:
        before_mib = gpu_mib()
        with _served(plan, network, count) as server:
            facts = {"front_ends": count, "gpu_mib": gpu_mib() - before_mib} | _memory(server.running)
            found: dict[str, Any] = {}
            for name, payload in (("raw", payloads[network]), ("typed", payloads[plan.detector])):
                model = network if name == "raw" else f"{plan.detector}, detections"
                found = closed_loop(plan, server.running, name, ["--payload-file", str(payload)])
                yield facts | {"way": "frames", "model": model} | found
            yield from _cameras(plan, server, facts, payloads)
            if count:
                target = ServedModel([server], "typed", payloads[plan.detector])
                yield from _overloads(plan, target, facts, found["rows_per_s"])
    yield from _starts(plan)


def _alone(plan: Plan, network: str) -> dict[str, Any]:
    """Return what the engine alone does in whole batches."""
    rows = plan.batch_sizes[-1]
    facts = {"way": "engine alone", "model": network, "rows": rows}
    if plan.device == "simulated":
        return facts | {"rows_per_s": rows / (SIMULATED_MS["alpha_ms"] + SIMULATED_MS["beta_ms"] * rows) * 1e3}
    return facts | measure_alone(Setup(network, plan.path(network), plan.device, rows, seconds=plan.seconds))


@contextmanager
def _served(plan: Plan, network: str, count: int) -> Iterator[GpuServer]:
    """Serve the network as `raw` and the detector as `typed`."""
    rows = plan.batch_sizes[-1]
    if plan.device != "simulated":
        models = {"raw": ServedNetwork(network, rows), "typed": ServedNetwork(plan.detector, rows, is_typed=True)}
        with gpu_group(plan, models, count) as server:
            yield server
        return
    sizes = {"raw": SIDES[network] ** 2 * 3, "typed": SIDES[plan.detector] ** 2 * 3}
    configs = {name: simulated_config(**SIMULATED_MS, input_bytes=nbytes) for name, nbytes in sizes.items()}
    with running_server(configs, front_ends=count) as running:
        yield GpuServer(running, "")


def _overloads(
    plan: Plan, target: ServedModel, facts: dict[str, Any], capacity_per_s: float
) -> Iterator[dict[str, Any]]:
    """Offer more than the closed loop has moved, from cameras that replace old frames."""
    for load in plan.overloads:
        count = round(load * capacity_per_s / FPS)
        found = cameras_load(target, min(plan.group_clients, count), count, "latest")(plan.group_camera_seconds)
        share = found["in_time_share"] * found["offered_per_s"] / capacity_per_s
        yield facts | {"way": "raw cameras, LATEST", "cameras": count, "load": load, "of_capacity": share} | found


def _starts(plan: Plan) -> Iterator[dict[str, Any]]:
    """Start the bundled models with the most front-end processes, and in one process, by turns."""
    count = max(plan.front_ends)
    with TemporaryDirectory(prefix="forebay-bench-") as folder:
        config = Path(folder) / "forebay.toml"
        config.write_text(f'cache_folder = "{folder}/cache"\n')
        for number in range(plan.start_rounds + 1):
            (one_s, _), (group_s, pss_mib) = measure_start(0, config), measure_start(count, config)
            if number:  # the first turn fills the cache
                facts = {"front_ends": count, "way": "start", "one_s": one_s, "group_s": group_s}
                yield facts | {"ratio": group_s / one_s, "engine_pss_mib": pss_mib[0], "front_end_pss_mib": pss_mib[1:]}


def _identity(plan: Plan, count: int) -> Iterator[dict[str, Any]]:
    sizes = {"a": 150_528, "b": 519_168}
    configs = {name: simulated_config(alpha_ms=0, beta_ms=0, input_bytes=nbytes) for name, nbytes in sizes.items()}
    with running_server(configs, front_ends=count) as server:
        facts = {"front_ends": count} | _memory(server)
        for name, nbytes in sizes.items():
            found = closed_loop(plan, server, name, ["--payload-bytes", str(nbytes)])
            yield facts | {"way": "frames", "model": f"identity, {nbytes} bytes"} | found
        more = ["--payload-bytes", str(sizes["a"]), "--protocol", UNARY]
        found = closed_loop(plan, server, "a", more)
        yield facts | {"way": "unary", "model": f"identity, {sizes['a']} bytes"} | found


def closed_loop(
    plan: Plan, server: RunningServer, model: str, more: Sequence[str], processes: int | None = None
) -> dict[str, Any]:
    """Run 12 frames in flight of each client process for about some seconds, after a run that shows how fast it is.

    Args:
        plan: of the run.
        server: the group.
        model: name.
        more: arguments of the client processes.
        processes: number of client processes; None: that of the plan.
    """
    processes = processes or plan.group_clients
    load_of(processes, server, model, more, STREAMS * WINDOW * plan.warm_up_windows)
    rate = load_of(processes, server, model, more, STREAMS * WINDOW * plan.warm_up_windows * 2)["rows_per_s"]
    before_s, started_s = server.cpu_s(), time.perf_counter()
    count = int(rate / processes * plan.group_seconds)
    result = load_of(processes, server, model, more, max(count, STREAMS * WINDOW * 2))
    used_s = server.cpu_s() - before_s
    result["server_cpu_ms_per_row"] = used_s * 1e3 / result["frames"]
    result["server_cores"] = used_s / (time.perf_counter() - started_s)
    return result


def load_of(processes: int, server: RunningServer, model: str, more: Sequence[str], frames: int) -> dict[str, Any]:
    """Run a closed loop of so many client processes, each with so many frames."""
    options = ["--streams", str(STREAMS), "--window", str(WINDOW), "--frames", str(frames)]
    arguments = [[server.address, model, *options, *more] for _ in range(processes)]
    results = clients("forebay_server.bench.frame_load", arguments, CLIENT_TIMEOUT_S)
    return {"in_flight": processes * STREAMS * WINDOW} | frames_result(results)


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
        load = cameras_load(target, min(plan.group_clients, count), count, "every")
        is_long = bool(facts["front_ends"]) and (encoding, count) == cells[0]
        before_s = server.running.cpu_s()
        found = load(plan.long_seconds if is_long else plan.group_camera_seconds)
        cpu_ms = (server.running.cpu_s() - before_s) * 1e3 / max(1.0, found["frames"])
        yield facts | {"way": f"{encoding} cameras", "cameras": count, "server_cpu_ms_per_row": cpu_ms} | found


def _memory(server: RunningServer) -> dict[str, Any]:
    """Return the proportional set size of the processes, in MiB: the first is the engine process."""
    pss = [psutil.Process(pid).memory_full_info().pss / MIB for pid in (server.process.pid, *server.others)]
    return {"engine_pss_mib": pss[0], "front_end_pss_mib": pss[1:]}
